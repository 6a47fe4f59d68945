"""How a model is run while it learns: compiled or not, in which precision, how many images at once."""

import dataclasses
from typing import Any, final

import keras

from tfopt._checks import check_choice, check_integer
from tfopt.models.precision import in_precision

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@final
@dataclasses.dataclass(frozen=True)
class TrainingSetting:
    """Settings that decide how fast a model trains. None leaves a thing as it is.

    Args:
        batch_size: Images per update, >= 1.
        jit_compile: Whether XLA compiles the training step.
        steps_per_execution: Updates per call from Python, >= 1. Callbacks see every k-th batch only.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        threads: Of one operation, and operations at a time, >= 1. Applies to a whole process.
        data_threads: Of the input pipeline alone, >= 1, instead of the shared ones.
    """

    batch_size: int = 32
    jit_compile: bool | None = None
    steps_per_execution: int | None = None
    precision: str | None = None
    threads: int | None = None
    data_threads: int | None = None

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, minimum=1)
        check_choice("jit_compile", self.jit_compile, (None, False, True))
        check_choice("precision", self.precision, (None, *PRECISIONS))
        for name in ("steps_per_execution", "threads", "data_threads"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=1)

    def __str__(self) -> str:
        values = dataclasses.asdict(self).items()
        return ", ".join(f"{name}={value}" for name, value in values if value is not None)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that give a new process this number of threads."""
        names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        return {} if self.threads is None else {name: str(self.threads) for name in names}

    def apply(self, model: keras.Model) -> keras.Model:
        """A model with the same weights that trains at this setting; the given one stays as it is.

        The number of threads belongs to the process (`environment`) and the batch size to the data.

        Args:
            model: Compiled, Functional or Sequential.
        """
        copy = in_precision(model, self.precision)
        copy.compile(**self.compile_arguments(model))
        return copy

    def compile_arguments(self, model: keras.Model) -> dict[str, Any]:
        """What `compile` of a copy of this compiled model is called with; its optimizer is a new one."""
        arguments = keras.saving.deserialize_keras_object(model.get_compile_config())
        if self.jit_compile is not None:
            arguments["jit_compile"] = self.jit_compile
        if self.steps_per_execution is not None:
            arguments["steps_per_execution"] = self.steps_per_execution
        if self.precision == "mixed_float16":
            arguments["optimizer"] = _scaled(arguments["optimizer"])
        return arguments


def _scaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Small float16 gradients become zero unless the loss is scaled up."""
    kind = keras.optimizers.LossScaleOptimizer
    return optimizer if isinstance(optimizer, kind) else kind(optimizer)

"""A trained image model from a file, `.keras` or `.tflite`, behind the same names."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from tfopt._checks import check_choice
from tfopt.compress._pixel_scales import SCALES
from tfopt.recipes.stored_task import damage_of, stored_task
from tfopt.tasks import Classification, MultiLabel, Task

_AT_ONCE = 64  # images in memory: thousands at once would take gigabytes


@final
class Classifier:
    """Outputs of a model for images. A `.tflite` file runs without TensorFlow.

    Args:
        path: A `.keras`, `.h5` or `.tflite` file.
        class_names: Names of the outputs; None takes those that the file holds.
        threads: Threads of the interpreter of a `.tflite` file.
        input_scale: Of the pixels that a Keras model was trained on, one of `SCALES`; "auto" is [0, 255] for
            files of tfopt and models that scale pixels themselves, else open.

    Attributes:
        model: The `keras.Model` or `TFLiteModel`.
        image_size: Height and width in pixels.
        scales: What the scale of its pixels may be; several if nothing says which.
        task_is_open: Whether `task` is a guess: that sigmoid outputs of a file that does not say it are
            several labels per image.
        stored_class_names: Names of the outputs, or None if neither the file nor the caller gives them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind, takes no RGB images of a fixed size, or has another
            number of outputs than names.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        *,
        class_names: Sequence[str] | None = None,
        threads: int = 1,
        input_scale: str = "auto",
    ) -> None:
        check_choice("input_scale", input_scale, ("auto", *SCALES))
        self.path = pathlib.Path(path).expanduser()
        if not self.path.is_file():
            kinds = "a .keras, .h5 or .tflite file"
            raise FileNotFoundError(f"`model` must be {kinds}. Received: model={str(path)!r}.")
        stored = stored_task(self.path)
        self.model: Any
        if self.path.suffix == ".tflite":
            from tfopt.compress.tflite_model import TFLiteModel

            self.model = TFLiteModel(self.path, threads=threads)
            self._predict: Callable[[np.ndarray], Any] = self.model.predict
            shape, activation = self.model.input_shape, ""
        else:
            self.model = _keras_model(self.path)
            self._predict = self.model.predict_on_batch
            shape = tuple(getattr(self.model, "input_shape", None) or ())[1:]  # none of a subclassed model
            activation = _activation(self.model)
        _check_single(self.path, self.model)
        if len(shape) != 3 or None in shape[:2] or shape[2] != 3:
            fix = "Other models can be called from Python with inputs of their own."
            raise ValueError(
                f"`model` must take RGB images of a fixed size, (height, width, 3). Received: {str(path)!r}, "
                f"which takes {tuple(shape) or 'inputs of unknown shape'}. {fix}"
            )
        self.image_size: tuple[int, int] = (int(shape[0]), int(shape[1]))
        sigmoid = self.model.output_shape[-1] if activation == "sigmoid" else 0
        self._task = _named(stored, class_names, sigmoid)
        self.scales = (input_scale,) if input_scale != "auto" else _possible_scales(self.model, stored)
        # None: told by the outputs. Few outputs say it badly: logits may lie in [0, 1].
        self._gives_logits = {"linear": True, "softmax": False, "sigmoid": False}.get(activation)
        named = self._task is not None and (stored is None or isinstance(stored, Classification))
        self.task_is_open = named and isinstance(self._task, MultiLabel)

    @property
    def task(self) -> Task:
        """What the outputs mean.

        Raises:
            ValueError: If the file does not say it.
        """
        if self._task is None:
            raise ValueError(
                f"{str(self.path)!r} holds no class names. Files from `tfopt finetune` do; for another model "
                "give them with `class_names`, in the order of its outputs."
            )
        return self._task

    def task_for(self, kind: str) -> Task:
        """The task on labels of a kind: open sigmoid outputs are classes where each image has one.

        Args:
            kind: Of the labels, "classification", "multilabel" or "regression".
        """
        if self.task_is_open and kind == Classification.name:
            self._task = Classification(self.task.names)
        return self.task

    @property
    def stored_class_names(self) -> Sequence[str] | None:
        """Names of the outputs, or None."""
        return None if self._task is None else self._task.names

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the outputs.

        Raises:
            ValueError: If there are none.
        """
        return self.task.names

    def predict(self, images: np.ndarray, scale: str | None = None) -> np.ndarray:
        """Outputs `[examples, outputs]` of pixels `[examples, height, width, 3]` in [0, 255].

        Those of a classifier are probabilities, also where the model itself ends in logits.

        Args:
            images: Pixels in [0, 255].
            scale: To which they are scaled for the model; None is the first of `scales`.

        Raises:
            ValueError: If the model has another number of outputs than names.
        """
        factor, offset = (np.asarray(value, "float32") for value in SCALES[scale or self.scales[0]])
        outputs = np.asarray(self._predict(images.astype("float32") * factor + offset))
        if self._task is None:
            return outputs
        if isinstance(self._task, Classification) and outputs.ndim == 2:
            outputs = self._probabilities(outputs)
        if outputs.ndim != 2 or outputs.shape[1] != self._task.outputs:
            raise ValueError(
                f"{str(self.path)!r} has outputs of shape {outputs.shape[1:]} and {self._task.outputs} names "
                f"({', '.join(self._task.names[:3])}, ...). Give one name for each output with `class_names`."
            )
        return outputs

    def predict_files(self, paths: Sequence[str | pathlib.Path]) -> np.ndarray:
        """Outputs `[files, outputs]` of image files, resized as in training.

        Raises:
            BadImageError: If a file is no image.
        """
        from tfopt.data.decode import decode

        parts = [paths[first : first + _AT_ONCE] for first in range(0, len(paths), _AT_ONCE)]
        return np.concatenate(
            [self.predict(np.stack([decode(str(path), self.image_size) for path in part])) for part in parts]
        )

    def _probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Softmax of logits; of a single probability also its complement."""
        if outputs.shape[1] == 1 and self.task.outputs == 2:
            if self._gives_logits is None and len(outputs):
                self._gives_logits = bool(outputs.min() < 0 or outputs.max() > 1)
            second = 1 / (1 + np.exp(-outputs)) if self._gives_logits else outputs
            return np.concatenate([1 - second, second], axis=1)
        if self._gives_logits is None and len(outputs):
            rounding = outputs.shape[1] / 512  # 8-bit outputs come in steps of 1/256
            sums = np.abs(outputs.sum(axis=1) - 1).max()
            self._gives_logits = bool(outputs.min() < -1e-3 or sums > 0.02 + rounding)
        if not self._gives_logits:
            return outputs
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _possible_scales(model: Any, stored: Task | None) -> tuple[str, ...]:
    """The scales of pixels that a model may want: files that say what their outputs mean take [0, 255]."""
    if stored is not None or not hasattr(model, "layers"):
        return ("pixels",)
    from tfopt.compress._input_scale import scales_itself

    return ("pixels",) if scales_itself(model) else tuple(SCALES)


def _named(stored: Task | None, class_names: Sequence[str] | None, sigmoid: int) -> Task | None:
    if class_names is not None:
        stored = None
    names = class_names if stored is None else stored.names
    if names is None:
        return None
    one_of_two = sigmoid == 1 and len(names) == 2
    several = sigmoid and (stored is None or isinstance(stored, Classification)) and not one_of_two
    return MultiLabel(names) if several else stored or Classification(names)


def _activation(model: Any) -> str:
    """The name of the function that a Keras model ends in, "linear" of logits; "" if that cannot be seen."""
    last = model
    while layers := getattr(last, "layers", None):  # the classifier may be a model at the end of another one
        last = layers[-1]
    own_class = {"Softmax": "softmax"}.get(type(last).__name__, "")
    return own_class or getattr(getattr(last, "activation", None), "__name__", "")


def _check_single(path: pathlib.Path, model: Any) -> None:
    """Refuses several inputs or outputs, of which nobody says what they mean."""
    counts = {kind: len(getattr(model, kind, None) or "1") for kind in ("inputs", "outputs")}
    if set(counts.values()) != {1}:
        received = " and ".join(f"{count} {kind}" for kind, count in counts.items())
        raise ValueError(
            f"`model` must have one input and one output. Received: {str(path)!r} with {received}. Save what "
            "you want to ask for: keras.Model(model.inputs[0], model.outputs[0])."
        )


def _keras_model(path: pathlib.Path) -> Any:
    """The model of a file, or an error that says what is wrong with the file."""
    if path.suffix == ".keras" and (damage := damage_of(path)):
        fix = "Copy it again, or run the command that wrote it once more."
        raise ValueError(f"{str(path)!r} is damaged or no .keras file: {damage}. {fix}")
    from tfopt.models import load

    try:
        return load(path)
    except Exception as error:  # Keras raises a dozen kinds on what it does not understand
        if "`path`" in str(error):  # a sentence of ours
            raise ValueError(str(error).replace("`path`", "`model`")) from error
        text = str(error).rpartition("Exception encountered: ")[2]  # behind the whole config of the model
        reason = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
        fix = "If it needs layers of your own, call `tfopt.recipes` in a script that imports them."
        raise ValueError(f"{str(path)!r} cannot be loaded: {reason[:300].rstrip('.')}. {fix}") from error

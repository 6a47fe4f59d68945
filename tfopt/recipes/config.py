"""The options of `tfopt.finetune`: one frozen dataclass, from which the command's flags are generated."""

import dataclasses
import json
import pathlib
from typing import Any

import keras

from tfopt import _checks, data, models
from tfopt.models.mobilenet import NAMES, image_shape


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with the text that `--help` shows and the `choices` it takes."""
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


OPTIMIZERS, SCHEDULES = ("adamw", "lion", "sgd"), ("cosine", "linear", "constant")
QUANTIZATIONS = ("int8", "dynamic", "float16", "int16x8")
PRECISIONS = ("float32", "mixed_bfloat16")
GROWTHS = tuple(2**doublings for doublings in range(11))
BALANCES = ("oversample", "undersample", "rejection")
_SMALLEST_ALPHA = {"mobilenet": 0.25, "mobilenet_v2": 0.35}  # V3: 0.75; with ImageNet weights
_AUGMENTATIONS = ("auto", "light", "standard", "strong")
_SMALL_IMAGE = 96  # pixels; below it, images are taken for drawings and characters, not photographs


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """What `tfopt.finetune` does with a data set. Every field is also a flag of `tfopt finetune`.

    "auto" and None stand for what suits the model and the data; the report shows what was chosen.

    Args:
        model: "mobilenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "squeezenet", or
            a `keras.Model` from pixels in [0, 255] to probabilities, ending in a dense layer and a softmax.
        weights: "imagenet", the path of an `.h5` or `.keras` file, or None: random. "auto": "imagenet"
            for a MobileNet on images of at least 96 pixels.
        alpha: Width multiplier of a MobileNet, > 0. None: the smallest that has ImageNet weights, or 0.5
            from scratch, where the first convolution keeps the resolution of images below 96 pixels.
        image_size: Height and width in pixels, >= 32. None: that of the data if it is one size of at
            most 224 (but at least 32), else 224.
        epochs: Epochs of the second stage, in which convolutions train too, >= 0. None: 16 for a
            pretrained model, 20 from scratch.
        unfreeze: Share of the layers that train in the second stage of a pretrained model, counted from
            the top, in (0, 1].
        batch_size: Images per update, >= 1.
        batch_growth: How many times as large the batches of the second stage become: 1, 2, 4, 8, ... Each
            size from `batch_size` on, doubled each time, sees an equal share of the images. They are
            gathered from batches of `batch_size`, so memory and the statistics of batch normalization stay.
            In a training too short for an update of each size, they grow less.
        learning_rate: Peak rate of the second stage. None: 5e-4 for a pretrained model, 3e-3 from scratch.
        optimizer: "adamw", "lion" or "sgd" (momentum 0.9). Lion wants a fifth of AdamW's learning rate, SGD
            ten times it.
        weight_decay: Of kernels, decoupled, >= 0.
        schedule: How the rate falls after warm-up: "cosine", "linear" (both to zero) or "constant".
        warmup: Share of the updates in which the rate rises to its peak, in [0, 1).
        dropout: Share of the features dropped before the classifier, in [0, 1). None: 0.2; SqueezeNet: 0.5.
        label_smoothing: In [0, 1).
        augment: "light", "standard" or "strong" presets of `tfopt.data.Augment`, an `Augment`, or None.
            "auto": "standard" for photographs, small shifts, turns and zooms for images below 96 pixels.
        balance: How classes get equal shares of an epoch: "oversample" repeats images of rare ones,
            "undersample" leaves out images of large ones, "rejection" leaves out others in each epoch.
            None: as they are. See `tfopt.data.balance`.
        fit_on_validation: Whether the classifier of a pretrained model is fitted in the end to the images of
            the validation split as well, when those have chosen the best epoch.
        sparsity: Share of each kernel that is pruned to zero, in [0, 1). None: no pruning.
        quantization: "int8" (with quantization-aware training), "dynamic", "float16", "int16x8", or
            None: a float file.
        compress_epochs: Epochs of pruning, and of quantization-aware training, >= 1.
        jit_compile: Whether XLA compiles training steps. None: on a GPU. `tfopt.tune.autotune` measures it.
        steps_per_execution: Updates per call from Python, >= 1. Several save time where one takes few
            milliseconds; they are interrupted together, and the average of the weights sees the last of them.
        precision: "float32", or "mixed_bfloat16" for the second stage and pruning, which is faster where
            the hardware has it. Weights stay float32; all that is measured and exported runs in float32.
        threads: Of TensorFlow, >= 1: in one operation, and operations at a time. None: as many as cores.
        data_threads: Of the input alone, >= 1. None: those of TensorFlow.
        strategy: Name for `tfopt.distribute.make_strategy`.
        on_bad_image: "raise" stops at a file that is no image, "skip" leaves it out.
        seed: Of the splits, the order, augmentation and initial weights, >= 0.
        output: Folder for the model, the report and what is needed to go on after an interruption.
        overwrite: Replace what another run left in `output`.

    Raises:
        ValueError: If a value is out of its bounds.
        TypeError: If a value is of the wrong type.
    """

    # Those of a plain type whose default is None are numbers once `resolved`.
    model: str | keras.Model = option("mobilenet", "network", choices=(*NAMES, "squeezenet"))
    weights: str | None = option("auto", "'imagenet', the path of an .h5 or .keras file, or 'none': random")
    alpha: float = option(None, "width multiplier of a MobileNet")
    image_size: int = option(None, "height and width in pixels")
    epochs: int = option(None, "epochs of the second stage, in which convolutions train too")
    unfreeze: float = option(0.5, "share of the layers, from the top, that train in the second stage")
    batch_size: int = option(32, "images per update")
    batch_growth: int = option(1, "how many times as large the batches become: 1, 2, 4, ...")
    learning_rate: float = option(None, "peak learning rate of the second stage")
    optimizer: str = option("adamw", "rule of the updates", choices=OPTIMIZERS)
    weight_decay: float = option(1e-2, "decay of the kernels")
    schedule: str = option("cosine", "how the learning rate falls", choices=SCHEDULES)
    warmup: float = option(0.1, "share of the updates in which the learning rate rises")
    dropout: float = option(None, "share of the features that are dropped before the classifier")
    label_smoothing: float = option(0.1, "share of each label that is given to the other classes")
    augment: Any = option("auto", "how training images are varied", choices=(*_AUGMENTATIONS, "none"))
    balance: str | None = option(None, "equal shares of all classes", choices=(*BALANCES, "none"))
    fit_on_validation: bool = option(True, "in the end, fit the classifier to the validation images as well")
    sparsity: float | None = option(None, "share of each kernel that is pruned to zero, such as 0.8")
    quantization: str | None = option("int8", "of the exported file", choices=(*QUANTIZATIONS, "none"))
    compress_epochs: int = option(4, "epochs of pruning and of quantization-aware training")
    jit_compile: bool | None = option(None, "compile the training step with XLA")
    steps_per_execution: int = option(1, "updates per call from Python")
    precision: str = option("float32", "in which the second stage computes", choices=PRECISIONS)
    threads: int = option(None, "of TensorFlow, in one operation and between operations")
    data_threads: int = option(None, "of the input alone, instead of those of TensorFlow")
    strategy: str = option("auto", "devices to train on", choices=("auto", "cpu", "gpu", "mirrored"))
    on_bad_image: str = option("raise", "what to do about unreadable files", choices=("raise", "skip"))
    seed: int = option(0, "of splits, order, augmentation and initial weights")
    output: str = option("runs/finetune", "folder for the results; run again to go on where it stopped")
    overwrite: bool = option(False, "replace what another run left in the output folder")

    def __post_init__(self) -> None:
        if not isinstance(self.model, keras.Model):
            _checks.check_choice("model", self.model, (*NAMES, "squeezenet"))
        if self.image_size is not None:
            image_shape(self.image_size)
        for name in ("alpha", "learning_rate"):
            if getattr(self, name) is not None:
                _checks.check_number(name, getattr(self, name), minimum=0, open_minimum=True)
        for name, minimum in (("epochs", 0), ("threads", 1), ("data_threads", 1)):
            if getattr(self, name) is not None:
                _checks.check_integer(name, getattr(self, name), minimum=minimum)
        for name in ("batch_size", "compress_epochs", "steps_per_execution"):
            _checks.check_integer(name, getattr(self, name), minimum=1)
        _checks.check_choice("batch_growth", self.batch_growth, GROWTHS)
        _checks.check_number("unfreeze", self.unfreeze, minimum=0, maximum=1, open_minimum=True)
        _checks.check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _checks.check_choice("schedule", self.schedule, SCHEDULES)
        _checks.check_number("weight_decay", self.weight_decay, minimum=0)
        for name in ("label_smoothing", "sparsity", "warmup", "dropout"):
            if getattr(self, name) is not None:
                _checks.check_number(name, getattr(self, name), minimum=0, maximum=1, open_maximum=True)
        if not isinstance(self.augment, data.Augment):
            _checks.check_choice("augment", self.augment, (*_AUGMENTATIONS, None))
        _checks.check_choice("balance", self.balance, (*BALANCES, None))
        _checks.check_choice("quantization", self.quantization, (*QUANTIZATIONS, None))
        _checks.check_choice("jit_compile", self.jit_compile, (None, False, True))
        _checks.check_choice("fit_on_validation", self.fit_on_validation, (False, True))
        _checks.check_choice("precision", self.precision, PRECISIONS)
        _checks.check_choice("on_bad_image", self.on_bad_image, ("raise", "skip"))
        _checks.check_integer("seed", self.seed, minimum=0)

    def resolved(self, data_size: tuple[int, int] | None) -> "FinetuneConfig":
        """Replaces "auto" and None by what they stand for.

        Args:
            data_size: Height and width of the images if they all share it, else None.
        """
        if isinstance(self.model, keras.Model):
            size = self.model.input_shape[1]
        elif self.image_size is not None:
            size = self.image_size
        else:
            size = max(32, max(data_size)) if data_size and max(data_size) <= 224 else 224
        photographs = size >= _SMALL_IMAGE
        weights = self.weights
        if weights == "auto":
            weights = "imagenet" if photographs and self.model in NAMES else None
        pretrained = isinstance(self.model, keras.Model) or weights is not None
        augment = self.augment
        if augment == "auto":
            augment = "standard" if photographs else data.Augment(rotate=10, shift=0.1, zoom=0.1)
        if isinstance(augment, str):
            augment = {
                "light": data.Augment.light,
                "standard": data.Augment.standard,
                "strong": data.Augment.strong,
            }[augment]()
        return dataclasses.replace(
            self,
            image_size=size,
            weights=weights,
            augment=augment,
            alpha=self.alpha or (_SMALLEST_ALPHA.get(str(self.model), 0.75) if pretrained else 0.5),
            epochs=(16 if pretrained else 20) if self.epochs is None else self.epochs,
            learning_rate=self.learning_rate or (5e-4 if pretrained else 3e-3),
            unfreeze=self.unfreeze if pretrained else 1.0,
            dropout=(0.5 if self.model == "squeezenet" else 0.2) if self.dropout is None else self.dropout,
        )

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that know images."""
        return self.weights is not None or isinstance(self.model, keras.Model)

    def build_model(self, classes: int) -> keras.Model:
        """The untrained classifier; a model given by the caller is copied, not changed."""
        if isinstance(self.model, keras.Model):
            copy = keras.models.clone_model(self.model)
            copy.set_weights(self.model.get_weights())
            return copy
        if self.model == "squeezenet":
            return models.squeezenet(classes, image_size=self.image_size, dropout=self.dropout)
        return models.mobilenet(
            self.model,
            classes,
            image_size=self.image_size,
            alpha=self.alpha,
            weights=self.weights,
            dropout=self.dropout,
            stem_stride=1 if self.weights is None and max(image_shape(self.image_size)) < _SMALL_IMAGE else 2,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them; a model given by the caller becomes its name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.model, keras.Model):
            values["model"] = self.model.name
        if isinstance(self.augment, data.Augment):
            changes = dataclasses.asdict(self.augment)
            defaults = dataclasses.asdict(data.Augment())
            values["augment"] = {name: value for name, value in changes.items() if value != defaults[name]}
        return values

    @classmethod
    def from_file(cls, path: str | pathlib.Path, **overrides: Any) -> "FinetuneConfig":
        """Reads a JSON file of field names and values, such as the `config.json` of another run."""
        try:
            values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is no JSON file: {error}.") from error
        if not isinstance(values, dict):
            raise ValueError(f"{str(path)!r} must hold options and values in braces. Received: {values!r}.")
        values.pop("data", None)  # where a run's images came from, which `config.json` tells
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{str(path)!r} has options that `finetune` does not know: {unknown}.")
        values = {**values, **overrides}
        if isinstance(values.get("augment"), dict):
            values["augment"] = data.Augment(**values["augment"])
        return cls(**values)

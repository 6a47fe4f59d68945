"""What the options of `finetune` come to for one data set: nothing is left to choose."""

import collections.abc
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, Union, final

from tfopt._checks import message
from tfopt.models import _architectures
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.options import same

if TYPE_CHECKING:
    import tfopt.data

_SMALLEST_ALPHA = {"mobilenet": 0.25, "mobilenet_v2": 0.35}  # V3: 0.75; with ImageNet weights
OWN = "own"  # the resolved `weights` of a model of the user's own
SMALL_IMAGE = 96  # pixels; below it, images are taken for drawings and characters, not photographs


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedConfig(FinetuneConfig):
    """The options of a run, with nothing left to choose: what `FinetuneConfig.resolved` returns."""

    augment: Union["tfopt.data.Augment", "collections.abc.Callable", list, None] = same(
        FinetuneConfig, "augment", None
    )
    weights: str | None = same(FinetuneConfig, "weights", None)
    alpha: float = same(FinetuneConfig, "alpha", 1.0)
    image_size: int = same(FinetuneConfig, "image_size", 224)
    dropout: float = same(FinetuneConfig, "dropout", 0.2)
    epochs: int = same(FinetuneConfig, "epochs", 1)
    learning_rate: float = same(FinetuneConfig, "learning_rate", 1e-3)

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that know images."""
        return self.weights is not None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images that the model takes."""
        fixed = fixed_size(self.model) if self.own_model else None
        return fixed or (self.image_size, self.image_size)


def resolve(config: FinetuneConfig, data_size: tuple[int, int] | None) -> ResolvedConfig:
    """Replaces "auto" by what it stands for.

    Args:
        config: The options.
        data_size: Height and width of the images if they all share it, else None.

    Raises:
        ValueError: If options do not fit a model of the user's own.
    """
    from tfopt import data  # which imports TensorFlow for augmentation

    values: dict[str, Any] = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(FinetuneConfig)
    }
    if config.own_model:
        largest = 224
        values |= _of_own_model(config)
    else:
        network = _architectures.find(config.model)
        values["model"], largest = network.name, network.image_size
    mobilenet = values["model"] in _architectures.MOBILENETS if isinstance(values["model"], str) else False
    if values["image_size"] == "auto":
        small = data_size is not None and max(data_size) <= largest
        values["image_size"] = max(32, *data_size) if data_size and small else largest
    photographs = values["image_size"] >= SMALL_IMAGE
    if values["weights"] == "auto":
        values["weights"] = "imagenet" if photographs and mobilenet else None
    pretrained = values["weights"] is not None
    if config.augment == "auto":
        values["augment"] = "standard" if photographs else data.Augment(rotate=10, shift=0.1, zoom=0.1)
    if isinstance(values["augment"], str):
        values["augment"] = getattr(data.Augment, values["augment"])()
    narrow = _SMALLEST_ALPHA.get(str(config.model), 0.75) if pretrained else 0.5
    chosen = {
        "alpha": narrow if mobilenet else 1.0,
        "epochs": 16 if pretrained else 20,
        "learning_rate": 5e-4 if pretrained else 3e-3,
        "dropout": 0.5 if config.model == "squeezenet" else 0.2,
    }
    values |= {name: value for name, value in chosen.items() if values[name] == "auto"}
    values["unfreeze"] = config.unfreeze if pretrained else 1.0
    return ResolvedConfig(**values)


def _of_own_model(config: FinetuneConfig) -> dict[str, Any]:
    """Weights and image size, which a model of the user's own decides."""
    if config.weights not in ("auto", OWN, None):
        fix = "Load other weights into the model before. None trains all layers as if they were random."
        raise ValueError(message("weights", "'auto' or None for a model of your own", config.weights, fix))
    values: dict[str, Any] = {"weights": None if config.weights is None else OWN}
    size = fixed_size(config.model)
    if size is not None:
        if config.image_size not in ("auto", max(size)):
            expected = f"'auto' or {max(size)}: the model takes images of {size[0]} x {size[1]} pixels"
            raise ValueError(message("image_size", expected, config.image_size))
        values["image_size"] = max(size)
    return values


def fixed_size(model: Any) -> tuple[int, int] | None:
    """Height and width that a `keras.Model` or the model of a file takes; None if it leaves them open.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not take images, or has several outputs.
    """
    from tfopt import models

    if isinstance(model, str) and not pathlib.Path(model).exists():
        raise FileNotFoundError(
            f"`model` must be a file or the name of a network. Received: model={model!r}."
        )
    loaded = models.load(model) if isinstance(model, str) else model
    shape = tuple(getattr(loaded, "input_shape", None) or ())
    if len(shape) != 4 or shape[3] not in (1, 3, None):
        expected = "a model with one input of images, (batch, height, width, 3) or (batch, height, width, 1)"
        raise ValueError(message("model", expected, f"{loaded.name!r} with input shape {shape}"))
    if len(getattr(loaded, "outputs", None) or [None]) != 1:
        fix = "Choose one: keras.Model(model.input, model.outputs[0])."
        raise ValueError(message("model", "a model with one output", [x.name for x in loaded.outputs], fix))
    return None if None in shape[1:3] else (shape[1], shape[2])

"""What the options of `finetune` come to for one data set: nothing is left to choose."""

import dataclasses
from typing import TYPE_CHECKING, Any, Union, final

from tfopt.models import _architectures
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.options import same

if TYPE_CHECKING:
    import keras

    import tfopt.data

_SMALLEST_ALPHA = {"mobilenet": 0.25, "mobilenet_v2": 0.35}  # V3: 0.75; with ImageNet weights
_SMALL_IMAGE = 96  # pixels; below it, images are taken for drawings and characters, not photographs


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedConfig(FinetuneConfig):
    """The options of a run, with nothing left to choose: what `FinetuneConfig.resolved` returns."""

    augment: Union["tfopt.data.Augment", None] = same(FinetuneConfig, "augment", None)
    weights: str | None = same(FinetuneConfig, "weights", None)
    alpha: float = same(FinetuneConfig, "alpha", 1.0)
    image_size: int = same(FinetuneConfig, "image_size", 224)
    dropout: float = same(FinetuneConfig, "dropout", 0.2)
    epochs: int = same(FinetuneConfig, "epochs", 1)
    learning_rate: float = same(FinetuneConfig, "learning_rate", 1e-3)

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that know images."""
        return self.weights is not None or not isinstance(self.model, str)

    def build_model(self, classes: int) -> "keras.Model":
        """The untrained classifier; a model given by the caller is copied, not changed."""
        import keras

        from tfopt import models

        if not isinstance(self.model, str):
            copy = keras.models.clone_model(self.model)
            copy.set_weights(self.model.get_weights())
            return copy
        small = self.weights is None and self.image_size < _SMALL_IMAGE
        return models.image_model(
            self.model,
            classes,
            image_size=self.image_size,
            alpha=self.alpha,
            weights=self.weights,
            dropout=self.dropout,
            stem_stride=1 if small and self.model in _architectures.MOBILENETS else 2,
        )


def resolve(config: FinetuneConfig, data_size: tuple[int, int] | None) -> ResolvedConfig:
    """Replaces "auto" by what it stands for.

    Args:
        config: The options.
        data_size: Height and width of the images if they all share it, else None.
    """
    from tfopt import data  # which imports TensorFlow for augmentation

    values: dict[str, Any] = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(FinetuneConfig)
    }
    if isinstance(config.model, str):
        network = _architectures.find(config.model)
        values["model"], largest = network.name, network.image_size
    else:
        values["image_size"], largest = int(config.model.input_shape[1]), 0
    mobilenet = values["model"] in _architectures.MOBILENETS
    if values["image_size"] == "auto":
        small = data_size is not None and max(data_size) <= largest
        values["image_size"] = max(32, *data_size) if data_size and small else largest
    photographs = values["image_size"] >= _SMALL_IMAGE
    if config.weights == "auto":
        values["weights"] = "imagenet" if photographs and mobilenet else None
    pretrained = not isinstance(config.model, str) or values["weights"] is not None
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

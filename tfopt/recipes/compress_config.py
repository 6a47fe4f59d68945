"""The options of `compress`: one frozen dataclass, from which the command's flags are made."""

import dataclasses
from typing import Any, Literal, final

from tfopt.recipes.budget_options import BudgetOptions
from tfopt.recipes.config import FinetuneConfig, InputScale, Quantization
from tfopt.recipes.data_options import DataOptions
from tfopt.recipes.machine_options import Strategy
from tfopt.recipes.options import documented, option, same
from tfopt.recipes.training_image_options import Augmentation

# What `finetune` and `compress` share; the stages read it from a `FinetuneConfig`.
_SHARED = (
    *(
        "quantization",
        "batch_size",
        "learning_rate",
        "label_smoothing",
        "class_weight",
        "augment",
        "strategy",
    ),
    *("input_scale", "task", "image_column", "label_column"),
    *("on_bad_image", "seed", "output", "tensorboard", "overwrite"),
)


@final
@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressConfig(BudgetOptions, DataOptions):
    """What `tfopt.recipes.compress` does with a model. Every field is also a flag of `tfopt compress`.

    {options}

    Raises:
        ValueError: If a value is out of its bounds.
        TypeError: If a value is of the wrong type.
    """

    class_weight: dict | Literal["balanced"] | None = same(FinetuneConfig, "class_weight")
    augment: Augmentation = same(FinetuneConfig, "augment")
    seed: int = option(
        0, "data", "Seed of the splits, which should be that of the training, and of the order.", minimum=0
    )
    input_scale: InputScale = same(FinetuneConfig, "input_scale")
    keep: float | None = option(
        None,
        "compression",
        "Share of each layer's channels that stays, such as 0.5, for speed.",
        none="all channels",
        minimum=0,
        maximum=1,
        open_minimum=True,
        open_maximum=True,
    )
    sparsity: float | None = same(FinetuneConfig, "sparsity")
    clusters: int | None = option(
        None,
        "compression",
        "Distinct values of each kernel, such as 16, for a smaller zip.",
        none="no clustering",
        minimum=2,
    )
    quantization: Quantization | None = same(FinetuneConfig, "quantization")
    epochs: int = option(
        8, "training", "Epochs of training after pruning, clustering and quantization, each.", minimum=1
    )
    slim_epochs: int | Literal["auto"] = option(
        "auto",
        "training",
        "Epochs of training after channels were removed, which needs long training.",
        auto="enough for 2,200 updates",
        minimum=1,
    )
    batch_size: int = option(
        32,
        "training",
        "Images per update. Slimming, pruning and quantization use at most 16.",
        minimum=1,
    )
    learning_rate: float = option(
        5e-4,
        "training",
        "Fine-tuning rate, multiplied by 30 (slimming), 10 (pruning), 0.2 (clustering) or 0.05 "
        "(quantization).",
        minimum=0,
        open_minimum=True,
    )
    label_smoothing: float = same(FinetuneConfig, "label_smoothing")
    strategy: Strategy = same(FinetuneConfig, "strategy")
    output: str = same(FinetuneConfig, "output", "runs/compress")
    tensorboard: bool = same(FinetuneConfig, "tensorboard")
    overwrite: bool = same(FinetuneConfig, "overwrite")

    def training(self, model: Any) -> FinetuneConfig:
        """The options that the stages share with `finetune`, for a `keras.Model`."""
        values = {name: getattr(self, name) for name in _SHARED}
        return FinetuneConfig(model=model, compress_epochs=self.epochs, **values)

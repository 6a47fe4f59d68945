"""The options of `compress`: one frozen dataclass, from which the command's flags are made."""

import dataclasses
from typing import Any, Literal, final

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
class CompressConfig(DataOptions):
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
    max_bytes: str | None = option(
        None,
        "compression",
        "Size of the file, such as '250k' or '0.5MiB' (k is 1000, KiB 1024). Limits choose the channels that "
        "stay, the sparsity and the quantization, by measured files.",
        none="no limit",
        metavar="SIZE",
    )
    max_zipped: str | None = option(
        None, "compression", "Size of the file compressed by zlib.", none="no limit", metavar="SIZE"
    )
    max_latency: str | None = option(
        None,
        "compression",
        "Median time of one inference on this machine, such as '5ms'.",
        none="no limit",
        metavar="TIME",
    )
    max_arena: str | None = option(
        None, "compression", "Memory of activations, estimated.", none="no limit", metavar="SIZE"
    )
    max_drop: str | None = option(
        None,
        "compression",
        "Loss of accuracy against the float model, such as '1%' or '0.01'. Alone: the smallest file within.",
        none="no limit",
        metavar="SHARE",
    )
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

    def limits(self) -> dict[str, str]:
        """The limits that are given, by the names of `compress.Budget`."""
        names = ("bytes", "zipped", "latency", "arena", "drop")
        given = {name: getattr(self, f"max_{name}") for name in names}
        limits = {"latency_ms" if name == "latency" else name: text for name, text in given.items() if text}
        chosen = {name: getattr(self, name) for name in ("keep", "sparsity", "clusters")}
        fixed = {name: value for name, value in chosen.items() if value is not None}
        if limits and fixed:
            raise ValueError(
                f"Limits choose what is removed. Received: {sorted(limits)} together with {fixed}. Give "
                "either limits, or `keep`, `sparsity` and `clusters`."
            )
        return limits

    def training(self, model: Any) -> FinetuneConfig:
        """The options that the stages share with `finetune`, for a `keras.Model`."""
        values = {name: getattr(self, name) for name in _SHARED}
        return FinetuneConfig(model=model, compress_epochs=self.epochs, **values)

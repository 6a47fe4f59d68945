"""The options of `compress`: one frozen dataclass, from which the command's flags are generated."""

import dataclasses
from typing import Any, final

from tfopt._checks import check_choice, check_integer, check_number
from tfopt.recipes.config import QUANTIZATIONS, FinetuneConfig, option


@final
@dataclasses.dataclass(frozen=True)
class CompressConfig:
    """What `tfopt.recipes.compress` does with a model. Every field is also a flag of `tfopt compress`.

    Args:
        keep: Share of each layer's channels that stays, in (0, 1), for speed. None: all.
        sparsity: Share of each kernel that is pruned to zero, in [0, 1), for a small zip. None: no pruning.
        clusters: Distinct values of each kernel, >= 2, for a smaller zip. None: no clustering.
        quantization: "int8" (with quantization-aware training), "dynamic", "float16", "int16x8", or
            None: a float file.
        epochs: Of training after pruning, clustering and quantization, each, >= 1.
        slim_epochs: Of training after channels were removed, where patience pays, >= 1. None: as many as
            make 2,200 updates.
        batch_size: Images per update, >= 1; at most 16 where lost channels or weights are made up for.
        learning_rate: That of fine-tuning, > 0. What lost channels trains at a peak of 30 times it, what
            lost weights at 10 times, clustering and quantization at 0.2 and 0.05 of it.
        label_smoothing: In [0, 1).
        augment: As in `FinetuneConfig`.
        strategy: Name for `tfopt.distribute.make_strategy`.
        on_bad_image: "raise" or "skip".
        seed: Of the splits, which should be those of the training, and of the order of images.
        output: Folder for the model, the file, the report and what is needed to go on when interrupted.
        overwrite: Replace what another run left in `output`.

    Raises:
        ValueError: If a value is out of its bounds.
        TypeError: If a value is of the wrong type.
    """

    keep: float | None = option(None, "share of each layer's channels that stays, such as 0.5")
    sparsity: float | None = option(None, "share of each kernel that is pruned to zero, such as 0.8")
    clusters: int | None = option(None, "distinct values of each kernel, such as 16")
    quantization: str | None = option("int8", "of the exported file", choices=(*QUANTIZATIONS, "none"))
    epochs: int = option(8, "epochs of training after pruning, clustering and quantization")
    slim_epochs: int | None = option(
        None, "epochs of training after channels were removed; by default enough for 2,200 updates"
    )
    batch_size: int = option(32, "images per update")
    learning_rate: float = option(
        5e-4, "that of fine-tuning; each training here takes its own multiple of it"
    )
    label_smoothing: float = option(0.1, "share of each label that is given to the other classes")
    augment: Any = option("auto", "how images are varied", choices=("auto", "light", "standard", "strong"))
    strategy: str = option("auto", "devices to train on", choices=("auto", "cpu", "gpu", "mirrored"))
    on_bad_image: str = option("raise", "what to do about unreadable files", choices=("raise", "skip"))
    seed: int = option(0, "of the splits, as in training, and of the order")
    output: str = option("runs/compress", "folder for the results; run again to go on where it stopped")
    overwrite: bool = option(False, "replace what another run left in the output folder")

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_number("keep", self.keep, minimum=0, maximum=1, open_minimum=True, open_maximum=True)
        if self.sparsity is not None:
            check_number("sparsity", self.sparsity, minimum=0, maximum=1, open_maximum=True)
        if self.clusters is not None:
            check_integer("clusters", self.clusters, minimum=2)
        check_choice("quantization", self.quantization, (*QUANTIZATIONS, None))
        check_integer("epochs", self.epochs, minimum=1)
        if self.slim_epochs is not None:
            check_integer("slim_epochs", self.slim_epochs, minimum=1)
        self.training(None)

    def training(self, model: Any) -> FinetuneConfig:
        """The options that the stages share with `finetune`, which checks them."""
        shared = (
            *("quantization", "batch_size", "learning_rate", "label_smoothing", "augment", "strategy"),
            *("on_bad_image", "seed", "output", "overwrite"),
        )
        values = {name: getattr(self, name) for name in shared}
        given = {} if model is None else {"model": model}
        return FinetuneConfig(**given, compress_epochs=self.epochs, **values)

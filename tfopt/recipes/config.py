"""The options of `tfopt.finetune`: one frozen dataclass, from which the command's flags are made."""

import dataclasses
from typing import TYPE_CHECKING, Literal, Union

from tfopt.models import _architectures
from tfopt.recipes.budget_options import BudgetOptions
from tfopt.recipes.machine_options import MachineOptions
from tfopt.recipes.options import documented, option
from tfopt.recipes.training_image_options import TrainingImageOptions

if TYPE_CHECKING:
    import keras

    from tfopt.recipes.resolved_config import ResolvedConfig

Quantization = Literal["int8", "dynamic", "float16", "int16x8"]
InputScale = Literal["auto", "pixels", "unit", "signed", "imagenet"]
MODEL_FILES = (".keras", ".h5", ".hdf5")


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingImageOptions, BudgetOptions, MachineOptions):
    """What `tfopt.finetune` does with a data set. Every field is also a flag of `tfopt finetune`.

    "auto" stands for what suits the model and the data; the report shows what was chosen. None stands for
    nothing: no augmentation, no pruning.

    {options}

    Raises:
        ValueError: If a value is out of its bounds.
        TypeError: If a value is of the wrong type.
    """

    model: Union["keras.Model", str] = option(
        "mobilenet",
        "model",
        "Name of a network, such as mobilenet, mobilenet_v2, efficientnet_lite0 or resnet50 (`tfopt models` "
        "lists them), or a .keras or .h5 file with a model of your own, with or without its classifier.",
        python="a `keras.Model`",
        metavar="NAME|FILE",
    )
    weights: str | None = option(
        "auto",
        "model",
        "Weights to begin with: imagenet, or the path of an .h5 or .keras file with weights of the network.",
        auto="imagenet for a MobileNet on images of at least 96 pixels, those of a model of your own, else "
        "random weights",
        none="random weights; a model of your own trains as if it had such",
        metavar="FILE",
    )
    input_scale: InputScale = option(
        "auto",
        "model",
        "Scale of the pixels that a model of your own was trained on: pixels is [0, 255], unit [0, 1], "
        "signed [-1, 1], imagenet ImageNet's mean and deviation.",
        auto="the best on validation images, unless the model scales pixels itself",
    )
    alpha: float | Literal["auto"] = option(
        "auto",
        "model",
        "Width multiplier of a MobileNet: the share of channels it has.",
        auto="the smallest that has ImageNet weights, or 0.5 from scratch",
        minimum=0,
        open_minimum=True,
    )
    image_size: int | Literal["auto"] = option(
        "auto",
        "model",
        "Height and width in pixels.",
        auto="that of the data if all images have one size of at most 224, else what the network is for",
        minimum=8,
    )
    dropout: float | Literal["auto"] = option(
        "auto",
        "model",
        "Share of the features that is dropped before the classifier.",
        auto="0.2; SqueezeNet: 0.5",
        minimum=0,
        maximum=1,
        open_maximum=True,
    )
    epochs: int | Literal["auto"] = option(
        "auto",
        "training",
        "Epochs of the second stage, in which convolutions train too.",
        auto="16 for a pretrained model, 20 from scratch",
        minimum=0,
    )
    patience: int | None = option(
        None,
        "training",
        "Epochs of the second stage without a better validation result after which it ends.",
        none="it runs all epochs",
        minimum=1,
    )
    learning_rate: float | Literal["auto"] = option(
        "auto",
        "training",
        "Peak learning rate of the second stage; `tfopt lr-find` suggests one.",
        auto="0.0005 for a pretrained model, 0.003 from scratch",
        minimum=0,
        open_minimum=True,
    )
    batch_size: int = option(32, "training", "Images per update.", minimum=1)
    batch_growth: Literal[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] = option(
        1,
        "training",
        "How many times as large the batches of the second stage become. Each size from `batch_size` on, "
        "doubled each time, sees an equal share of the images. They are gathered from batches of "
        "`batch_size`, so memory and the statistics of batch normalization stay. In a training too short for "
        "an update of each size, they grow less.",
        metavar="FACTOR",
    )
    unfreeze: float = option(
        0.5,
        "training",
        "Share of the layers of a pretrained model that train in the second stage, counted from the top.",
        minimum=0,
        maximum=1,
        open_minimum=True,
    )
    optimizer: Literal["adamw", "lion", "sgd"] = option(
        "adamw",
        "training",
        "Rule of the updates; sgd has a momentum of 0.9. Lion wants a fifth of AdamW's learning rate, SGD "
        "ten times it.",
    )
    weight_decay: float = option(1e-2, "training", "Decoupled weight decay of the kernels.", minimum=0)
    schedule: Literal["cosine", "linear", "constant"] = option(
        "cosine", "training", "How the learning rate falls after warm-up; cosine and linear end at zero."
    )
    warmup: float = option(
        0.1,
        "training",
        "Share of the updates in which the learning rate rises to its peak.",
        minimum=0,
        maximum=1,
        open_maximum=True,
    )
    label_smoothing: float = option(
        0.1,
        "training",
        "Share of each label that is given to the other classes.",
        minimum=0,
        maximum=1,
        open_maximum=True,
    )
    fit_on_validation: bool = option(
        True,
        "training",
        "Whether the classifier of a pretrained model is fitted in the end to the validation images as well, "
        "when these have chosen the best epoch.",
    )
    sparsity: float | None = option(
        None,
        "compression",
        "Share of each large kernel that is pruned to zero, such as 0.8, for a small zip.",
        none="no pruning",
        minimum=0,
        maximum=1,
        open_maximum=True,
    )
    quantization: Quantization | None = option(
        "int8",
        "compression",
        "Number format of the exported file; int8 includes quantization-aware training.",
        none="a float file",
    )
    compress_epochs: int = option(
        4, "compression", "Epochs of pruning, and of quantization-aware training.", minimum=1
    )
    output: str = option(
        "runs/finetune",
        "output",
        "Folder for the model, the report and what is needed to go on after an interruption.",
        metavar="FOLDER",
    )
    tensorboard: bool = option(
        False,
        "output",
        "Whether to write curves for TensorBoard to logs/ in the output folder: tensorboard --logdir FOLDER.",
    )
    overwrite: bool = option(
        False, "output", "Whether to replace what another run left in the output folder."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.own_model:
            _architectures.find(self.model, "model")

    @property
    def own_model(self) -> bool:
        """Whether `model` is a `keras.Model` or a file instead of the name of a network."""
        return not isinstance(self.model, str) or self.model.lower().endswith(MODEL_FILES)

    def resolved(self, data_size: tuple[int, int] | None) -> "ResolvedConfig":
        """Replaces "auto" by what it stands for.

        Args:
            data_size: Height and width of the images if they all share it, else None.
        """
        from tfopt.recipes.resolved_config import resolve  # a subclass of this class, so a higher module

        return resolve(self, data_size)

"""`tfopt lr-find`: which learning rate suits this model and these images?"""

import argparse
from typing import Any

from tfopt.cli._arguments import DATA_HELP, add_options, given_options, number, section_of
from tfopt.recipes.config import FinetuneConfig

_OPTIONS = (
    "model",
    "weights",
    "alpha",
    "image_size",
    "batch_size",
    "optimizer",
    "balance",
    "class_weight",
    "augment",
    "unfreeze",
    "label_smoothing",
    "input_scale",
    "task",
    "image_column",
    "label_column",
    "on_bad_image",
    "seed",
)


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "lr-find",
        help="which learning rate suits this model and these images?",
        description="Trains for a few batches at growing learning rates and suggests the one at which the "
        "loss falls fastest. Its place is `tfopt finetune --learning-rate`.",
        epilog="Example: tfopt lr-find --data photos/ --weights imagenet --plot rates.png",
    )
    section_of(command, "images").add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument(
        "--minimum",
        type=number(float, minimum=0, open_minimum=True),
        default=1e-6,
        metavar="X",
        help="first rate (default: 1e-6)",
    )
    command.add_argument(
        "--maximum",
        type=number(float, minimum=0, open_minimum=True),
        default=1.0,
        metavar="X",
        help="last rate (default: 1)",
    )
    command.add_argument(
        "--steps", type=number(int, minimum=10), default=100, metavar="N", help="rates to try (default: 100)"
    )
    command.add_argument("--plot", metavar="FILE", help="draw the curve: .png, .svg or .pdf")
    add_options(command, FinetuneConfig, _OPTIONS)
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Prints the suggestion."""
    config = FinetuneConfig(**given_options(parsed, FinetuneConfig))
    from tfopt.recipes.lr_find import find_learning_rate

    names = ("minimum", "maximum", "steps", "plot")
    options = {name: getattr(parsed, name) for name in names}
    finder = find_learning_rate(parsed.data, config, **options)
    if finder.suggestion is None:
        raise ValueError(f"the loss fell at no rate from {parsed.minimum:g} on; try a lower --minimum")
    tried = finder.rates
    print(f"{finder.suggestion:.2g}  ({len(tried)} rates, {tried[0]:.2g} to {tried[-1]:.2g})")
    if parsed.plot:
        print(f"curve  {parsed.plot}")
    return 0

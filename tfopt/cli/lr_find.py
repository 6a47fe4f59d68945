"""`tfopt lr-find`: which learning rate suits this model and these images?"""

import argparse
from typing import Any

from tfopt.cli._arguments import DATA_HELP


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "lr-find",
        help="which learning rate suits this model and these images?",
        description="Trains for a few batches at growing learning rates and suggests the one at which the "
        "loss falls fastest. Its place is `tfopt finetune --learning-rate`.",
        epilog="Example: tfopt lr-find --data photos/ --weights imagenet --plot rates.png",
    )
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--model", default="mobilenet", help="as in `tfopt finetune` (default: mobilenet)")
    command.add_argument("--weights", default="auto", help="as in `tfopt finetune` (default: auto)")
    command.add_argument("--alpha", type=float, help="width multiplier of a MobileNet")
    command.add_argument("--image-size", type=int, help="height and width in pixels")
    command.add_argument("--batch-size", type=int, default=32, help="images per update (default: 32)")
    command.add_argument("--minimum", type=float, default=1e-6, help="first rate (default: 1e-6)")
    command.add_argument("--maximum", type=float, default=1.0, help="last rate (default: 1)")
    command.add_argument("--steps", type=int, default=100, help="rates to try (default: 100)")
    command.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    command.add_argument("--plot", metavar="FILE", help="draw the curve: .png, .svg or .pdf")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Prints the suggestion."""
    from tfopt.recipes.lr_find import find_learning_rate

    names = ("model", "alpha", "image_size", "batch_size", "minimum", "maximum", "steps", "seed", "plot")
    options = {name: getattr(parsed, name) for name in names}
    weights = None if parsed.weights == "none" else parsed.weights
    finder = find_learning_rate(parsed.data, weights=weights, **options)
    if finder.suggestion is None:
        raise ValueError(f"the loss fell at no rate from {parsed.minimum:g} on; try a lower --minimum")
    tried = finder.rates
    print(f"{finder.suggestion:.2g}  ({len(tried)} rates, {tried[0]:.2g} to {tried[-1]:.2g})")
    if parsed.plot:
        print(f"curve  {parsed.plot}")
    return 0

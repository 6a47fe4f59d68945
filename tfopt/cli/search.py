"""`tfopt search`: better settings of `tfopt finetune`, found by trying them."""

import argparse
from typing import Any

from tfopt.cli._arguments import DATA_HELP, add_options, given_options, number, section_of
from tfopt.recipes.config import FinetuneConfig


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "search",
        usage="tfopt search --data DATA [--space FILE] [--trials N] [flags below]",
        help="which settings of finetune suit these images best?",
        description="Runs `tfopt finetune` with many settings, judges each by the validation images and "
        "keeps the best. Run the same command again to go on after an interruption. Flags of `finetune` "
        "fix what is not searched; without --space, the settings that matter most are.",
        epilog="Examples: tfopt search --data photos/ --weights imagenet --trials 20 --output runs/s; "
        "with trials side by side on this machine: tfopt launch -n 2 search --data photos/ --output runs/s; "
        "then: tfopt finetune --data photos/ --config runs/s/best.json --output runs/best",
    )
    section_of(command, "images").add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--config", metavar="FILE", help="JSON file of options; flags replace its values")
    command.add_argument(
        "--space",
        metavar="FILE",
        help='JSON such as {"batch_size": [16, 32], "alpha": {"low": 0.25, "high": 1.0}}',
    )
    command.add_argument(
        "--tuner",
        default="hyperband",
        choices=("hyperband", "bayesian", "random", "grid"),
        help="(default: hyperband)",
    )
    command.add_argument("--objective", default="accuracy", help="a metric of the trials (default: accuracy)")
    command.add_argument(
        "--trade-off",
        nargs="+",
        type=_price,
        default=[],
        metavar="METRIC=PRICE",
        help="what doubling a cost must gain: bytes=0.01 asks a point of accuracy for twice the size",
    )
    command.add_argument(
        "--trials", type=number(int, minimum=1), default=20, metavar="N", help="most trials (default: 20)"
    )
    command.add_argument(
        "--seconds",
        type=number(float, minimum=0, open_minimum=True),
        metavar="X",
        help="no new trial after this time",
    )
    command.add_argument(
        "--output", default="runs/search", metavar="FOLDER", help="of the results (default: runs/search)"
    )
    add_options(command, FinetuneConfig, without=("output", "overwrite"))
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the search and prints the best trials."""
    given = given_options(parsed, FinetuneConfig)
    given.pop("output")
    config = FinetuneConfig.from_file(parsed.config, **given) if parsed.config else FinetuneConfig(**given)
    from rich.console import Console

    from tfopt.tune import Objective, search
    from tfopt.tune.space import read_space
    from tfopt.tune.tuner import is_worker

    result = search(
        parsed.data,
        read_space(parsed.space) if parsed.space else None,
        tuner=parsed.tuner,
        objective=Objective(parsed.objective, trade_off=dict(parsed.trade_off)),
        trials=parsed.trials,
        seconds=parsed.seconds,
        config=config,
        output=parsed.output,
        seed=config.seed,
    )
    if is_worker():  # of several, of which the chief tells the result
        return 0
    Console().print(result)
    print(f"report {result.report_path}\nbest   {result.folder / 'best.json'}")
    return 0


def _price(text: str) -> tuple[str, float]:
    name, _, price = text.partition("=")
    try:
        return name, float(price)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be METRIC=PRICE, such as bytes=0.01, not {text!r}") from None

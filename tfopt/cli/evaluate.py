"""`tfopt evaluate`: how good is a file on labeled images?"""

import argparse
from typing import Any

from tfopt.cli._arguments import (
    DATA_HELP,
    add_class_names,
    add_input_scale,
    add_options,
    given_options,
    number,
)
from tfopt.cli._streams import show
from tfopt.cli._workers import is_chief, strategy_of_workers
from tfopt.recipes.data_options import SPLITS, DataOptions


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "evaluate",
        help="how good is this file on these images?",
        description="Accuracy (or mean average precision, or mean absolute error), precision, recall and F1 "
        "of every class, the confusion matrix, calibration, size and latency of a file on one split of a "
        "data set. A .tflite file runs without TensorFlow.",
        epilog="Examples: tfopt evaluate runs/photos/model.tflite --data photos/; "
        "tfopt evaluate model.tflite --data photos/test --json",
    )
    command.add_argument("model", metavar="MODEL", help=".keras, .h5 or .tflite file")
    images = command.add_argument_group("images")
    images.add_argument("--data", required=True, help=DATA_HELP)
    images.add_argument(
        "--split",
        default="auto",
        choices=SPLITS,
        help="which images. auto: test, but all of a folder that is itself a split, such as photos/test. "
        "Default: auto.",
    )
    images.add_argument(
        "--seed",
        type=number(int, minimum=0),
        default=0,
        metavar="N",
        help="seed of splits that the data does not have itself: that of the training. Default: 0.",
    )
    add_options(command, DataOptions)
    model = command.add_argument_group("model")
    add_class_names(model)
    add_input_scale(model, auto="the best one, which is told")
    results = command.add_argument_group("results")
    results.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Prints what the file reaches."""
    from tfopt.recipes.evaluating import evaluate

    options = {name: getattr(parsed, name) for name in ("split", "seed", "class_names", "input_scale")}
    strategy = strategy_of_workers()
    found = evaluate(
        parsed.model, parsed.data, **options, **given_options(parsed, DataOptions), strategy=strategy
    )
    if not is_chief():
        return 0
    if parsed.json:
        print(found.to_json())
    else:
        show(found)
    return 0

"""`tfopt data check` and `prepare`: what in a folder of images spoils training; images in large files."""

import argparse
import dataclasses
import json
from typing import Any

from tfopt.cli._arguments import DATA_HELP
from tfopt.recipes.data_options import several_columns


def add(commands: Any) -> argparse.ArgumentParser:
    """Adds the command and its actions."""
    command = commands.add_parser(
        "data",
        help="are these images fit for training? (check) pack them into large files (prepare)",
        description="Looks at image data before anything is trained on it, and prepares large sets.",
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="find damaged files, duplicates and leaks",
        description="Reads every file of a folder once. The exit code is 1 if `load` refuses the folder, if "
        "files are unreadable, or if one picture lies in several splits or classes, in whatever format; "
        "other findings are only reported.",
        epilog="Example: tfopt data check photos/",
    )
    check.add_argument("directory", metavar="DIR", help="class/*.jpg, or train/ and test/ with classes below")
    check.add_argument("--min-size", type=int, default=32, help="pixels below which images are tiny (32)")
    check.add_argument("--json", action="store_true", help="print JSON instead of text")
    check.set_defaults(run=run)
    _add_prepare(actions)
    return check


def _add_prepare(actions: Any) -> None:
    prepare = actions.add_parser(
        "prepare",
        help="write images to TFRecord files: checked, resized and in random order",
        description="Writes images and labels to TFRecord files with an index, for sets of many images and "
        "for machines that read them over a network. --data takes the folder then. A command that was "
        "interrupted goes on where it was.",
        epilog="Example: tfopt data prepare photos/ --output shards/ --image-size 256",
    )
    prepare.add_argument("source", metavar="DATA", help=DATA_HELP)
    prepare.add_argument("--output", required=True, metavar="FOLDER", help="where to write")
    prepare.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="make images smaller whose shorter side has more pixels. Default: keep all as they are.",
    )
    prepare.add_argument(
        "--examples-per-shard", type=int, default=2048, metavar="N", help="images in a file (2048)"
    )
    prepare.add_argument("--seed", type=int, default=0, help="of the splits and of the order (0)")
    prepare.add_argument(
        "--on-bad-image",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with a file that is no readable image. Default: raise.",
    )
    prepare.add_argument(
        "--task", choices=("classification", "multilabel", "regression"), help="what the labels are"
    )
    prepare.add_argument("--image-column", metavar="COLUMN", help="column of a table with the image files")
    prepare.add_argument("--label-column", metavar="COLUMN", help="column of a table with the labels")
    prepare.add_argument("--verbose", action="store_true", help="log decisions; trace errors")
    prepare.set_defaults(run=run_prepare, parser=prepare)


def run_prepare(parsed: argparse.Namespace) -> int:
    """Writes the files and prints what was written and how fast."""
    from rich.console import Console
    from rich.progress import Progress

    from tfopt.data import prepare

    names = (
        "image_size",
        "examples_per_shard",
        "seed",
        "on_bad_image",
        "task",
        "image_column",
        "label_column",
    )
    options = {name: getattr(parsed, name) for name in names}
    options["label_column"] = several_columns(parsed.label_column)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Writing images", total=None)
        found = prepare(
            parsed.source, parsed.output, on_image=lambda count: progress.advance(task, count), **options
        )
    print(found)
    return 0


def run(parsed: argparse.Namespace) -> int:
    """Prints what `check_images` finds; 1 if something spoils training."""
    from tfopt.data import check_images

    found = check_images(parsed.directory, min_size=parsed.min_size, progress=True)
    print(json.dumps({"ok": found.ok, **dataclasses.asdict(found)}, indent=2) if parsed.json else found)
    return 0 if found.ok else 1

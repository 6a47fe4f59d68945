"""`tfopt models`: the networks that `--model` knows, and what each costs."""

import argparse
import dataclasses
import json
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "models",
        help="which networks are there, and what does each cost?",
        description="The networks for --model, without their classifier: weights, multiply-adds of one image "
        "of the size they were trained on, size of an int8 file, and whether their ImageNet weights are on "
        "this machine (here), in a package (pip) or have to be downloaded by Keras.",
        epilog="Example: tfopt models efficientnet",
    )
    command.add_argument("name", metavar="NAME", nargs="?", default="", help="only names with this in them")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Prints the table."""
    from tfopt.models._catalog import catalog

    rows = [row for row in catalog() if parsed.name.lower() in row.name]
    if not rows:
        raise ValueError(f"no network has {parsed.name!r} in its name. `tfopt models` lists all of them.")
    if parsed.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return 0
    print(f"{'name':<22}{'pixels':>6}{'weights':>12}{'multiply-adds':>15}{'int8 file':>11}  ImageNet weights")
    for row in rows:
        costs = f"{row.parameters / 1e6:>10.2f} M{row.multiply_adds / 1e9:>13.3f} G"
        print(f"{row.name:<22}{row.image_size:>6}{costs}{row.int8_bytes / 1e6:>8.2f} MB  {row.weights}")
    return 0

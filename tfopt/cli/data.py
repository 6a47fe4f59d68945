"""`tfopt data check`: what in a folder of images spoils training?"""

import argparse
import dataclasses
import json
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """Adds the command and its actions."""
    command = commands.add_parser(
        "data",
        help="what is wrong with these images?",
        description="Looks at image data before anything is trained on it.",
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
    return check


def run(parsed: argparse.Namespace) -> int:
    """Prints what `check_images` finds; 1 if something spoils training."""
    from tfopt.data import check_images

    found = check_images(parsed.directory, min_size=parsed.min_size, progress=True)
    print(json.dumps({"ok": found.ok, **dataclasses.asdict(found)}, indent=2) if parsed.json else found)
    return 0 if found.ok else 1

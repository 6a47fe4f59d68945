"""`tfopt predict`: classes of image files."""

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "predict",
        help="what is on these pictures?",
        description="Classifies images by a .keras or .tflite file of `tfopt finetune`.",
        epilog="Example: tfopt predict runs/photos/model.tflite picture.jpg --top 3",
    )
    command.add_argument("model", metavar="MODEL", help=".keras or .tflite file")
    command.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    command.add_argument("--top", type=int, default=1, help="how many classes to name (default: 1)")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from tfopt.recipes import predict

    for prediction in predict(parsed.model, parsed.images, top=parsed.top):
        classes = "  ".join(f"{name} {probability:.1%}" for name, probability in prediction.classes)
        print(f"{prediction.path}: {classes}")
    return 0

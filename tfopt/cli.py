"""The `tfopt` command: flags to arguments, results to text, errors to one line. No logic of its own."""

import argparse
import dataclasses
import json
import logging
import os
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

INTERRUPTED, FAILED = 130, 1
DATA_HELP = "a folder (class/*.jpg, or train/ and test/ with classes below), 'digits', or a TFDS name"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 after an error, 130 after Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hints about CPU instructions are no news
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        return parsed.run(parsed)
    except KeyboardInterrupt:
        print("\nStopped. What is trained is kept; the same command goes on from there.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if parsed.verbose:
            raise
        print(f"tfopt {parsed.command}: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfopt",
        description="Train Keras models faster, and ship them smaller.",
        epilog="tfopt COMMAND --help explains a command. Example: tfopt finetune --data photos/",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_finetune, _add_predict, _add_evaluate, _add_launch, _add_doctor):
        command = add(commands)
        command.add_argument("--verbose", action="store_true", help="log decisions; trace errors")
    return parser


def _add_finetune(commands: Any) -> argparse.ArgumentParser:
    from tfopt.recipes.config import FinetuneConfig

    command = commands.add_parser(
        "finetune",
        help="a folder of images in; a trained, compressed, verified model and a report out",
        description="Fine-tunes a network on images, prunes and quantizes it, checks the exported file on "
        "test images, and writes report.html. Run the same command again to go on after an interruption.",
        epilog="Example: tfopt finetune --data photos/ --weights imagenet --sparsity 0.8 --output runs/p",
    )
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--config", metavar="FILE", help="JSON file of options; flags replace its values")
    for field in dataclasses.fields(FinetuneConfig):
        _add_field(command, field)
    command.set_defaults(run=_finetune)
    return command


def _add_field(command: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """A flag for a field; fields that are not given keep what the configuration file or default says."""
    flag = "--" + field.name.replace("_", "-")
    help_text = f"{field.metadata['help']} (default: {_shown(field.default)})"
    if field.type is bool:
        command.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text
        )
        return
    choices = field.metadata.get("choices")
    command.add_argument(
        flag,
        type=_converter(field.type),
        default=argparse.SUPPRESS,
        metavar="{" + ",".join(choices) + "}" if choices else field.name.upper(),
        help=help_text,
    )


def _shown(default: Any) -> str:
    return "automatic" if default is None else str(default)


def _converter(annotation: Any) -> Any:
    """int, float or str; "none" stands for None where the field may be None."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kind = next((option for option in (int, float) if option in options), str)

    def convert(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    convert.__name__ = kind.__name__  # argparse names it in its error: invalid int value
    return convert


def _finetune(parsed: argparse.Namespace) -> int:
    import tfopt

    names = {field.name for field in dataclasses.fields(tfopt.FinetuneConfig)}
    given = {name: value for name, value in vars(parsed).items() if name in names}
    if parsed.config:
        config = tfopt.FinetuneConfig.from_file(parsed.config, **given)
    else:
        config = tfopt.FinetuneConfig(**given)
    tfopt.finetune(parsed.data, config)
    return 0


def _add_predict(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "predict",
        help="what is on these pictures?",
        description="Classifies images by a .keras or .tflite file of `tfopt finetune`.",
        epilog="Example: tfopt predict runs/photos/model.tflite picture.jpg --top 3",
    )
    command.add_argument("model", metavar="MODEL", help=".keras or .tflite file")
    command.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    command.add_argument("--top", type=int, default=1, help="how many classes to name (default: 1)")
    command.set_defaults(run=_predict)
    return command


def _predict(parsed: argparse.Namespace) -> int:
    from tfopt.recipes import predict

    for prediction in predict(parsed.model, parsed.images, top=parsed.top):
        classes = "  ".join(f"{name} {probability:.1%}" for name, probability in prediction.classes)
        print(f"{prediction.path}: {classes}")
    return 0


def _add_evaluate(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "evaluate",
        help="how good is this file on these images?",
        description="Accuracy, size and latency of a .keras or .tflite file on one split of a data set.",
        epilog="Example: tfopt evaluate runs/photos/model.tflite --data photos/ --split test",
    )
    command.add_argument("model", metavar="MODEL", help=".keras or .tflite file")
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--split", default="test", help="train, validation or test (default: test)")
    command.add_argument("--seed", type=int, default=0, help="of the splits, as in training (default: 0)")
    command.add_argument(
        "--on-bad-image", default="raise", choices=("raise", "skip"), help="unreadable files"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=_evaluate)
    return command


def _evaluate(parsed: argparse.Namespace) -> int:
    from tfopt.recipes import evaluate

    comparison = evaluate(
        parsed.model, parsed.data, split=parsed.split, seed=parsed.seed, on_bad_image=parsed.on_bad_image
    )
    print(comparison.to_json() if parsed.json else comparison)
    return 0


def _add_launch(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "launch",
        help="run a training script on several workers",
        description="Starts workers that train one model together; `tfopt.distribute.make_strategy()` in "
        "the script finds the others. The first failure ends all.",
        epilog="Example: tfopt launch -n 2 --max-restarts 1 train.py --epochs 3",
    )
    command.add_argument("-n", "--workers", type=int, default=2, help="on this machine (default: 2)")
    command.add_argument("--hosts", nargs="+", metavar="HOST:PORT", help="one worker on each, instead of -n")
    command.add_argument("--index", type=int, help="which of --hosts this machine is")
    command.add_argument("--data-workers", type=int, default=0, help="processes that prepare data")
    command.add_argument("--max-restarts", type=int, default=0, help="after a failure (default: 0)")
    command.add_argument("--log-dir", help="folder for one log per worker")
    command.add_argument("script", help="Python script")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    command.set_defaults(run=_launch)
    return command


def _launch(parsed: argparse.Namespace) -> int:
    from tfopt.distribute import launch

    return launch(
        [parsed.script, *parsed.arguments],
        parsed.workers,
        hosts=parsed.hosts,
        index=parsed.index,
        data_workers=parsed.data_workers,
        max_restarts=parsed.max_restarts,
        log_dir=parsed.log_dir,
    )


def _add_doctor(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "doctor",
        help="what is wrong with this environment?",
        description="Checks versions, devices and known traps, and says how to mend each.",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command.set_defaults(run=_doctor)
    return command


def _doctor(parsed: argparse.Namespace) -> int:
    from tfopt.doctor import diagnose, is_broken

    findings = diagnose()
    if parsed.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:<8} {finding.subject}: {finding.detail}" + f" {finding.fix}".rstrip())
    return FAILED if is_broken(findings) else 0

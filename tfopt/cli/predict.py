"""`tfopt predict`: what is on these pictures?"""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tfopt.cli._arguments import add_class_names, add_input_scale, number
from tfopt.cli._workers import is_chief, strategy_of_workers

SOME_UNREADABLE = 3
_FORMATS = ("csv", "jsonl")


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "predict",
        help="what is on these pictures?",
        description="Names what a model sees on images, one line for each. A file that cannot be read is "
        "told and passed over; the exit code is then 3. A .tflite file runs without TensorFlow and starts at "
        "once.",
        epilog="Examples: tfopt predict runs/photos/model.tflite picture.jpg --top 3; "
        "find . -name '*.jpg' | tfopt predict model.tflite - --output answers.csv",
    )
    command.add_argument("model", metavar="MODEL", help=".keras, .h5 or .tflite file")
    command.add_argument(
        "images",
        metavar="PATH",
        nargs="+",
        help="files, folders (all images below), patterns such as 'photos/*.jpg', or - for a list of paths "
        "on standard input",
    )
    answer = command.add_argument_group("answers")
    answer.add_argument(
        "--top",
        type=number(int, minimum=1),
        default=1,
        metavar="N",
        help="how many classes to name. Default: 1.",
    )
    answer.add_argument(
        "--threshold",
        type=number(float, minimum=0, maximum=1),
        metavar="X",
        help="name only classes with at least this probability. Default: 0; of several labels per image 0.5.",
    )
    add_class_names(answer)
    add_input_scale(answer, auto="[0, 255]")
    results = command.add_argument_group("results")
    results.add_argument(
        "--output",
        type=_output,
        metavar="{csv,jsonl,FILE}",
        help="csv or jsonl on standard output, or a file that ends in .csv or .jsonl. Default: text.",
    )
    results.add_argument(
        "--batch-size",
        type=number(int, minimum=1),
        default=32,
        metavar="N",
        help="images at a time. Default: 32.",
    )
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Prints or writes the answers; 3 if some images could not be read."""
    from tfopt._surroundings import visible_cpus
    from tfopt.recipes.classifier import Classifier
    from tfopt.recipes.image_files import image_files
    from tfopt.recipes.predicting import answers

    strategy = strategy_of_workers()
    options = {"class_names": parsed.class_names, "input_scale": parsed.input_scale}
    classifier = Classifier(parsed.model, threads=visible_cpus(), **options)
    top = min(parsed.top, classifier.task.outputs)
    paths = image_files(parsed.images, sys.stdin)
    count = unreadable = 0
    told = answers(classifier, paths, top, parsed.threshold, batch_size=parsed.batch_size, strategy=strategy)
    with _writer(parsed.output, classifier.task, top) if is_chief() else _nowhere() as write:
        for answer in told:
            count += 1
            unreadable += answer.error is not None
            write(answer)
    if not count:
        raise ValueError("there are no images: standard input gives no paths.")
    if not unreadable or not is_chief():  # the first error ends all workers, and the chief still writes
        return 0
    print(f"{unreadable} of {count} images cannot be read", file=sys.stderr)
    return SOME_UNREADABLE


def _nowhere() -> contextlib.nullcontext[Callable[[Any], None]]:
    """What another worker than the chief writes to."""
    return contextlib.nullcontext(lambda answer: None)


def _output(text: str) -> str:
    if text not in _FORMATS and _kind(text) not in _FORMATS:
        raise argparse.ArgumentTypeError(f"must be csv, jsonl or a file that ends so, not {text!r}")
    return text


def _kind(output: str) -> str:
    return pathlib.Path(output).suffix.removeprefix(".")


@contextlib.contextmanager
def _writer(output: str | None, task: Any, top: int) -> Iterator[Callable[[Any], None]]:
    """A function that takes one answer after the other; a file is complete or absent in the end."""
    from tfopt._files import replacing
    from tfopt.recipes.prediction_table import row_writer
    from tfopt.recipes.terminal import printable

    def say(answer: Any) -> None:
        if answer.error is None:
            print(printable(f"{answer.path}: {task.answer_text(answer.classes)}"))
        else:
            print(printable(f"{answer.path}: cannot be read: {answer.error}"), file=sys.stderr)

    if output is None:
        yield say
    elif output in _FORMATS:
        yield row_writer(output, sys.stdout, task, top)
    else:
        with (
            replacing(pathlib.Path(output).expanduser()) as partial,
            open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            yield row_writer(_kind(output), file, task, top)

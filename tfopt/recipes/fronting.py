"""`compress_front`: one trained classifier as files of several sizes, with the accuracy of each."""

import dataclasses
import json
import math
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import Any, final

import keras
from rich.table import Table

from tfopt import compress as parts
from tfopt import models, report
from tfopt._checks import message
from tfopt._files import check_output, write_text
from tfopt._table import Printable
from tfopt.compress import planning
from tfopt.recipes import budgeting
from tfopt.recipes.compress_config import CompressConfig
from tfopt.recipes.compressing import CompressResult, compressed
from tfopt.recipes.findings import model_rows
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.sources import source_of
from tfopt.report.notebook import framed

# Of the file with 8-bit weights and all channels; an int8 file is somewhat larger than that.
_SHARES = (1.2, 0.7, 0.5, 0.35, 0.25)
_NAME = re.compile(r"[\w.]+")


@final
@dataclasses.dataclass(frozen=True)
class FrontResult(Printable):
    """What `compress_front` made; prints as a table.

    Attributes:
        results: What `compress` returns, by size.
        refused: Sizes that are out of reach, with the reason.
        report_path: The page that compares the sizes.
    """

    results: dict[str, CompressResult]
    refused: dict[str, str]
    report_path: pathlib.Path

    def __rich__(self) -> Table:
        """The table for a rich console."""
        table = Table(caption=f"{next(iter(self.results.values())).comparison.rows[-1].samples} test images")
        for title in ("size", "how", "result", "95 % interval", "bytes", "zipped", "ms"):
            table.add_column(title, justify="left" if title in ("size", "how") else "right")
        for size, result in self.results.items():
            row = result.comparison.rows[-1]
            is_share = not math.isnan(row.accuracy)
            scores = (
                "" if is_share else ", ".join(f"{name} {value:.4g}" for name, value in row.scores.items())
            )
            bounds = f"{100 * row.accuracy_low:.1f}-{100 * row.accuracy_high:.1f}"
            table.add_row(
                *(size, _how(result), scores or f"{row.accuracy:.1%}", "" if scores else bounds),
                *(f"{row.bytes:,}", f"{row.bytes_zipped:,}", f"{row.latency.median_ms:.3g}"),
            )
        for size in self.refused:
            table.add_row(size, "out of reach", *[""] * 5)
        return table

    def _repr_html_(self) -> str:
        """The page, where Jupyter or Colab shows this result."""
        return framed(self.report_path)


def compress_front(
    model: str | pathlib.Path,
    data: Any,
    sizes: str | Sequence[str] = "auto",
    config: CompressConfig | None = None,
    *,
    progress: ConsoleProgress | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **overrides: Any,
) -> FrontResult:
    """Makes files of several sizes of one classifier, and shows what each size costs in accuracy.

    Each size is a run of `compress` with that limit on the bytes, in a folder of its own. Forms of the model
    that were measured for one size are known to the next ones. Call it again to go on after an interruption.

    Args:
        model: As in `compress`.
        data: As in `compress`.
        sizes: Sizes of files, such as ["250k", "120k"], or a text "250k,120k". "auto": five, from the whole
            model in int8 to about a fifth of it.
        config: As in `compress`; other limits hold for every size.
        progress: As in `compress`.
        callbacks: As in `compress`.
        **overrides: Fields of `CompressConfig` that replace those of `config`.

    Returns:
        A `FrontResult`. In the output folder: one folder for each size, `front.html` and `front.json`.

    Raises:
        ValueError: If a size cannot be read, none can be reached, or `max_bytes` is given as well.
        FileExistsError: If the output folder holds another run.

    Example:
        >>> from tfopt.recipes import compress_front
        >>> print(compress_front("runs/photos/model.keras", "photos/", sizes="250k,120k,60k"))
    """
    config = (config or CompressConfig()).changed(**overrides)
    progress = progress or ConsoleProgress()
    if config.max_bytes is not None:
        raise ValueError(
            f"`sizes` are the limits on bytes. Received: max_bytes={config.max_bytes!r} as well."
        )
    named = _sizes(sizes, pathlib.Path(model).expanduser())
    output = pathlib.Path(config.output)
    check_output(output, source_of(data))
    same = {"model": str(model), "sizes": list(named), **config.to_dict()}
    same.pop("output")
    same.pop("overwrite")
    planners = budgeting.Planners()
    results: dict[str, CompressResult] = {}
    refused: dict[str, planning.UnreachableBudgetError] = {}
    with RunFolder(output, same, config.overwrite, [model]) as folder:
        for size in named:
            progress.say(f"size {size}")
            limited = config.changed(max_bytes=size, output=str(output / size))
            try:
                results[size] = compressed(model, data, limited, progress, callbacks, planners)
            except planning.UnreachableBudgetError as error:
                refused[size] = error
                progress.say(f"{size} is out of reach. {error}")
        if not results:
            raise next(iter(refused.values()))
        reasons = {size: str(error) for size, error in refused.items()}
        found = FrontResult(results, reasons, folder.writing("front.html"))
        write_text(folder.writing("front.json"), json.dumps(_plain(found), indent=1))
        _write_page(found, pathlib.Path(model).name)
    progress.say(found)
    progress.say(f"front  {found.report_path}")
    return found


def _sizes(sizes: str | Sequence[str], model: pathlib.Path) -> list[str]:
    """The sizes as texts, the largest first; each names a folder."""
    if sizes == "auto":
        with tempfile.TemporaryDirectory() as folder:
            whole = parts.export(models.load(model), f"{folder}/model.tflite", "dynamic").path.stat().st_size
        return [_rounded(share * whole) for share in _SHARES]
    every = sizes.split(",") if isinstance(sizes, str) else [str(size) for size in sizes]
    every = ["".join(size.split()) for size in every]
    wrong = [size for size in every if not _NAME.fullmatch(size)]
    if wrong or not every:
        fix = "A size is a number with a unit, such as '250k'."
        raise ValueError(message("sizes", "'auto' or sizes such as '250k,120k'", sizes, fix))
    by_bytes = {size: planning.Budget(bytes=size).bytes for size in every}
    return sorted(by_bytes, key=by_bytes.__getitem__, reverse=True)


def _rounded(count: float) -> str:
    """A size that can be read and that names a folder: three digits at most."""
    return f"{count / 1000:.0f}kB" if count >= 10_000 else f"{count:.0f}B"


def _how(result: CompressResult) -> str:
    """The decisions behind a file, in a line."""
    decided = json.loads((result.tflite_path.parent / budgeting.FILE).read_text(encoding="utf-8"))
    words = ["all channels" if decided["keep"] is None else f"{decided['keep']:.0%} of the channels"]
    words += [f"zeros in {len(decided['sparsities'])} layers"] if decided["sparsities"] else []
    return ", ".join([*words, decided["quantization"] or "float32"])


def _plain(found: FrontResult) -> list[dict[str, Any]]:
    """What `front.json` holds."""
    made = []
    for size, result in found.results.items():
        row = result.comparison.rows[-1]
        made.append(
            {
                "size": size,
                "how": _how(result),
                "accuracy": row.accuracy,
                "bytes": row.bytes,
                "zipped": row.bytes_zipped,
                "latency_ms": row.latency.median_ms,
                "file": str(result.tflite_path.relative_to(found.report_path.parent)),
            }
        )
    return made + [{"size": size, "refused": reason} for size, reason in found.refused.items()]


def _write_page(found: FrontResult, name: str) -> None:
    """The page with the chart, the table and the way to each size's own report."""
    rows = [
        report.FrontRow(
            size, model_rows(result.comparison)[-1], _how(result), f"{size}/{result.report_path.name}"
        )
        for size, result in found.results.items()
    ]
    rows += [report.FrontRow(size, None, "out of reach") for size in found.refused]
    first = next(iter(found.results.values())).comparison
    subtitle = f"{first.rows[-1].samples} test images"
    report.write_front(found.report_path, f"{name} by size", subtitle, rows, model_rows(first)[0])

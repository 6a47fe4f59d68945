"""Limits on the exported file: what is chosen for them, once a run, and whether the file keeps them."""

import dataclasses
import json
import pathlib
import tempfile
from typing import Any, final

import keras
import numpy as np

from tfopt import compress
from tfopt._files import write_text
from tfopt.compress import TFLiteModel, planning
from tfopt.recipes.budget_options import BudgetOptions
from tfopt.recipes.run import Run
from tfopt.recipes.run_folder import RunFolder, store_task
from tfopt.recipes.session import Session

FILE = "plan.json"
SAMPLES = 512  # images that choose, and as many that judge
MARGIN = 0.98  # of a size: the file of the trained model differs by some bytes from the one planned with


@final
@dataclasses.dataclass(frozen=True)
class Decisions:
    """What keeps the limits and loses least.

    Attributes:
        keep: Share of the channels that stays, or None for all.
        sparsities: Share of zeros by kernel.
        quantization: As `compress.export` takes it.
    """

    keep: float | None
    sparsities: dict[str, float]
    quantization: str | None


def budget_of(config: BudgetOptions) -> planning.Budget | None:
    """The limits that are given, checked, or None."""
    limits = config.limits()
    try:
        return planning.Budget(**limits) if limits else None
    except (ValueError, TypeError) as error:
        raise type(error)(config.in_words_of_options(str(error))) from None


@final
class Planners:
    """The planner of one model and its images, made when it is first asked for; runs may share it."""

    def __init__(self) -> None:
        self._made: planning.Planner | None = None

    def of(self, session: Session, model: keras.Model) -> planning.Planner:
        """Validation images choose, test images judge."""
        if self._made is None:
            chooser, judge = (_images(session, split) for split in ("validation", "test"))
            self._made = planning.Planner(model, chooser, judge=judge)
        return self._made


def decide(
    folder: RunFolder,
    session: Session,
    model: keras.Model,
    budget: planning.Budget,
    planners: Planners | None = None,
) -> Decisions:
    """The decisions of this run, made once: a run that goes on after an interruption reads them.

    Args:
        folder: Of the run.
        session: Of the run.
        model: The float model.
        budget: The limits.
        planners: Shared by runs with other limits on the same model and images.

    Raises:
        ValueError: If no combination keeps the limits: the nearest that was measured is named.
    """
    planners = planners or Planners()
    text = session.workers.alone(lambda: _decided(folder, session, model, budget, planners))
    return Decisions(**json.loads(text))


def _decided_before(path: pathlib.Path) -> str | None:
    """What an interrupted run has decided; None if there is nothing, or a torn file."""
    try:
        text = path.read_text(encoding="utf-8")
        found = Decisions(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None
    kinds = (
        (found.keep, (int, float, type(None))),
        (found.sparsities, dict),
        (found.quantization, (str, type(None))),
    )
    return text if all(isinstance(value, kind) for value, kind in kinds) else None


def _decided(
    folder: RunFolder, session: Session, model: keras.Model, budget: planning.Budget, planners: Planners
) -> str:
    """`decide`, by the chief, as JSON."""
    path = folder.writing(FILE)
    if (before := _decided_before(path)) is not None:
        return before
    labels = _size_of_labels(session, model)
    strict = {
        name: max(1.0, MARGIN * (value - labels)) if name in ("bytes", "zipped") else value
        for name, value in budget.limits().items()
    }
    with session.progress.bar("planning", planning.MOST_CANDIDATES) as bar:
        planner, limits = planners.of(session, model), planning.Budget(**strict)
        try:
            plan = planner.plan(limits, on_measured=lambda name, measured: bar.advance())
        except planning.UnreachableBudgetError as error:  # which names the stricter limits
            reserve = f"; class names take {labels:,} bytes of a file and {1 - MARGIN:.0%} stays in reserve"
            given = f"{budget.limits()}{reserve if {'bytes', 'zipped'} & set(strict) else ''}"
            raise planning.UnreachableBudgetError(given, error.nearest) from None
    session.progress.say(f"plan: {plan}")
    keep = plan.keep if plan.keep < 1.0 else None
    text = json.dumps(dataclasses.asdict(Decisions(keep, plan.sparsities, plan.precision)))
    write_text(path, text)
    return text


def _size_of_labels(session: Session, model: keras.Model) -> int:
    """Bytes that the names of the classes and the task add to a file, which a plan does not measure."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, name) for name in ("plain.tflite", "named.tflite")]
        for path, names in zip(paths, (None, session.task.names)):
            compress.export(model, path, class_names=names)
        store_task(paths[1], session.task)
        plain, named = (path.stat().st_size for path in paths)
    return named - plain


def export(
    run: Run,
    teacher: keras.Model,
    small: keras.Model,
    quantized: keras.Model | None,
    budget: planning.Budget | None,
) -> tuple[TFLiteModel, keras.Model | None]:
    """Writes the file and says whether it keeps the limits.

    Args:
        run: Of the stages that made the models.
        teacher: The float model, against which the loss is measured.
        small: The model that is left of it.
        quantized: `small` trained with quantization, or None.
        budget: The limits, if there are any.

    Returns:
        The file, and the model trained with quantization if the file was made of that.
    """
    file, chosen = run.export(small, quantized), quantized
    if budget is None:
        return file, chosen
    judge = planning.Judge(teacher, _images(run.session, "test"), None)
    found = budget.missed(judge.measure_file(file), judge.float_score)
    if found and chosen is not None:  # the file without that training may keep them
        file, chosen = run.export(small, None), None
        found = budget.missed(judge.measure_file(file), judge.float_score)
    _tell(run.session, budget, found)
    return file, chosen


def _tell(session: Session, budget: planning.Budget, found: dict[str, tuple[float, float]]) -> None:
    """Says whether the limits are kept."""
    if not found:
        limits = ", ".join(f"{name} <= {value:g}" for name, value in budget.limits().items())
        session.progress.say(f"limits kept: {limits}")
    for name, (limit, measured) in found.items():
        session.progress.say(f"limit missed: {name} is {measured:g}, not {limit:g}")


def _images(session: Session, split: str) -> tuple[Any, Any]:
    """Some images of a split, of all classes, and their labels, in memory."""
    batches = session.sample(split, images=SAMPLES)
    images, labels = zip(*((x.numpy(), y.numpy()) for x, y in batches))
    return np.concatenate(images), np.concatenate(labels)

"""Limits on the file of `compress`: what is chosen for them, once a run, and whether the file keeps them."""

import dataclasses
import json
from typing import Any, final

import keras
import numpy as np

from tfopt._files import write_text
from tfopt.compress import TFLiteModel, planning
from tfopt.recipes.run_folder import RunFolder
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


def decide(folder: RunFolder, session: Session, model: keras.Model, budget: planning.Budget) -> Decisions:
    """The decisions of this run, made once: a run that goes on after an interruption reads them.

    Validation images choose, test images judge.

    Raises:
        ValueError: If no combination keeps the limits: the nearest that was measured is named.
    """
    text = session.workers.alone(lambda: _decided(folder, session, model, budget))
    return Decisions(**json.loads(text))


def _decided(folder: RunFolder, session: Session, model: keras.Model, budget: planning.Budget) -> str:
    """`decide`, by the chief, as JSON."""
    path = folder.writing(FILE)
    if path.exists():
        return path.read_text(encoding="utf-8")
    margins = {"bytes": MARGIN, "zipped": MARGIN}
    strict = {name: value * margins.get(name, 1.0) for name, value in budget.limits().items()}
    with session.progress.bar("planning", planning.MOST_CANDIDATES) as bar:
        plan = planning.plan(
            model,
            _images(session, "validation"),
            planning.Budget(**strict),
            judge=_images(session, "test"),
            on_measured=lambda name, measured: bar.advance(),
        )
    session.progress.say(f"plan: {plan}")
    keep = plan.keep if plan.keep < 1.0 else None
    text = json.dumps(dataclasses.asdict(Decisions(keep, plan.sparsities, plan.precision)))
    write_text(path, text)
    return text


def missed(session: Session, model: keras.Model, file: TFLiteModel, budget: planning.Budget) -> dict:
    """Limits that a file does not keep: (limit, measured) by name."""
    judge = planning.Judge(model, _images(session, "test"), None)
    return budget.missed(judge.measure_file(file), judge.float_score)


def tell(session: Session, budget: planning.Budget, found: dict[str, tuple[float, float]]) -> None:
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

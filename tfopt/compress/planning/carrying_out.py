"""Builds what a plan says: slim, prune and quantize with the float model as teacher, then verify the file."""

import logging
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras

from tfopt._checks import check_instance, check_integer
from tfopt.compress._kernels import choose
from tfopt.compress.distillation import Distillation
from tfopt.compress.planning.candidates import narrowed, pruned_copy
from tfopt.compress.planning.measuring import Measurement
from tfopt.compress.planning.planner import Plan
from tfopt.compress.pruning import Pruning
from tfopt.compress.quantization import quantize_aware
from tfopt.compress.tflite_model import TFLiteModel

_logger = logging.getLogger(__name__)
RATES = {"slim": 1e-3, "prune": 1e-3, "quantize": 1e-5}  # of Adam: what has lost more needs larger steps


@final
@dataclass(frozen=True)
class PlanResult:
    """The file that a plan became.

    Attributes:
        file: The file, opened.
        model: The model it was exported from.
        measured: Its costs, and its score on the data that judges.
        drop: Score lost against the float model, on the data that judges.
        missed: Limits that it does not keep: (limit, measured) by name; empty if all hold.
        stages: The score after each stage, by name, on the data that chose.
    """

    file: TFLiteModel
    model: keras.Model
    measured: Measurement
    drop: float
    missed: dict[str, tuple[float, float]]
    stages: dict[str, float]


def carry_out(
    plan: Plan,
    train: Any = None,
    path: str | pathlib.Path = "small.tflite",
    *,
    epochs: int = 4,
    fit: Callable[[keras.Model, str, list], Any] | None = None,
) -> PlanResult:
    """Slims, prunes and quantizes as planned, trains after each step, and checks the file against each limit.

    Args:
        plan: From `plan`.
        train: A batched dataset of (inputs, labels). None trains nothing: the file is that of
            `plan.expected`.
        path: Where the file goes.
        epochs: Of each training.
        fit: Your own training: `fit(model, stage, callbacks)`, with "slim", "prune" or "quantize" for the
            stage. By default Adam with the loss that the model is compiled with.

    Returns:
        A `PlanResult`. A limit that is not kept (`drop`, or a latency on a busy machine) is logged and in
        `missed`.

    Raises:
        ValueError: If `train` is given without `fit`, for a model that is not compiled.
    """
    check_instance("plan", plan, Plan)
    check_integer("epochs", epochs, minimum=1)
    if train is not None and fit is None and not plan.model.compiled:
        raise ValueError("The model must be compiled with its loss to be trained. Compile it, or give `fit`.")
    if train is None and fit is None:
        trained: Callable = _nothing
    else:
        trained = fit or _Fit(plan.model, train, epochs)
    model, stages = narrowed(plan.model, plan.keep, plan.chooser), {}
    if plan.keep < 1.0:
        trained(model, "slim", [Distillation(plan.model)])
        stages["slim"] = plan.chooser.measure(model, None).score
    if plan.sparsities:
        model = pruned_copy(model, {} if trained is not _nothing else plan.sparsities)
        trained(model, "prune", [*prunings(model, plan.sparsities), Distillation(plan.model)])
        stages["prune"] = plan.chooser.measure(model, None).score
    before = plan.chooser.measure(model, plan.precision)
    stages["export"] = before.score
    if plan.precision == "int8" and trained is not _nothing:
        model, stages["quantize"] = _quantized(plan, model, trained, before)
    measured = plan.judge.measure(model, plan.precision, path, ranges=plan.chooser.inputs)
    return _verified(plan, model, measured, stages, path)


def _quantized(plan: Plan, model: keras.Model, trained: Callable, before: Measurement) -> tuple:
    """Trains with the rounding of int8.

    The model of before stays if its file was better, or keeps limits that the trained one does not.
    """
    try:
        aware = quantize_aware(model, preserve="sparsity" if plan.sparsities else None)
    except ValueError as error:  # a layer without a rule: the file of before stays
        _logger.warning("No training with int8 rounding: %s", error)
        return model, before.score
    trained(aware, "quantize", [Distillation(plan.model)])
    after = plan.chooser.measure(aware, "int8")
    if after.score <= before.score or plan.budget.exceeded(after):
        return model, before.score
    return aware, after.score


def _verified(plan: Plan, model: keras.Model, measured: Measurement, stages: dict, path: Any) -> PlanResult:
    missed = plan.budget.missed(measured, plan.float_score)
    if missed:
        _logger.warning("Limits that the file does not keep (limit, measured): %s", missed)
    drop = plan.float_score - measured.score
    return PlanResult(TFLiteModel(path), model, measured, drop, missed, stages)


def prunings(model: keras.Model, sparsities: dict[str, float]) -> list[Pruning]:
    """The callbacks that bring each kernel to its sparsity, by name: one for each sparsity."""
    every = choose(model).chosen
    levels = sorted({value for name, value in sparsities.items() if name in every})
    return [Pruning(level, exclude=[n for n in every if sparsities.get(n) != level]) for level in levels]


class _Fit:
    """Adam with the loss of the float model."""

    def __init__(self, model: keras.Model, train: Any, epochs: int) -> None:
        self.loss, self.train, self.epochs = model.loss, train, epochs

    def __call__(self, model: keras.Model, stage: str, callbacks: list) -> None:
        model.compile(keras.optimizers.Adam(RATES[stage]), self.loss)
        data = self.train if isinstance(self.train, tuple) else (self.train,)
        model.fit(*data, epochs=self.epochs, verbose=0, callbacks=callbacks)


def _nothing(model: keras.Model, stage: str, callbacks: list) -> None:
    """Trains nothing."""

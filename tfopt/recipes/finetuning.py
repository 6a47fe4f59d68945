"""`finetune`: a folder of images in; a trained, compressed, verified model and a report out."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, final

import keras

from tfopt._files import check_output, write_text
from tfopt.compress import Budget, Comparison
from tfopt.recipes import budgeting, common_folder, stages
from tfopt.recipes.compress_config import CompressConfig
from tfopt.recipes.compressing import stages_of as compression_stages
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.findings import write_report
from tfopt.recipes.identity import identity
from tfopt.recipes.own_model import check_survives
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.recipes.run import Run
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.session import Session
from tfopt.recipes.sources import source_of
from tfopt.recipes.stages.fine_tuning import unfreeze
from tfopt.recipes.stages.linear_head import find_head
from tfopt.recipes.starting import starting_model, without_units
from tfopt.report.notebook import framed
from tfopt.tasks import Task


@final
@dataclasses.dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` made.

    Attributes:
        model: The trained float `keras.Model`, pruned if that was asked for.
        history: Stage name -> metric name -> one number per epoch.
        comparison: Accuracy, size and latency of each step on the test split.
        report_path: The HTML report.
        tflite_path: The exported, verified file.
        class_names: Names of the outputs, in their order.
        task: What the outputs mean, and how to measure them.
    """

    model: keras.Model
    history: dict[str, dict[str, list[float]]]
    comparison: Comparison
    report_path: pathlib.Path
    tflite_path: pathlib.Path
    class_names: tuple[str, ...]
    task: Task

    def _repr_html_(self) -> str:
        """The report, where Jupyter or Colab shows this result."""
        return framed(self.report_path)


def finetune(
    data: Any,
    config: FinetuneConfig | None = None,
    *,
    progress: ConsoleProgress | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **overrides: Any,
) -> FinetuneResult:
    """Fine-tunes a classifier on images, compresses it, verifies the file and writes a report.

    Stage 1 trains the classifier on features that are computed once. Stage 2 trains the upper layers
    with rates that fall towards the bottom, and keeps the best of its epochs and stage 1 by validation.
    Then the model is pruned and trained with quantization if asked, exported, and the file is run on the
    test split, which is used for nothing before that. With limits (`max_bytes`, `max_drop` and others) a
    plan measured on files chooses the channels, the sparsity and the quantization, as in `compress`.

    A run that was interrupted goes on where it was, with the same result. The same seed gives the same
    result, bit for bit, on one machine's CPU.

    Args:
        data: What `tfopt.data.load` takes (a folder, "digits", a TFDS name or arrays) or returns.
        config: All options; None is the defaults.
        progress: Where to report; None is the terminal.
        callbacks: Keras callbacks, such as those of W&B or MLflow, for every stage that calls `fit`.
        **overrides: Fields of `FinetuneConfig` that replace those of `config`.

    Returns:
        A `FinetuneResult`. In the output folder: `model.keras`, `model.tflite`, `report.html`,
        `comparison.json`, `config.json` and `stages/`.

    Raises:
        ValueError: If an option or the data does not fit.
        FileExistsError: If the output folder holds another run.
        BlockingIOError: If another process uses the output folder.
        RuntimeError: If `threads` are asked for and TensorFlow has started with others.

    Example:
        >>> result = tfopt.finetune("photos/", weights="imagenet", epochs=8, output="runs/photos")
        >>> print(result.comparison)
    """
    started = time.perf_counter()
    options = (config or FinetuneConfig()).changed(**overrides)
    budget = budgeting.budget_of(options)
    check_output(pathlib.Path(options.output), source_of(data))
    session = Session.open(data, options, progress=progress or ConsoleProgress(), callbacks=callbacks)
    resolved, progress = session.config, session.progress
    start = starting_model(session)  # before `overwrite` deletes anything: weights may be missing or not fit
    if resolved.own_model:
        check_survives(start, resolved.quantization)
    given = [resolved.model] if resolved.own_model else [resolved.weights]
    given = [each for each in given if each not in (None, "imagenet")]
    files = [each for each in given if isinstance(each, str)]
    same = identity(resolved.to_dict(), session.stored, given)
    session.workers.check_same("images, options and versions", json.dumps(same, default=str, sort_keys=True))
    described = {"data": session.stored.source, **resolved.to_dict()}

    def make(path: str | None) -> RunFolder:
        return RunFolder(path or resolved.output, same, resolved.overwrite, files)

    with common_folder.opened(session.workers, make, session.progress.say) as folder:
        write_text(folder.writing("config.json"), json.dumps(described, indent=1))
        session.announce()
        run = Run(folder, session)
        model = without_units(run.through(stages_of(resolved, start), lambda: start))
        run.keep(model)
        small, preserve = model, None
        if budget is not None:
            small, preserve = _within(budget, folder, run, model)
            run.keep(small)
        floats = _float_models(run, small)
        sparsity = resolved.sparsity
        quantized = run.quantize(stages.Quantization(small, preserve, sparsity))

        def deliver() -> Comparison:
            file, chosen = budgeting.export(run, model, small, quantized, budget)
            comparison = run.compare(floats, chosen, file)
            content = run.session, run.records, small, file, comparison, started
            before = None if small is model else model
            write_report(folder.writing("report.html"), *content, options=described, before=before)
            return comparison

        comparison = run.delivered(deliver)
    output = pathlib.Path(resolved.output)
    report, file = output / "report.html", output / "model.tflite"
    progress.say(comparison)
    progress.say(f"report {report}\nmodel  {output / 'model.keras'}\nfile   {file}")
    history = {record.name: record.history for record in run.records}
    return FinetuneResult(small, history, comparison, report, file, session.task.names, session.task)


def stages_of(config: ResolvedConfig, start: keras.Model) -> list[stages.Stage]:
    """The stages of the float model, in their order; a head of convolutions has no stage of its own."""
    every = [
        stages.Head() if config.pretrained and find_head(start) is not None else None,
        stages.FineTuning() if config.epochs else None,
        stages.Pruning(config.sparsity) if config.sparsity else None,
    ]
    return [stage for stage in every if stage is not None]


def _within(
    budget: Budget, folder: RunFolder, run: Run, model: keras.Model
) -> tuple[keras.Model, str | None]:
    """The fine-tuned model made smaller, as the limits ask, and what `quantize_aware` has to preserve.

    The stages are those of `compress`, at its learning rate: a model trained from scratch has a higher one.
    """
    chosen = budgeting.decide(folder, run.session, model, budget)
    rate = min(run.session.config.learning_rate, CompressConfig().learning_rate)
    run.session = run.session.changed(learning_rate=rate, quantization=chosen.quantization)
    config = CompressConfig(keep=chosen.keep)
    small = run.through(compression_stages(config, model, chosen.sparsities), lambda: model)
    unfreeze(small)
    return small, "sparsity" if chosen.sparsities else None


def _float_models(run: Run, model: keras.Model) -> dict[str, keras.Model]:
    """The results of all stages so far, by name, the last one being the given model."""
    *before, last = run.results or ["float"]
    return {**{name: run.load(run.results[name]) for name in before}, last: model}

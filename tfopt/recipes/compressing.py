"""`compress`: a trained classifier in; a smaller, verified file and a report out."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, final

import keras

from tfopt import compress as parts
from tfopt import models
from tfopt._checks import message
from tfopt._files import check_output
from tfopt.recipes import budgeting, common_folder, own_model, stages
from tfopt.recipes.compress_config import CompressConfig
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.devices import strategy_of
from tfopt.recipes.findings import write_report
from tfopt.recipes.identity import identity
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run import Run
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.session import Session
from tfopt.recipes.sources import source_of
from tfopt.recipes.stages.fine_tuning import unfreeze
from tfopt.recipes.stored_task import stored_class_names
from tfopt.report.notebook import framed


@final
@dataclasses.dataclass(frozen=True)
class CompressResult:
    """What `compress` made.

    Attributes:
        model: The float `keras.Model`: slimmed, pruned, clustered as asked for.
        comparison: Accuracy, size and latency of each step on the test split.
        report_path: The HTML report.
        tflite_path: The exported, verified file.
    """

    model: keras.Model
    comparison: parts.Comparison
    report_path: pathlib.Path
    tflite_path: pathlib.Path

    def _repr_html_(self) -> str:
        """The report, where Jupyter or Colab shows this result."""
        return framed(self.report_path)


def compress(
    model: str | pathlib.Path,
    data: Any,
    config: CompressConfig | None = None,
    *,
    progress: ConsoleProgress | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **overrides: Any,
) -> CompressResult:
    """Makes a trained image classifier small and fast, verifies the file and writes a report.

    In this order, as asked for, each with a training of its own that keeps what came before: channels are
    removed, kernels pruned, kernels clustered, the model quantized. In the first three the model as it was
    is the teacher. Then it is exported, and every step is measured on the test split. A run that was
    interrupted goes on where it was.

    Args:
        model: A `.keras` or `.h5` file of a model that was trained on the data. Pixels of another scale than
            [0, 255] are found out, logits get their activation; the exported file takes uint8 pixels.
        data: What `tfopt.data.load` takes: the images the model was trained on.
        config: All options; None is the defaults.
        progress: Where to report; None is the terminal.
        callbacks: Keras callbacks, such as those of W&B or MLflow, for every stage that calls `fit`.
        **overrides: Fields of `CompressConfig` that replace those of `config`.

    Returns:
        A `CompressResult`. In the output folder: `model.keras`, `model.tflite`, `report.html`,
        `comparison.json` and `stages/`.

    Raises:
        FileNotFoundError: If the model does not exist.
        ValueError: If an option does not fit, or the classes of model and data differ.
        FileExistsError: If the output folder holds another run.

    Example:
        >>> from tfopt.recipes import compress
        >>> print(compress("runs/photos/model.keras", "photos/", sparsity=0.8).comparison)
    """
    changed = (config or CompressConfig()).changed(**overrides)
    return compressed(model, data, changed, progress or ConsoleProgress(), callbacks, budgeting.Planners())


def compressed(
    model: str | pathlib.Path,
    data: Any,
    config: CompressConfig,
    progress: ConsoleProgress,
    callbacks: Sequence[keras.callbacks.Callback],
    planners: budgeting.Planners,
) -> CompressResult:
    """`compress`, which shares its measurements with runs under other limits."""
    started = time.perf_counter()
    budget = budgeting.budget_of(config)
    check_output(pathlib.Path(config.output), source_of(data))
    strategy = strategy_of(FinetuneConfig(strategy=config.strategy))  # before TensorFlow loads the model
    path = pathlib.Path(model).expanduser()
    given = _opened(path)
    options = config.training(given)
    session = Session.open(data, options, strategy=strategy, progress=progress, callbacks=callbacks)
    _check_names(path, session.task.names)
    scale = own_model.trained_scale(given, session)
    start = partial(_loaded, path, session, scale)
    teacher = start()
    own_model.check_survives(teacher, config.quantization)
    told = {"model": str(path), "data": session.stored.source, **config.to_dict()}
    described = {**told, "data": None}  # a folder may be moved
    same = identity(described, session.stored, [path])
    session.workers.check_same("images, options and versions", json.dumps(same, default=str, sort_keys=True))
    output, overwrite = config.output, config.overwrite

    def make(folder: str | None) -> RunFolder:
        return RunFolder(folder or output, same, overwrite, [path])

    with common_folder.opened(session.workers, make, session.progress.say) as folder:
        session.announce()
        sparsity: Any = config.sparsity
        if budget is not None:
            chosen = budgeting.decide(folder, session, teacher, budget, planners)
            config = config.changed(keep=chosen.keep, quantization=chosen.quantization)
            sparsity, session = chosen.sparsities, session.changed(quantization=chosen.quantization)
        run = Run(folder, session)
        small = run.through(stages_of(config, teacher, sparsity), start)
        unfreeze(small)
        run.keep(small)
        steps = {name: run.load(stage) for name, stage in run.results.items()}
        kept = {(True, False): "sparsity", (False, True): "clusters", (True, True): "both"}
        preserve = kept.get((bool(sparsity), bool(config.clusters)))
        quantized = run.quantize(stages.Quantization(small, preserve))

        def deliver() -> parts.Comparison:
            file, chosen = budgeting.export(run, teacher, small, quantized, budget)
            comparison = run.compare({"float": teacher, **steps}, chosen, file)
            content = run.session, run.records, small, file, comparison, started
            title = f"Compressing {path.name}"
            path_of_report = folder.writing("report.html")
            write_report(path_of_report, *content, title=title, options=told, before=teacher)
            return comparison

        comparison = run.delivered(deliver)
    place = pathlib.Path(output)
    report, file = place / "report.html", place / "model.tflite"
    session.progress.say(comparison)
    session.progress.say(f"report {report}\nmodel  {place / 'model.keras'}\nfile   {file}")
    return CompressResult(small, comparison, report, file)


def stages_of(
    config: CompressConfig, teacher: keras.Model, sparsity: float | dict[str, float] | None
) -> list[stages.Stage]:
    """The stages of the float model, in their order; the teacher of each is the model as it was."""
    epochs = None if config.slim_epochs == "auto" else config.slim_epochs
    every = [
        stages.Slimming(config.keep, teacher, epochs) if config.keep is not None else None,
        stages.Pruning(sparsity, teacher) if sparsity else None,
        stages.Clustering(config.clusters, teacher) if config.clusters else None,
    ]
    return [stage for stage in every if stage is not None]


def _opened(path: pathlib.Path) -> keras.Model:
    if path.suffix == ".tflite":
        fix = "Compress the .keras file that it was exported from."
        raise ValueError(message("model", "a .keras or .h5 file, which can be trained", str(path), fix))
    if not path.exists():
        raise FileNotFoundError(f"`model` must be a file. Received: model={str(path)!r}.")
    return models.load(path)


def _loaded(path: pathlib.Path, session: Session, scale: str) -> keras.Model:
    with session.home.scope():
        return own_model.adapted(models.load(path), session, scale)


def _check_names(path: pathlib.Path, names: Sequence[str]) -> None:
    """Compares the names of the classes where the file holds them."""
    stored = stored_class_names(path)
    if stored is not None and list(stored) != list(names):
        raise ValueError(
            f"The classes of the model and of the data differ: {list(stored)} and {list(names)}."
        )

"""`compress`: a trained classifier in; a smaller, verified file and a report out."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import keras

from tfopt import compress as parts
from tfopt import distribute, optimizers
from tfopt._files import check_output
from tfopt.recipes import stages
from tfopt.recipes.classifier import Classifier
from tfopt.recipes.compress_config import CompressConfig
from tfopt.recipes.findings import write_report
from tfopt.recipes.head import History, refit_head
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run import Run, counts_text, identity, load_images, open_images, source_of
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.setting import Setting
from tfopt.recipes.stages import in_small_batches, unfreeze

# Shares of the learning rate: what lost channels or weights learns again, means of weights move little.
SLIMMING_RATE, PRUNING_RATE, CLUSTERING_RATE = 30.0, 10.0, 0.2
ENOUGH_UPDATES = 2200  # after which half the channels of a fine-tuned MobileNet answer as all of them did

STEPS = {"slimming": "slimmed", "pruning": "pruned", "clustering": "clustered"}  # stage -> its model


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


def compress(
    model: str | pathlib.Path,
    data: Any,
    config: CompressConfig | None = None,
    *,
    progress: ConsoleProgress | None = None,
    **overrides: Any,
) -> CompressResult:
    """Makes a trained image classifier small and fast, verifies the file and writes a report.

    In this order, as asked for, each with a training of its own that keeps what came before: channels are
    removed, kernels pruned, kernels clustered, the model quantized. In the first three the model as it was
    is the teacher. Then it is exported, and every step is measured on the test split. A run that was
    interrupted goes on where it was.

    Args:
        model: A `.keras` file: from pixels in [0, 255] to probabilities, of a fixed image size.
        data: What `tfopt.data.load` takes: the images the model was trained on.
        config: All options; None is the defaults.
        progress: Where to report; None is the terminal.
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
    started = time.perf_counter()
    config = dataclasses.replace(config or CompressConfig(), **overrides)
    progress = progress or ConsoleProgress()
    check_output(pathlib.Path(config.output), source_of(data))
    classifier = _classifier(model)
    training = config.training(classifier.model)
    stored = open_images(data, training)
    images, training = load_images(stored, training)
    _check_classes(classifier, images.class_names)
    options = {"model": str(classifier.path), "data": stored.source, **dataclasses.asdict(config)}
    strategy = distribute.make_strategy(config.strategy)
    described = identity({**options, "data": None}, stored, [classifier.path])  # a folder may be moved
    with RunFolder(config.output, described, config.overwrite, [classifier.path]) as folder:
        setting = Setting(training, images, strategy, progress, folder.checkpoints)
        progress.say(counts_text(images))
        run = Run(folder, setting)
        small = _shrink(run, config, classifier.path)
        run.keep(small)
        kept = {(True, False): "sparsity", (False, True): "clusters", (True, True): "both"}
        quantized = run.quantize(small, kept.get((bool(config.sparsity), bool(config.clusters))))
        file = run.export(small, quantized)
        steps = {STEPS[record.name]: run.load(record.name) for record in run.records if record.name in STEPS}
        comparison = run.compare({"float": classifier.model, **steps}, quantized, file)
        path, title = folder.writing("report.html"), f"Compressing {classifier.path.name}"
        report = write_report(
            path, setting, run.records, small, file, comparison, started, title=title, options=options
        )
    progress.say(comparison)
    progress.say(f"report {report}\nmodel  {folder.path / 'model.keras'}\nfile   {file.path}")
    return CompressResult(small, comparison, report, file.path)


def _shrink(run: Run, config: CompressConfig, path: pathlib.Path) -> keras.Model:
    """The float model after all steps that it was asked for; the model it was is the teacher of each."""

    def start() -> keras.Model:
        with run.setting.strategy.scope():
            return keras.models.load_model(path, compile=False)

    teacher = start()
    make: Callable[[], keras.Model] = start
    if config.keep is not None:
        shrink = partial(slimmed, start, run.setting, config.keep)
        epochs = None if config.slim_epochs == "auto" else config.slim_epochs
        train = partial(train_slimmed, teacher, epochs=epochs)
        make = run.stage("slimming", shrink, train)
    if config.sparsity:
        make = run.stage("pruning", make, partial(train_pruned, teacher, config.sparsity))
    if config.clusters:
        clustering = parts.Clustering(config.clusters, teacher=teacher)
        train = partial(train_with, [clustering], CLUSTERING_RATE, "clustering")
        make = run.stage("clustering", make, train)
    model = make()
    unfreeze(model)
    return model


def slimmed(load: Callable[[], keras.Model], setting: Setting, keep: float) -> keras.Model:
    """The channels that the loss needs most, their weights fitted on images as they are and varied."""
    model = load()
    unfreeze(model)  # a gradient is asked for of every weight
    model.compile(loss="categorical_crossentropy")
    sample = setting.sample().concatenate(setting.sample(augmented=True))
    with setting.strategy.scope():
        return parts.slim(model, keep, criterion="taylor", data=sample)


def train_slimmed(
    teacher: keras.Model, model: keras.Model, setting: Setting, epochs: int | None = None
) -> History:
    """Trains what is left until it answers as the whole model does, then fits the classifier to its features.

    Half a network errs by what it cannot imitate yet, not by the labels of few images: it needs patience,
    2,200 updates if `epochs` is None.
    """
    small = in_small_batches(setting)
    longer = small.changed(compress_epochs=epochs or math.ceil(ENOUGH_UPDATES / len(small.training())))
    history = train_with([_lesson(teacher)], SLIMMING_RATE, "slimming", model, longer)
    refit_head(model, setting)
    return history


def train_pruned(teacher: keras.Model, sparsity: float, model: keras.Model, setting: Setting) -> History:
    """Prunes every large kernel while the model learns to answer as the dense one does."""
    callbacks = [parts.Pruning(sparsity), _lesson(teacher)]
    return train_with(callbacks, PRUNING_RATE, "pruning", model, in_small_batches(setting))


def train_with(
    callbacks: Sequence[keras.callbacks.Callback],
    share: float,
    title: str,
    model: keras.Model,
    setting: Setting,
) -> History:
    """Trains all layers at a share of the learning rate; keeps the last epoch, with fresh statistics."""
    unfreeze(model)
    rate, groups = share * setting.config.learning_rate, optimizers.no_decay_on_norm_and_bias(model)
    return stages.fit_anew(model, setting, title, rate, groups, callbacks)


def _lesson(teacher: keras.Model) -> parts.Distillation:
    """The answers of the teacher alone, without labels (Beyer et al., arXiv:2106.05237)."""
    return parts.Distillation(teacher, weight=1.0, temperature=2.0)


def _classifier(model: str | pathlib.Path) -> Classifier:
    path = pathlib.Path(model)
    if path.suffix != ".keras":
        raise ValueError(
            f"`model` must be a .keras file, which can be trained. Received: model={str(path)!r}."
        )
    return Classifier(path)


def _check_classes(classifier: Classifier, names: Sequence[str]) -> None:
    """Compares names where the file holds them, else numbers."""
    outputs = classifier.model.output_shape[-1]
    stored = classifier.stored_class_names
    if outputs != len(names) or (stored is not None and list(stored) != list(names)):
        raise ValueError(
            "The classes of the model and of the data differ: "
            f"{outputs if stored is None else list(stored)} and {list(names)}."
        )

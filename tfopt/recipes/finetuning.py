"""`finetune`: a folder of images in; a trained, compressed, verified model and a report out."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, final

import keras

from tfopt import distribute
from tfopt._files import check_output, write_text
from tfopt.compress import Comparison
from tfopt.recipes import stages
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.findings import write_report
from tfopt.recipes.head import train_head
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run import Run, counts_text, identity, load_images, open_images, source_of
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.setting import Setting


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
    """

    model: keras.Model
    history: dict[str, dict[str, list[float]]]
    comparison: Comparison
    report_path: pathlib.Path
    tflite_path: pathlib.Path
    class_names: tuple[str, ...]


def finetune(
    data: Any,
    config: FinetuneConfig | None = None,
    *,
    progress: ConsoleProgress | None = None,
    **overrides: Any,
) -> FinetuneResult:
    """Fine-tunes a classifier on images, compresses it, verifies the file and writes a report.

    Stage 1 trains the classifier on features that are computed once. Stage 2 trains the upper layers
    with rates that fall towards the bottom, and keeps the best of its epochs and stage 1 by validation.
    Then the model is pruned and trained with quantization if asked, exported, and the file is run on the
    test split, which is used for nothing before that. A run that was interrupted goes on where
    it was, with the same result. The same seed gives the same result, bit for bit, on one machine's CPU.

    Args:
        data: What `tfopt.data.load` takes (a folder, "digits", a TFDS name or arrays) or returns.
        config: All options; None is the defaults.
        progress: Where to report; None is the terminal.
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
    config = dataclasses.replace(config or FinetuneConfig(), **overrides)
    strategy = distribute.make_strategy(
        config.strategy, threads=None if config.threads == "auto" else config.threads
    )
    progress = progress or ConsoleProgress()
    check_output(pathlib.Path(config.output), source_of(data))
    stored = open_images(data, config)
    images, resolved = load_images(stored, config)
    keras.utils.set_random_seed(resolved.seed)
    with strategy.scope():  # before `overwrite` deletes anything: the weights may be missing or may not fit
        start = resolved.build_model(len(images.class_names))
    weights = [resolved.weights] if resolved.weights not in (None, "imagenet") else []
    given = [resolved.model] if isinstance(resolved.model, keras.Model) else weights
    same = identity(resolved.to_dict(), stored, given)
    options = {"data": stored.source, **resolved.to_dict()}
    with RunFolder(resolved.output, same, resolved.overwrite, weights) as folder:
        write_text(folder.writing("config.json"), json.dumps(options, indent=1))
        setting = Setting(resolved, images, strategy, progress, folder.checkpoints)
        progress.say(counts_text(images))
        run = Run(folder, setting)
        model, quantized = _train(run, start)
        tflite = run.export(model, quantized)
        comparison = run.compare(_float_models(run, model), quantized, tflite)
        report = write_report(
            folder.writing("report.html"),
            setting,
            run.records,
            model,
            tflite,
            comparison,
            started,
            options=options,
        )
    progress.say(comparison)
    progress.say(f"report {report}\nmodel  {folder.path / 'model.keras'}\nfile   {tflite.path}")
    history = {record.name: record.history for record in run.records}
    return FinetuneResult(model, history, comparison, report, tflite.path, tuple(images.class_names))


def _train(run: Run, start: keras.Model) -> tuple[keras.Model, keras.Model | None]:
    """The float model, and the one trained with quantization if there is to be an int8 file."""
    config = run.setting.config
    make: Callable[[], keras.Model] = lambda: start  # noqa: E731
    if config.pretrained:
        make = run.stage("head", make, train_head)
    if config.epochs:
        make = run.stage("fine-tuning", make, stages.train_all)
    if config.sparsity:
        make = run.stage("pruning", make, stages.prune)
    model = make()
    run.keep(model)
    return model, run.quantize(model)


def _float_models(run: Run, model: keras.Model) -> dict[str, keras.Model]:
    """The models before quantization, in their order, by name."""
    if not run.setting.config.sparsity:
        return {"float": model}
    before = [record.name for record in run.records if record.name in ("head", "fine-tuning")]
    return {**({"float": run.load(before[-1])} if before else {}), "pruned": model}

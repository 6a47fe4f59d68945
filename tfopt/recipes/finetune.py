"""`finetune`: a folder of images in; a trained, compressed, verified model and a report out."""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, final

import keras

from tfopt import compress, data, distribute
from tfopt.compress import Comparison
from tfopt.recipes import stages
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.findings import write_report
from tfopt.recipes.head import train_head
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run_folder import RunFolder, StageRecord, save_model, write_text
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

    Example:
        >>> result = tfopt.finetune("photos/", weights="imagenet", epochs=8, output="runs/photos")
        >>> print(result.comparison)
    """
    started = time.perf_counter()
    config = dataclasses.replace(config or FinetuneConfig(), **overrides)
    strategy = distribute.make_strategy(config.strategy)
    progress = progress or ConsoleProgress()
    images, config = _load(data, config)
    folder = RunFolder(config.output, _identity(config, images), config.overwrite)
    setting = Setting(config, images, strategy, progress, folder.checkpoints)
    progress.say(
        f"{len(images.class_names)} classes; images: "
        + ", ".join(f"{sum(counts)} {split}" for split, counts in images.class_counts.items())
    )
    run = _Run(folder, setting)
    model, quantized = run.train()
    tflite = run.export(model, quantized)
    comparison = run.verify(model, quantized, tflite)
    report = write_report(folder.path, setting, run.records, model, tflite, comparison, started)
    progress.say(comparison)
    progress.say(f"report {report}\nmodel  {folder.path / 'model.keras'}\nfile   {tflite.path}")
    history = {record.name: record.history for record in run.records}
    return FinetuneResult(model, history, comparison, report, tflite.path, tuple(images.class_names))


class _Run:
    """The stages of one run, each from the saved model of the one before."""

    def __init__(self, folder: RunFolder, setting: Setting) -> None:
        self.folder, self.setting = folder, setting
        self.records: list[StageRecord] = []

    def train(self) -> tuple[keras.Model, keras.Model | None]:
        """The float model, and the one trained with quantization if there is to be an int8 file."""
        setting, config = self.setting, self.setting.config

        def start() -> keras.Model:
            with setting.strategy.scope():
                return config.build_model(setting.classes)

        make = start
        if config.pretrained:
            make = self._stage("head", make, train_head)
        if config.epochs:
            make = self._stage("fine-tuning", make, stages.train_all)
        if config.sparsity:
            make = self._stage("pruning", make, stages.prune)
        model = make()
        model.trainable = True
        save_model(model, self.folder.path / "model.keras", setting.images.class_names)
        if config.quantization != "int8":
            return model, None
        return model, self._stage("quantization", lambda: self._quantized(model), stages.quantize)()

    def _quantized(self, model: keras.Model) -> keras.Model:
        with self.setting.strategy.scope():
            return compress.quantize_aware(model)

    def _stage(
        self, name: str, make: Callable[[], keras.Model], train: Callable[..., dict[str, list[float]]]
    ) -> Callable[[], keras.Model]:
        """Runs a stage unless it is finished; returns how to get its model.

        Every stage starts from a file and a seed of its own, so that a run that goes on after an
        interruption computes what an uninterrupted one does.
        """
        record = self.folder.finished(name)
        if record is None:
            keras.utils.set_random_seed(self.setting.config.seed)
            model, begun = make(), time.perf_counter()
            try:
                history = train(model, self.setting)
            except KeyboardInterrupt:
                save_model(model, self.folder.path / "model.keras", self.setting.images.class_names)
                raise
            record = StageRecord(name, history, time.perf_counter() - begun)
            self.folder.finish(record, model)
        else:
            self.setting.progress.say(f"{name}: finished before")
        self.records.append(record)
        path = self.folder.model_path(name)

        def load() -> keras.Model:
            with self.setting.strategy.scope():
                return keras.models.load_model(path, compile=False)

        return load

    def export(self, model: keras.Model, quantized: keras.Model | None) -> compress.TFLiteModel:
        """Writes and checks the file."""
        quantization = self.setting.config.quantization
        with self.setting.progress.bar("exporting", 1) as bar:
            file = compress.export(
                quantized or model,
                self.folder.path / "model.tflite",
                quantization,
                representative_data=self.setting.plain("train").map(lambda images, labels: images),
                class_names=self.setting.images.class_names,
            )
            bar.advance()
        return file

    def verify(
        self, model: keras.Model, quantized: keras.Model | None, file: compress.TFLiteModel
    ) -> Comparison:
        """Measures every step on the test split, from the saved models and the exported file."""
        subjects: dict[str, Any] = {}
        if self.setting.config.sparsity:
            before = "fine-tuning" if self.folder.finished("fine-tuning") else "head"
            if self.folder.finished(before):
                subjects["float"] = keras.models.load_model(self.folder.model_path(before), compile=False)
            subjects["pruned"] = model
        else:
            subjects["float"] = model
        if quantized is not None:
            subjects["int8 (Keras)"] = quantized
        subjects[f"{self.setting.config.quantization or 'float'} file"] = file
        with self.setting.progress.bar("verifying", 1) as bar:
            comparison = compress.compare(subjects, self.setting.plain("test"))
            bar.advance()
        write_text(self.folder.path / "comparison.json", comparison.to_json())
        return comparison


def _load(source: Any, config: FinetuneConfig) -> tuple[data.ImageDataset, FinetuneConfig]:
    """The images at the model's size, and the options with nothing left open."""
    images = source
    if not isinstance(source, data.ImageDataset):
        images = data.load(source, seed=config.seed, on_bad_image=config.on_bad_image)
    height, width = images.train.element_spec[0].shape[:2]
    config = config.resolved(None if height is None else (height, width))
    for split in ("validation", "test"):
        if getattr(images, split) is None:
            raise ValueError(f"`data` must have a {split} split to choose and to verify the model by.")
    return images.resized(config.image_size), config


def _identity(config: FinetuneConfig, images: data.ImageDataset) -> dict[str, Any]:
    """What makes two runs the same run; where the results go does not."""
    options = {name: value for name, value in config.to_dict().items() if name not in ("output", "overwrite")}
    packages = {name: version(name) for name in ("tfopt", "tensorflow", "keras")}
    return {**options, **packages, "classes": images.class_names, "counts": images.class_counts}

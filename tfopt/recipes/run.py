"""A run of stages, each from the saved model of the one before, and what ends it: export and measurement."""

import hashlib
import pathlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from tfopt import compress, data
from tfopt._files import write_text
from tfopt._keras_internals import leaf_layers
from tfopt.recipes import stages
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.recipes.run_folder import RunFolder, StageRecord, save_model
from tfopt.recipes.setting import Setting


class Run:
    """Runs the stages that are not finished yet.

    Args:
        folder: Where models and records are kept.
        setting: What every stage needs.
    """

    def __init__(self, folder: RunFolder, setting: Setting) -> None:
        self.folder, self.setting = folder, setting
        self.records: list[StageRecord] = []

    def stage(
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
                if name != "quantization":  # whose float model is kept already
                    self.keep(model)
                raise
            record = StageRecord(name, history, time.perf_counter() - begun)
            self.folder.finish(record, model)
        else:
            self.setting.progress.say(f"{name}: finished before")
        self.records.append(record)
        return lambda: self.load(name)

    def load(self, name: str) -> keras.Model:
        """The model of a finished stage."""
        with self.setting.strategy.scope():
            return keras.models.load_model(self.folder.model_path(name), compile=False)

    def keep(self, model: keras.Model) -> None:
        """Saves the float model that the user gets, with every layer trainable."""
        layers = leaf_layers(model)
        flags = [layer.trainable for layer in layers]
        stages.unfreeze(model)
        save_model(model, self.folder.writing("model.keras"), self.setting.images.class_names)
        for layer, flag in zip(layers, flags):
            layer.trainable = flag

    def quantize(self, model: keras.Model, preserve: str | None = None) -> keras.Model | None:
        """The model trained with quantization, if there is to be an int8 file."""
        if self.setting.config.quantization != "int8":
            return None

        def make() -> keras.Model:
            with self.setting.strategy.scope():
                return compress.quantize_aware(model, preserve, input_range=(0, 255))

        return self.stage("quantization", make, partial(stages.quantize, model))()

    def export(self, model: keras.Model, quantized: keras.Model | None) -> compress.TFLiteModel:
        """Writes and checks the file."""
        with self.setting.progress.bar("exporting", 1) as bar:
            file = compress.export(
                quantized or model,
                self.folder.writing("model.tflite"),
                self.setting.config.quantization,
                representative_data=self.setting.sample().map(lambda images, labels: images),
                class_names=self.setting.images.class_names,
            )
            bar.advance()
        return file

    def compare(
        self, subjects: dict[str, Any], quantized: keras.Model | None, file: compress.TFLiteModel
    ) -> compress.Comparison:
        """Measures models, the quantized one and the file on the test split."""
        subjects = dict(subjects)
        if quantized is not None:
            subjects["int8 (Keras)"] = quantized
        subjects[f"{self.setting.config.quantization or 'float'} file"] = file
        with self.setting.progress.bar("verifying", 1) as bar:
            comparison = compress.compare(subjects, self.setting.plain("test"))
            bar.advance()
        write_text(self.folder.writing("comparison.json"), comparison.to_json())
        return comparison


def open_images(source: Any, config: FinetuneConfig) -> data.ImageDataset:
    """The images as they are stored, which the recipes can work with.

    Raises:
        ValueError: If the task is not classification, or a split is missing.
    """
    images = source
    if not isinstance(source, data.ImageDataset):
        images = data.load(source, seed=config.seed, on_bad_image=config.on_bad_image)
    if images.task != "classification":
        raise ValueError(
            f"`data` must have one class per image. Received: labels for {images.task}. Train a model of "
            "`tfopt.models.image_model` on `tfopt.data.pipeline` of it with Keras's `fit`; if its numbers "
            "are classes, load it with tfopt.data.load(..., task='classification')."
        )
    for split in ("validation", "test"):
        if getattr(images, split) is None:
            raise ValueError(f"`data` must have a {split} split to choose and to verify the model by.")
    return images


def load_images(source: Any, config: FinetuneConfig) -> tuple[data.ImageDataset, ResolvedConfig]:
    """The images at the model's size, and the options with nothing left open."""
    images = open_images(source, config)
    height, width = images.train.element_spec[0].shape[:2]
    resolved = config.resolved(None if height is None else (height, width))
    return images.resized(resolved.image_size), resolved


def counts_text(images: data.ImageDataset) -> str:
    """How many images of how many classes."""
    counts = ", ".join(f"{sum(counts)} {split}" for split, counts in images.class_counts.items())
    return f"{len(images.class_names)} classes; images: {counts}"


def source_of(source: Any) -> Any:
    """What the images were loaded from, as it was given."""
    return getattr(source, "source", None) if isinstance(source, data.ImageDataset) else source


def identity(
    options: dict[str, Any], images: data.ImageDataset, models: Sequence[Any] = ()
) -> dict[str, Any]:
    """What makes two runs the same run; where the results go does not.

    The images and the models themselves count, not only their names: other images of the same number, or
    another model under the same path, are another run.

    Args:
        options: The options of the run.
        images: As they are stored, before they are resized.
        models: Files and Keras models that the run begins with.
    """
    options = {name: value for name, value in options.items() if name not in ("output", "overwrite")}
    packages = {name: version(name) for name in ("tfopt", "tensorflow", "keras")}
    return {
        **options,
        **packages,
        "classes": images.class_names,
        "counts": images.class_counts,
        "images": images.fingerprint(),
        "content of the model": [_content(model) for model in models],
    }


def _content(model: Any) -> str:
    """A hash of the bytes of a file, or of the weights of a model."""
    digest = hashlib.sha256()
    if isinstance(model, keras.Model):
        for weight in model.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    else:
        digest.update(pathlib.Path(model).read_bytes())
    return digest.hexdigest()

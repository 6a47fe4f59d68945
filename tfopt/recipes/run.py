"""A run of stages, each from the saved model of the one before, and what ends it: export and measurement."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfopt import compress
from tfopt._files import write_text
from tfopt._keras_internals import leaf_layers
from tfopt.recipes.run_folder import RunFolder, StageRecord, save_model, store_task
from tfopt.recipes.session import Session
from tfopt.recipes.stages import Quantization, Stage
from tfopt.recipes.stages.fine_tuning import unfreeze


class Run:
    """Runs the stages that are not finished yet.

    Args:
        folder: Where models and records are kept.
        session: What every stage needs.
    """

    def __init__(self, folder: RunFolder, session: Session) -> None:
        self.folder, self.session = folder, session.in_folder(folder.checkpoints, folder.logs)
        self.records: list[StageRecord] = []
        self.results: dict[str, str] = {}  # the name of a model in the comparison -> its stage

    def through(self, stages: Sequence[Stage], start: Callable[[], keras.Model]) -> keras.Model:
        """The model after all stages.

        Args:
            stages: In their order.
            start: Gives the model that the first stage takes.
        """
        for stage in stages:
            start = self.stage(stage, start)
        return start()

    def stage(self, stage: Stage, make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        """Runs a stage unless it is finished; returns how to get its model.

        Every stage starts from a file and a seed of its own, so that a run that goes on after an
        interruption computes what an uninterrupted one does.
        """
        record = self.folder.finished(stage.name)
        if record is None:
            keras.utils.set_random_seed(self.session.config.seed)
            model, begun = stage.start(make(), self.session), time.perf_counter()
            try:
                history = stage.train(model, self.session)
            except KeyboardInterrupt:
                if stage.delivers:
                    self.keep(model)
                raise
            self.session.workers.synchronize(model)  # and none is behind, whose checkpoints `finish` deletes
            record = StageRecord(stage.name, history, time.perf_counter() - begun)
            self.folder.finish(record, model)
        else:
            self.session.progress.say(f"{stage.name}: finished before")
        if stage.learns_validation(self.session):
            self.session = dataclasses.replace(self.session, learned_validation=True)
        self.records.append(record)
        self.results[stage.result] = stage.name
        return lambda: self.load(stage.name)

    def load(self, name: str) -> keras.Model:
        """The model of a finished stage."""
        with self.session.home.scope():
            return keras.models.load_model(self.folder.model_path(name), compile=False)

    def keep(self, model: keras.Model) -> None:
        """Saves the float model that the user gets, with every layer trainable."""
        layers, task = leaf_layers(model), self.session.task
        flags = [layer.trainable for layer in layers]
        unfreeze(model)
        save_model(model, self.folder.writing("model.keras"), task.names, task)
        for layer, flag in zip(layers, flags):
            layer.trainable = flag

    def quantize(self, stage: Quantization) -> keras.Model | None:
        """The model trained with quantization, if there is to be an int8 file."""
        if self.session.config.quantization != "int8":
            return None
        return self.stage(stage, lambda: stage.teacher)()

    def delivered(self, deliver: Callable[[], compress.Comparison]) -> compress.Comparison:
        """What the chief alone exports, measures and reports, while the others wait for its result."""
        found: list[compress.Comparison] = []

        def work() -> str:
            found.append(deliver())
            return found[0].to_json()

        text = self.session.workers.alone(work)
        return found[0] if found else compress.Comparison.from_json(text)

    def export(self, model: keras.Model, quantized: keras.Model | None) -> compress.TFLiteModel:
        """Writes and checks the file."""
        with self.session.progress.bar("exporting", 1) as bar:
            file = compress.export(
                quantized or model,
                self.folder.writing("model.tflite"),
                self.session.config.quantization,
                representative_data=self.session.sample().map(lambda images, *_: images),
                class_names=self.session.task.names,
            )
            store_task(file.path, self.session.task)
            bar.advance()
        return compress.TFLiteModel(file.path)

    def compare(
        self, subjects: dict[str, Any], quantized: keras.Model | None, file: compress.TFLiteModel
    ) -> compress.Comparison:
        """Measures models, the quantized one and the file on the test split, beside the file in float.

        Sizes and times can only be compared between files, so there is one of the last float model as well.
        """
        subjects, last = dict(subjects), list(subjects.values())[-1]
        if quantized is not None:
            subjects[Quantization.result] = quantized
        if self.session.config.quantization is not None:
            subjects["float file"] = compress.export(last, self.folder.writing("float.tflite"))
        subjects[f"{self.session.config.quantization or 'float'} file"] = file
        with self.session.progress.bar("verifying", 1) as bar:
            comparison = compress.compare(
                subjects,
                self.session.plain("test"),
                task=self.session.task.compared_as,
                class_names=self.session.task.names,
            )
            bar.advance()
        write_text(self.folder.writing("comparison.json"), comparison.to_json())
        return comparison

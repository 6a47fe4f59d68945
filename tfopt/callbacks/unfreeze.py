"""Lets more and more of a model train while the run goes on."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import keras

from tfopt import _keras_internals
from tfopt._checks import check_instance, check_integer, check_number, message
from tfopt._optimizers_in_use import optimizers_in_use
from tfopt.callbacks._state import KerasCallback

_LOG = logging.getLogger(__name__)


class Unfreeze(KerasCallback):
    """Trains the top of a pretrained model first, and lower layers from later epochs on.

    Use it for fine-tuning: a random head sends large gradients, which would spoil what the layers below
    know. With rates that fall towards the bottom (`tfopt.optimizers.discriminative`) it is often not
    needed. What trains follows from the epoch alone, so `initial_epoch`, a second `fit` and `Resume` go
    on rightly; each stage traces the training step once more.

    The optimizer is built once, on all that will ever train, so no stage loses its state. `prepare` does
    that; `fit` calls it, but call it yourself before with `Resume`, which builds the optimizer otherwise.
    Adam's bias correction counts from the beginning of the run: a layer that joins late takes steps up to
    6 times as large for some 100 updates. Give it a lower rate, or use RAdam, Lion or SGD.

    Args:
        stages: {epoch: what trains from then on, besides what did before}. What is a share of the
            layers with weights, counted from the top, in (0, 1], or a regular expression that is
            searched for in the paths of their variables and, if none has it, in the names of the models
            and blocks inside: "encoder" trains all layers of the model of that name. The first key is 0.
        train_batch_norm: Whether batch normalization trains with its stage. False keeps statistics,
            scale and offset of all its layers: a small data set knows them worse than the pretrained
            model does.

    Raises:
        ValueError: When training begins, if a pattern matches nothing, or if the optimizer was built
            before on fewer variables.

    Example:
        >>> model = tfopt.models.mobilenet("mobilenet", classes=3, image_size=32, alpha=0.25)
        >>> model.compile(tfopt.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy")
        >>> unfreeze = tfopt.callbacks.Unfreeze({0: "logits|head|predictions", 1: 0.3, 2: 1.0})
        >>> unfreeze.prepare(model)
        >>> len(model.trainable_variables)
        2

    References:
        Howard and Ruder, "Universal Language Model Fine-tuning" (gradual unfreezing), 2018,
        arXiv:1801.06146.
    """

    def __init__(self, stages: Mapping[int, float | str], *, train_batch_norm: bool = False) -> None:
        super().__init__()
        check_instance("stages", stages, Mapping)
        for epoch, what in stages.items():
            check_integer("epoch", epoch, minimum=0)
            if not isinstance(what, str):
                check_number(f"stages[{epoch}]", what, minimum=0.0, maximum=1.0, open_minimum=True)
        if 0 not in stages:
            raise ValueError(message("stages", "a mapping that says what trains from epoch 0 on", stages))
        self.stages = dict(sorted(stages.items()))
        self.train_batch_norm = bool(train_batch_norm)

    def prepare(self, model: keras.Model) -> None:
        """Builds the optimizer on all that will ever train, then lets train what the first epoch trains.

        Args:
            model: A built and compiled model.
        """
        self._let_train(model, max(self.stages))
        _keras_internals.build_for_training(model, None)
        in_use = optimizers_in_use(model)
        if not _keras_internals.know(list(in_use.values()), model.trainable_variables):
            raise ValueError(
                f"The optimizers {sorted(in_use)} were built on fewer variables than `Unfreeze` will train. "
                "Call `Unfreeze.prepare(model)` after `compile` and before anything else builds them."
            )
        self._let_train(model, 0)

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepares the model."""
        self.prepare(self.model)
        self._trains: frozenset[int] | None = None  # what the training step was last made for

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Changes what trains, and has the training step traced again if that is new."""
        trains = self._let_train(self.model, epoch)
        if trains != self._trains:
            self._trains = trains
            self.model.make_train_function(force=True)
            _LOG.info("Unfreeze: %d variables train from epoch %d on.", len(trains), epoch)

    def _let_train(self, model: keras.Model, epoch: int) -> frozenset[int]:
        """Sets the flags of all layers; returns which variables train."""
        layers = [layer for layer in _keras_internals.leaf_layers(model) if layer.weights]
        chosen = [self._choose(model, layers, what) for first, what in self.stages.items() if first <= epoch]
        active = {id(layer) for part in chosen for layer in part}
        model.trainable = True  # a frozen part would hide what is said of the layers inside
        for layer in layers:
            frozen = isinstance(layer, keras.layers.BatchNormalization) and not self.train_batch_norm
            layer.trainable = id(layer) in active and not frozen
        return frozenset(id(variable) for variable in model.trainable_variables)

    @staticmethod
    def _choose(model: keras.Model, layers: list[keras.Layer], what: float | str) -> list[keras.Layer]:
        if not isinstance(what, str):
            return layers[len(layers) - max(1, round(what * len(layers))) :]
        found = [layer for layer in layers if any(re.search(what, v.path) for v in layer.weights)]
        if found:
            return found
        known = {id(layer) for layer in layers}
        parts = [part for part in _keras_internals.every_layer(model)[1:] if id(part) not in known]
        inside = [_keras_internals.leaf_layers(part) for part in parts if re.search(what, part.name)]
        within = {id(layer) for leaves in inside for layer in leaves}
        found = [layer for layer in layers if id(layer) in within]
        if not found:
            paths = [layer.path for layer in layers]
            names = [part.name for part in parts if _keras_internals.sublayers(part)]
            fix = f"Layers: {paths}. Models and blocks: {names}."
            raise ValueError(message("stages", "patterns that match a variable or a part", what, fix))
        return found

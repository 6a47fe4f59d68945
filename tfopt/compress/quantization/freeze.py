"""Late in quantization-aware training nothing should move but the weights."""

from typing import Any, final

import keras

from tfopt._checks import check_instance, check_integer, message
from tfopt._keras_internals import leaf_layers
from tfopt.callbacks._state import KerasCallback
from tfopt.compress.quantization.layers import FakeQuantize


@final
class FreezeStatistics(KerasCallback):
    """Stops the ranges of activations and batch normalization from an epoch of `fit` on.

    Use it in longer quantization-aware training with `quantize_aware(freeze_batch_norm=False)`: the last
    epochs then train exactly what the int8 file will compute. In an epoch or two of fine-tuning it is not
    needed. After `fit` the layers are as trainable as before.

    Cost: the training step is traced once more.

    Args:
        epoch: First epoch without movement, from 0 on; ranges must have seen data by then.
        batch_norm: Whether batch normalization stops too: its statistics, scales and shifts.

    Raises:
        ValueError: A negative epoch; in `fit`, a model without ranges or with ranges that saw no data.

    Example:
        >>> quantized.fit(train, epochs=5, callbacks=[tfopt.compress.FreezeStatistics(epoch=3)])

    References:
        Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342
    """

    def __init__(self, epoch: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.epoch = check_integer("epoch", epoch, minimum=0)
        self.batch_norm = bool(check_instance("batch_norm", batch_norm, bool))
        self._frozen: list[keras.Layer] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks for what there is to freeze."""
        if not any(isinstance(layer, FakeQuantize) for layer in leaf_layers(self.model)):
            raise ValueError(message("model", "one from `quantize_aware`", self.model.name))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Freezes when it is time."""
        if epoch < self.epoch or self._frozen:
            return
        layers = leaf_layers(self.model)
        unset = [layer.name for layer in layers if isinstance(layer, FakeQuantize) and not layer.calibrated]
        if unset:
            raise ValueError(message("epoch", f"later: ranges have seen no data: {unset[:3]}", self.epoch))
        kinds = (FakeQuantize, *[keras.layers.BatchNormalization] * self.batch_norm)
        self._frozen = [layer for layer in layers if isinstance(layer, kinds) and layer.trainable]
        self._set_trainable(False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the layers trainable again."""
        self._set_trainable(True)
        self._frozen = []

    def _set_trainable(self, trainable: bool) -> None:
        for layer in self._frozen:
            layer.trainable = trainable
        if self._frozen:
            self.model.make_train_function(force=True)  # whether a layer trains is decided at tracing

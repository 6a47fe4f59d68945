"""ChannelSparsity: training that shows which channels are not needed."""

from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np

from tfopt._checks import check_number
from tfopt._keras_internals import leaf_layers
from tfopt.callbacks._state import KerasCallback

SMALL = 1e-2  # a batch-norm scale below this is counted as gone


@final
class ChannelSparsity(KerasCallback):
    """Pulls batch-norm scales towards zero while the model trains, so that `slim` finds channels to remove.

    Use it in the last training before `slim(criterion="bn_scale", scope="global")`. Without it, scales say
    little about how much a channel matters.

        loss <- loss + strength * sum |gamma|    over all trainable batch normalizations

    The penalty is in the loss that `fit` shows, and is gone when `fit` ends. The logs get
    `channel_sparsity`, the share of scales below 0.01.

    Args:
        strength: Weight of the penalty, > 0; 1e-4 for a network of some thousand channels. Too much of it
            costs accuracy, too little moves nothing.

    Raises:
        ValueError: A strength that is not positive; in `fit`, a model without trainable batch-norm scales.

    Example:
        >>> model.fit(train, epochs=20, callbacks=[tfopt.compress.ChannelSparsity(1e-4)])
        >>> small = tfopt.compress.slim(model, keep=0.5, scope="global")

    References:
        Liu et al.: Learning Efficient Convolutional Networks through Network Slimming. arXiv:1708.06519
    """

    def __init__(self, strength: float = 1e-4) -> None:
        super().__init__()
        self.strength = check_number("strength", strength, minimum=0.0, open_minimum=True)
        self._scales: list[keras.Variable] = []
        self._before: list[Any] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Adds the penalty to the loss."""
        self._restore()  # after a `fit` that was interrupted
        norms = [x for x in leaf_layers(self.model) if isinstance(x, keras.layers.BatchNormalization)]
        self._scales = [norm.gamma for norm in norms if norm.scale and norm.gamma.trainable]
        if not self._scales:
            raise ValueError("`ChannelSparsity` needs a model with trainable batch-norm scales. It has none.")
        self._before = [scale.regularizer for scale in self._scales]
        for scale, before in zip(self._scales, self._before):
            scale.regularizer = _with_penalty(before, self.strength)
        self.model.make_train_function(force=True)  # a function traced earlier knows no penalty

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the share of small scales to the logs."""
        if logs is not None:
            values = np.concatenate([np.abs(np.asarray(scale)) for scale in self._scales])
            logs["channel_sparsity"] = float(np.mean(values < SMALL))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the penalty away."""
        self._restore()
        self.model.make_train_function(force=True)

    def _restore(self) -> None:
        for scale, before in zip(self._scales, self._before):
            scale.regularizer = before
        self._scales, self._before = [], []


class _Penalized(keras.regularizers.Regularizer):
    """A regularizer and an L1 penalty: Keras 3.16 takes no plain functions here."""

    def __init__(self, before: Callable, penalty: keras.regularizers.L1) -> None:
        self.before, self.penalty = before, penalty

    def __call__(self, x: Any) -> Any:
        return self.before(x) + self.penalty(x)


def _with_penalty(before: Callable | None, strength: float) -> Callable:
    penalty = keras.regularizers.L1(strength)
    return penalty if before is None else _Penalized(before, penalty)

"""Logit-adjusted cross-entropy."""

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_number
from tfopt.losses._categorical import CategoricalLoss
from tfopt.losses.counts import check_classes, check_counts


@final
@keras.saving.register_keras_serializable(package="tfopt")
class LogitAdjusted(CategoricalLoss):
    """Cross-entropy that is consistent for the balanced error: the mean of the recalls of the classes.

    The first choice for long-tailed data. The model learns p(x | y) up to a constant, so predictions
    need no correction; accuracy on data as imbalanced as training falls in exchange.

    Update: loss = cross-entropy(y, softmax(logits + tau * log prior)), prior_c = n_c / sum n

    Args:
        counts: Training examples of each class, each >= 1.
        tau: Strength, >= 0; 0 is cross-entropy, 1 the consistent choice.
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: In [0, 1).
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.

    Example:
        >>> loss = tfopt.losses.LogitAdjusted(data.class_counts["train"], from_logits=True)

    References:
        Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-tail learning via logit adjustment,
        arXiv:2007.07314.
    """

    def __init__(
        self,
        counts: Sequence[int],
        tau: float = 1.0,
        *,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str = "logit_adjusted",
    ) -> None:
        super().__init__(from_logits, label_smoothing, reduction, name)
        self.counts = check_counts(counts)
        self.tau = check_number("tau", tau, minimum=0)
        self.adjustment = (self.tau * np.log(self.counts / self.counts.sum())).astype(np.float32)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Loss of each example."""
        check_classes(y_pred, "counts", self.counts)
        adjusted = tf.nn.log_softmax(self.log_probabilities(y_pred) + self.adjustment)
        return -tf.reduce_sum(self.distribution(y_true, adjusted) * adjusted, -1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"counts": self.counts.tolist(), "tau": self.tau, **super().get_config()}

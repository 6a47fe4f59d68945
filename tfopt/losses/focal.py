"""Focal loss."""

from collections.abc import Sequence
from typing import Any, final

import keras
import tensorflow as tf

from tfopt._checks import check_number
from tfopt.losses._categorical import CategoricalLoss
from tfopt.losses.counts import check_classes, check_weights


@final
@keras.saving.register_keras_serializable(package="tfopt")
class Focal(CategoricalLoss):
    """Cross-entropy that turns its attention to examples that are still wrong.

    Use it where many easy examples drown few hard ones. It is no remedy for noisy labels, which stay
    hard for ever, nor by itself for rare classes: see `LogitAdjusted`.

    Update: loss = -sum_c alpha_c y_c (1 - p_c)^gamma log p_c

    Args:
        gamma: How strongly well-classified examples are played down, >= 0; 0 is cross-entropy.
        alpha: Weight of each class, each > 0; None weighs all the same.
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: In [0, 1).
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.

    Example:
        >>> model.compile(optimizer, tfopt.losses.Focal(gamma=2.0, from_logits=True))

    Differs from `keras.losses.CategoricalFocalCrossentropy`: labels may be integers or soft, and classes
    are weighted only if asked for (Keras multiplies everything by 0.25).

    References:
        Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, arXiv:1708.02002.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Sequence[float] | None = None,
        *,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str = "focal",
    ) -> None:
        super().__init__(from_logits, label_smoothing, reduction, name)
        self.gamma = check_number("gamma", gamma, minimum=0)
        self.alpha = None if alpha is None else check_weights("alpha", alpha)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Loss of each example."""
        check_classes(y_pred, "alpha", self.alpha)
        log_p = self.log_probabilities(y_pred)
        y = self.distribution(y_true, log_p)
        # 1 - p without cancellation where p is near 1, so that the gradient of the power is finite.
        wrong = tf.maximum(-tf.math.expm1(log_p), keras.config.epsilon())
        terms = y * tf.pow(wrong, self.gamma) * log_p
        return -tf.reduce_sum(terms if self.alpha is None else terms * self.alpha, -1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"gamma": self.gamma, "alpha": self.alpha, **super().get_config()}

"""Focal loss."""

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_number
from tfopt.losses._categorical import CategoricalLoss, focus
from tfopt.losses.counts import check_weights


@final
@keras.saving.register_keras_serializable(package="tfopt")
class Focal(CategoricalLoss):
    """Cross-entropy that turns its attention to examples that are still wrong.

    Use it where many easy examples drown few hard ones. It is no remedy for noisy labels, which stay
    hard for ever, nor by itself for rare classes: see `LogitAdjusted`.

    Update: loss = -sum_c alpha_c y_c (1 - p_c)^gamma log p_c

    The outputs may be a softmax over classes, one sigmoid (two classes: 1 - p and p), or with `multi_label`
    one sigmoid for each label, whose losses are averaged; all of these also for each pixel. Labels are class
    numbers, shares of the classes, or 0 and 1.

    Args:
        gamma: How strongly well-classified examples are played down, >= 0; 0 is cross-entropy.
        alpha: Weight of each class, each > 0; of the labels 0 and 1 for one sigmoid; of each label with
            `multi_label`. None weighs all the same.
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: In [0, 1).
        multi_label: Whether the outputs are independent sigmoids, of which several may be true.
        ignore_class: Integer label of places that do not count, as in Keras; None is none.
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.

    Raises:
        ValueError: If labels, predictions and `alpha` do not fit together.
        tf.errors.InvalidArgumentError: For labels out of range (NaN where XLA compiles).

    Example:
        >>> model.compile(optimizer, tfopt.losses.Focal(gamma=2.0, from_logits=True))

    Differs from `keras.losses.CategoricalFocalCrossentropy` and `BinaryFocalCrossentropy`: one class for all
    outputs, labels may be integers or soft, and classes are weighted only if asked for (Keras multiplies
    the first by 0.25).

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
        multi_label: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "focal",
    ) -> None:
        super().__init__(from_logits, label_smoothing, multi_label, ignore_class, reduction, name)
        self.gamma = check_number("gamma", gamma, minimum=0)
        self.alpha = None if alpha is None else check_weights("alpha", alpha)

    def terms(self, y: tf.Tensor, log_p: tf.Tensor) -> tf.Tensor:
        """The loss of every class."""
        terms = -y * focus(log_p, self.gamma) * log_p
        return (
            terms
            if self.alpha is None
            else terms * self.per_class("alpha", np.array(self.alpha, np.float32), terms)
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"gamma": self.gamma, "alpha": self.alpha, **super().get_config()}

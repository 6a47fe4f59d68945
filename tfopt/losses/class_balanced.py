"""Class-balanced cross-entropy."""

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_number
from tfopt.losses._categorical import CategoricalLoss, focus
from tfopt.losses.counts import check_counts


@final
@keras.saving.register_keras_serializable(package="tfopt")
class ClassBalanced(CategoricalLoss):
    """Cross-entropy whose classes are weighted by the inverse of their effective number of examples.

    Use it for imbalance where rare classes are not tiny. It weighs by the label, so soft labels (MixUp,
    smoothing) get the mean weight of what they are made of.

    Update: loss = -sum_c w_c y_c log p_c (times (1 - p_c)^gamma), w_c ~ (1 - beta) / (1 - beta^n_c),
    with mean 1. The outputs may be those of `Focal`.

    Args:
        counts: Training examples of each class, each >= 1; of the labels 0 and 1 for one sigmoid; with each
            label for `multi_label`.
        beta: In [0, 1): 0 weighs all classes the same, towards 1 by the inverse frequency.
        gamma: Focusing as in `Focal`, >= 0; 0 is none.
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: In [0, 1).
        multi_label: Whether the outputs are independent sigmoids, of which several may be true.
        ignore_class: Integer label of places that do not count, as in Keras; None is none.
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.

    Raises:
        ValueError: If labels, predictions and `counts` do not fit together.
        tf.errors.InvalidArgumentError: For labels out of range (NaN where XLA compiles).

    Example:
        >>> loss = tfopt.losses.ClassBalanced(data.class_counts["train"], from_logits=True)

    References:
        Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective Number of Samples,
        arXiv:1901.05555.
    """

    def __init__(
        self,
        counts: Sequence[int],
        beta: float = 0.999,
        gamma: float = 0.0,
        *,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        multi_label: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "class_balanced",
    ) -> None:
        super().__init__(from_logits, label_smoothing, multi_label, ignore_class, reduction, name)
        self.counts = check_counts(counts)
        self.beta = check_number("beta", beta, minimum=0, maximum=1, open_maximum=True)
        self.gamma = check_number("gamma", gamma, minimum=0)
        weights = 1 / (1 - np.power(self.beta, self.counts))
        self.weights = (weights / weights.mean()).astype(np.float32)

    def terms(self, y: tf.Tensor, log_p: tf.Tensor) -> tf.Tensor:
        """The loss of every class."""
        terms = -y * log_p
        terms *= self.per_class("counts", self.weights, terms)
        return terms * focus(log_p, self.gamma) if self.gamma else terms

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"counts": self.counts.tolist(), "beta": self.beta, "gamma": self.gamma}
        return {**own, **super().get_config()}

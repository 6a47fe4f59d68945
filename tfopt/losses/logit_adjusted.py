"""Logit-adjusted cross-entropy."""

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_integer, check_number, message
from tfopt.losses._categorical import CategoricalLoss
from tfopt.losses.counts import check_counts


@final
@keras.saving.register_keras_serializable(package="tfopt")
class LogitAdjusted(CategoricalLoss):
    """Cross-entropy that is consistent for the balanced error: the mean of the recalls of the classes.

    The first choice for long-tailed data. The model learns p(x | y) up to a constant, so predictions
    need no correction; accuracy on data as imbalanced as training falls in exchange.

    Update: loss = cross-entropy(y, softmax(logits + tau * log prior)), prior_c = n_c / sum n

    The outputs may be those of `Focal`. A sigmoid has the two classes absent and present.

    Args:
        counts: Training examples of each class, each >= 1; of the labels 0 and 1 for one sigmoid; with each
            label for `multi_label`.
        tau: Strength, >= 0; 0 is cross-entropy, 1 the consistent choice.
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: In [0, 1).
        multi_label: Whether the outputs are independent sigmoids, of which several may be true.
        examples: Number of all training examples; for `multi_label`, where an example counts several times.
        ignore_class: Integer label of places that do not count, as in Keras; None is none.
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.

    Raises:
        ValueError: If labels, predictions and `counts` do not fit together.
        tf.errors.InvalidArgumentError: For labels out of range (NaN where XLA compiles).

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
        multi_label: bool = False,
        examples: int | None = None,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "logit_adjusted",
    ) -> None:
        super().__init__(from_logits, label_smoothing, multi_label, ignore_class, reduction, name)
        self.counts = check_counts(counts)
        self.tau = check_number("tau", tau, minimum=0)
        if multi_label != (examples is not None):
            expected = "the number of training examples with `multi_label`, and None without"
            raise ValueError(message("examples", expected, examples))
        if examples is not None:
            least = int(self.counts.max()) + 1
            check_integer("examples", examples, minimum=least, fix="Every label must be absent somewhere.")
        self.examples = examples
        total = self.counts.sum() if examples is None else examples
        self._log_prior = np.log(self.counts / total).astype(np.float32)

    def terms(self, y: tf.Tensor, log_p: tf.Tensor) -> tf.Tensor:
        """The loss of every class."""
        log_prior = self.per_class("counts", self._log_prior, log_p)
        if self.multi_label:
            log_prior = np.concatenate([np.log(-np.expm1(log_prior)), log_prior], -1)
        return -y * tf.nn.log_softmax(log_p + np.float32(self.tau) * log_prior)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"counts": self.counts.tolist(), "tau": self.tau, "examples": self.examples}
        return {**own, **super().get_config()}

"""What the losses of this package share: labels of every kind, probabilities or logits, in float32.

Every output becomes distributions over exclusive classes, on the last axis:

    softmax over classes            itself
    one sigmoid                     [1 - p, p]
    several labels (sigmoids)       [1 - p, p] for each label, on one axis more
"""

import abc
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_instance, check_integer, check_number, message
from tfopt._keras_internals import set_mask
from tfopt.losses.labels import check_probabilities, distribution


class CategoricalLoss(keras.losses.Loss, abc.ABC):
    """Cross-entropy between labels and a function of the logits.

    Args:
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: Share of each label that is spread over all classes, in [0, 1).
        multi_label: Whether the outputs are independent sigmoids, of which several may be true.
        ignore_class: Integer label of places that do not count; None is none.
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.
    """

    def __init__(
        self,
        from_logits: bool,
        label_smoothing: float,
        multi_label: bool,
        ignore_class: int | None,
        reduction: str,
        name: str,
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.from_logits = check_instance("from_logits", from_logits, bool)
        self.label_smoothing = check_number(
            "label_smoothing", label_smoothing, minimum=0, maximum=1, open_maximum=True
        )
        self.multi_label = check_instance("multi_label", multi_label, bool)
        self.ignore_class = None if ignore_class is None else check_integer("ignore_class", ignore_class)

    @abc.abstractmethod
    def terms(self, y: tf.Tensor, log_p: tf.Tensor) -> tf.Tensor:
        """The loss of every class, from labels and float32 log-probabilities of the same shape.

        With `multi_label` the shape is [..., labels, 2], of absent and present.
        """

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The loss of each example, or each pixel."""
        y_pred = tf.convert_to_tensor(y_pred)
        log_p = self._log_probabilities(y_pred)
        y, valid = distribution(y_true, y_pred.shape, self.multi_label, self.ignore_class)
        y = y * (1 - self.label_smoothing) + self.label_smoothing / y.shape[-1]
        loss = tf.reduce_sum(self.terms(y, log_p), -1)
        if self.multi_label:
            loss = tf.reduce_mean(loss, -1)
        if valid is not None:
            loss = tf.where(valid, loss, tf.zeros_like(loss))
            set_mask(loss, valid)  # the mean is over the places that count
        return loss

    def _log_probabilities(self, y_pred: Any) -> tf.Tensor:
        """float32 log-probabilities of exclusive classes."""
        y_pred = tf.cast(y_pred, tf.float32)
        classes = y_pred.shape[-1]
        if classes is None:
            raise ValueError(message("y_pred", "of a known number of classes", tuple(y_pred.shape)))
        is_pair = self.multi_label or classes == 1
        join = tf.stack if self.multi_label else tf.concat
        if self.from_logits:
            return tf.nn.log_softmax(join([tf.zeros_like(y_pred), y_pred], -1) if is_pair else y_pred)
        y_pred = check_probabilities(y_pred)
        if is_pair:
            y_pred = join([1 - y_pred, y_pred], -1)
        else:
            y_pred /= tf.reduce_sum(y_pred, -1, keepdims=True)
        return tf.math.log(tf.clip_by_value(y_pred, keras.config.epsilon(), 1.0))

    def per_class(self, name: str, given: np.ndarray, terms: tf.Tensor) -> np.ndarray:
        """A number for each class in a shape that multiplies `terms`.

        Raises:
            ValueError: If there are not as many numbers as classes.
        """
        classes = terms.shape[-2] if self.multi_label else terms.shape[-1]
        if len(given) != classes:
            fix = f"The model predicts {classes} classes."
            if classes == 2 and not self.multi_label:
                fix += " One sigmoid is two: the numbers of the labels 0 and 1."
            raise ValueError(message(name, f"{classes} numbers", list(given), fix))
        return given[:, None] if self.multi_label else given

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "multi_label": self.multi_label,
            "ignore_class": self.ignore_class,
            "reduction": self.reduction,
            "name": self.name,
        }


def focus(log_p: tf.Tensor, gamma: float) -> tf.Tensor:
    """(1 - p)^gamma, without cancellation where p is near 1, so that the gradient of the power is finite."""
    return tf.pow(tf.maximum(-tf.math.expm1(log_p), keras.config.epsilon()), gamma)

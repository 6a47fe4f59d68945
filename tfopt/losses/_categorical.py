"""What the losses of this package share: labels of either kind, probabilities or logits, in float32."""

from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import check_instance, check_number


class CategoricalLoss(keras.losses.Loss):
    """Cross-entropy between labels (integers or a distribution) and a function of the logits.

    Args:
        from_logits: Whether predictions are logits; else they are probabilities.
        label_smoothing: Share of each label that is spread over all classes, in [0, 1).
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.
    """

    def __init__(self, from_logits: bool, label_smoothing: float, reduction: str, name: str) -> None:
        super().__init__(name=name, reduction=reduction)
        self.from_logits = check_instance("from_logits", from_logits, bool)
        self.label_smoothing = check_number(
            "label_smoothing", label_smoothing, minimum=0, maximum=1, open_maximum=True
        )

    def log_probabilities(self, y_pred: Any) -> tf.Tensor:
        """float32 log-probabilities [batch, classes]."""
        y_pred = tf.cast(y_pred, tf.float32)
        if self.from_logits:
            return tf.nn.log_softmax(y_pred)
        sums = tf.reduce_sum(y_pred, -1, keepdims=True)
        return tf.math.log(tf.clip_by_value(y_pred / sums, keras.config.epsilon(), 1.0))

    def distribution(self, y_true: Any, log_probabilities: tf.Tensor) -> tf.Tensor:
        """Labels as float32 [batch, classes], smoothed."""
        classes = log_probabilities.shape[-1]
        y_true = tf.convert_to_tensor(y_true)
        if y_true.shape.rank == log_probabilities.shape.rank and y_true.shape[-1] == 1 and classes > 1:
            y_true = tf.squeeze(y_true, -1)
        if y_true.shape.rank < log_probabilities.shape.rank:
            y_true = tf.one_hot(tf.cast(y_true, tf.int32), classes)
        y_true = tf.cast(y_true, tf.float32)
        return y_true * (1 - self.label_smoothing) + self.label_smoothing / classes

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
        return {**config, "reduction": self.reduction, "name": self.name}

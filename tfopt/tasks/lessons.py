"""Losses of tasks that Keras lacks: numbers in units of their deviation, and the answers of a teacher."""

from typing import Any, final

import keras
from keras import ops


@final
@keras.saving.register_keras_serializable(package="tfopt")
class ScaledHuber(keras.losses.Loss):
    """Huber loss of errors in units of each target's deviation.

        e = (y_pred - y_true) / deviation,  loss = mean(e^2 / 2 if |e| <= 1 else |e| - 1/2)

    Args:
        deviation: Of each target, > 0.
        reduction: As in `keras.losses.Loss`.
        name: Of the loss.
    """

    def __init__(
        self,
        deviation: list[float],
        reduction: str = "sum_over_batch_size",
        name: str = "scaled_huber",
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.deviation = list(deviation)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each example."""
        scale = ops.convert_to_tensor(self.deviation, y_pred.dtype)
        size = ops.abs(y_pred - ops.cast(y_true, y_pred.dtype)) / scale
        return ops.mean(ops.where(size <= 1.0, size * size / 2.0, size - 0.5), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"deviation": self.deviation, "reduction": self.reduction, "name": self.name}


@final
class SameOutputs(keras.distillation.DistillationLoss):
    """The outputs of the teacher as labels of a loss.

    Args:
        loss: Takes (labels, outputs), like the losses of Keras.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        self.loss = loss

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """The loss of a batch, a scalar."""
        return self.loss(teacher_outputs, student_outputs)

"""Layers that `quantize_aware` puts where Keras has an operation, or none of the same form."""

from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress.quantization.layers import is_calibrating

# The converter removes a product with exactly 1.
ALMOST_ONE = float(np.nextafter(np.float32(1), np.float32(2)))


@final
@keras.saving.register_keras_serializable(package="tfopt")
class InverseRoot(keras.layers.Layer):
    """1 / sqrt(inputs), for variances that were rounded to int8, some of them to zero.

    In training the smallest variance that is not zero stands for zero, so that the range of the output
    and its
    gradient stay finite. In inference 1 / sqrt(0) is infinite and is cut to that range, as in TFLite.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The inverse root."""
        if not training and not is_calibrating():
            return tf.math.rsqrt(inputs)
        largest = tf.reduce_max(inputs)
        positive = tf.where(inputs > 0, inputs, tf.where(largest > 0, largest, 1.0))
        return tf.math.rsqrt(tf.maximum(inputs, tf.stop_gradient(tf.reduce_min(positive))))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """Same shape and type."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class StayFloat(keras.layers.Layer):
    """Passes its input. The converter computes what is in front of it in float.

    It makes an integer operation of everything between two ranges if it can, also of a layer that was to
    be left
    in float. A detour through double precision is what it does not see through.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The inputs."""
        return tf.cast(tf.cast(inputs, tf.float64), tf.float32)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Same shape, float32."""
        return keras.KerasTensor(inputs.shape, dtype="float32")


@final
@keras.saving.register_keras_serializable(package="tfopt")
class WithWeights(keras.layers.Layer):
    """An operation of which some arguments are weights, such as the positions that a layer adds to its input.

    Args:
        operation: The operation.
        template: Its positional and named arguments: {"tensor": i} for its i-th input, {"weight": i}.
        shapes: Shapes of the weights.
        trainables: For each weight, whether it is trained.
    """

    def __init__(
        self,
        operation: Any,
        template: list,
        shapes: list[list[int]],
        trainables: list[bool],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        restore = keras.saving.deserialize_keras_object
        self.operation = restore(operation) if isinstance(operation, dict) else operation
        self.template, self.shapes, self.trainables = template, shapes, trainables
        self.values = [
            self.add_weight(shape=tuple(shape), trainable=trainable, name=f"value_{place}")
            for place, (shape, trainable) in enumerate(zip(shapes, trainables))
        ]

    def call(self, *inputs: Any) -> Any:
        """The operation on the inputs and the weights."""

        def pick(place: dict[str, int]) -> Any:
            if "tensor" in place:
                return inputs[place["tensor"]]
            return tf.convert_to_tensor(self.values[place["weight"]])

        args, kwargs = _filled(self.template, pick)
        return self.operation(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "operation": keras.saving.serialize_keras_object(self.operation),
            "template": self.template,
            "shapes": self.shapes,
            "trainables": self.trainables,
        }


def _filled(part: Any, pick: Any) -> Any:
    """The arguments of a template, `pick` called for each place holder."""
    if isinstance(part, dict):
        is_place = part.keys() in ({"tensor"}, {"weight"})
        return pick(part) if is_place else {key: _filled(value, pick) for key, value in part.items()}
    return [_filled(value, pick) for value in part] if isinstance(part, list | tuple) else part

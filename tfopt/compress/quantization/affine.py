"""Stand-alone scalings as one integer kernel: a 1x1 depthwise convolution with bias.

TFLite folds a batch normalization into the convolution in front of it. One that stands alone would become a
product and a sum with a rounding between them; as a depthwise convolution it is one kernel, its scale exact
and its shift a 32-bit bias, and a ReLU behind it is fused.
"""

from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress._splats import NUDGE
from tfopt.compress.quantization.layers import per_channel


def channel_affine(inputs: tf.Tensor, scale: Any, offset: Any) -> tf.Tensor:
    """inputs * scale + offset along the last axis, for inputs of any rank."""
    channels = inputs.shape[-1]
    ones = tf.ones([channels])
    kernel = per_channel(tf.reshape(ones * tf.cast(scale, tf.float32), [1, 1, 1, channels]))
    image = _as_images(inputs)
    outputs = tf.nn.depthwise_conv2d(
        image, tf.cast(tf.reshape(kernel, [1, 1, channels, 1]), inputs.dtype), [1, 1, 1, 1], "VALID"
    )
    shift = tf.cast(offset, tf.float32) * (ones + NUDGE * tf.one_hot(0, channels))
    outputs = outputs + tf.cast(shift, inputs.dtype)
    return outputs if len(inputs.shape) == 4 else tf.reshape(outputs, _open_shape(inputs))


def _as_images(inputs: tf.Tensor) -> tf.Tensor:
    """A tensor of any rank with its channels, as the depthwise kernel wants it: at rank 4."""
    *places, channels = inputs.shape[1:]
    if len(places) == 2:
        return inputs
    if None in places:
        sizes: Any = [-1, 1, 1, channels]
    else:
        sizes = [-1, *([1] * (2 - len(places))), *places, channels][:4] if len(places) < 2 else None
        sizes = sizes or [-1, places[0], int(np.prod(places[1:])), channels]
    return tf.reshape(inputs, sizes)


def _open_shape(inputs: tf.Tensor) -> Any:
    """The shape of a tensor, without arithmetic in the graph if only the number of samples is open."""
    places = inputs.shape[1:]
    return tf.shape(inputs) if None in places else [-1, *places]


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization that stands alone, with the statistics it has learned. Made by `quantize_aware`."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """The inference form, also in training: the clone fine-tunes a model whose statistics are known."""
        variance = tf.cast(self.moving_variance, tf.float32)
        scale = tf.math.rsqrt(variance + self.epsilon)
        if self.scale:
            scale = scale * tf.cast(self.gamma, tf.float32)
        offset = -tf.cast(self.moving_mean, tf.float32) * scale
        if self.center:
            offset = offset + tf.cast(self.beta, tf.float32)
        return channel_affine(inputs, scale, offset)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedNormalization(keras.layers.Normalization):
    """Normalization with an int8 scale. Made by `quantize_aware`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(inputs - mean) / deviation, or its inverse."""
        mean, variance = (tf.reshape(tf.cast(v, tf.float32), [-1]) for v in (self.mean, self.variance))
        deviation = tf.maximum(tf.sqrt(variance), keras.config.epsilon())
        if self.invert:
            return channel_affine(inputs, deviation, mean)
        return channel_affine(inputs, 1.0 / deviation, -mean / deviation)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedRescaling(keras.layers.Rescaling):
    """Rescaling with an int8 scale, which may differ by channel. Made by `quantize_aware`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """inputs * scale + offset."""
        return channel_affine(inputs, self.scale, self.offset)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class ScaleShift(keras.layers.Layer):
    """inputs * scale + shift along the last axis: the end of a normalization. Made by `quantize_aware`.

    Args:
        use_scale: Whether there is a scale.
        use_shift: Whether there is a shift.
    """

    def __init__(self, use_scale: bool = True, use_shift: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_scale, self.use_shift = bool(use_scale), bool(use_shift)
        self.gamma: Any = 1.0
        self.beta: Any = 0.0

    def build(self, input_shape: Any) -> None:
        """Makes the scale and the shift."""
        size = (input_shape[-1],)
        if self.use_scale:
            self.gamma = self.add_weight(shape=size, initializer="ones", name="gamma")
        if self.use_shift:
            self.beta = self.add_weight(shape=size, initializer="zeros", name="beta")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """inputs * scale + shift."""
        return channel_affine(inputs, self.gamma, self.beta)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "use_scale": self.use_scale, "use_shift": self.use_shift}

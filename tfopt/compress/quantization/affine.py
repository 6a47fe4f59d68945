"""Stand-alone scalings as one integer kernel: a 1x1 depthwise convolution with bias.

TFLite folds a batch normalisation into the convolution in front of it. One that stands alone would become a
product and a sum with a rounding between them; as a depthwise convolution it is one kernel, its scale exact
and its shift a 32-bit bias, and a ReLU behind it is fused.
"""

from typing import Any, final

import keras
import tensorflow as tf

from tfopt.compress.quantization.layers import per_channel


def channel_affine(inputs: tf.Tensor, scale: Any, offset: Any) -> tf.Tensor:
    """inputs * scale + offset along the last axis, for inputs of rank 2 or 4."""
    channels = inputs.shape[-1]
    ones = tf.ones([channels])
    kernel = per_channel(tf.reshape(ones * tf.cast(scale, tf.float32), [1, 1, 1, channels]))
    image = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, [-1, 1, 1, channels])
    outputs = tf.nn.depthwise_conv2d(
        image, tf.cast(tf.reshape(kernel, [1, 1, channels, 1]), inputs.dtype), [1, 1, 1, 1], "VALID"
    )
    outputs = outputs + tf.cast(ones * tf.cast(offset, tf.float32), inputs.dtype)
    return outputs if len(inputs.shape) == 4 else tf.reshape(outputs, [-1, channels])


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation that stands alone, with the statistics it has learned. Made by `quantize_aware`."""

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

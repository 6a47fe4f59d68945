"""Convolutions along one axis and transposed ones, with int8 kernels."""

from typing import final

import keras
import tensorflow as tf

from tfopt.compress.quantization.kernels import KeepsGroups, depthwise_per_channel
from tfopt.compress.quantization.layers import on_grid, per_channel


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedConv1D(KeepsGroups, keras.layers.Conv1D):
    """Conv1D with an int8 kernel: symmetric, one scale per output channel. Made by `quantize_aware`.

    TFLite's integer kernel is that of two dimensions, the first of size 1.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Keras's convolution on the rounded kernel."""
        padding = self.padding
        if padding == "causal":
            before = self.dilation_rate[0] * (self.kernel_size[0] - 1)
            inputs, padding = tf.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "valid"
        outputs = tf.nn.convolution(  # `conv2d` has no gradient on CPUs with dilation
            tf.expand_dims(inputs, 1),
            per_channel(tf.expand_dims(self.kernel, 0), self.bias, one_scale=self.one_scale),
            [1, self.strides[0]],
            padding.upper(),
            dilations=[1, self.dilation_rate[0]],
        )
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        outputs = outputs if self.activation is None else self.activation(outputs)
        return tf.squeeze(outputs, 1)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedDepthwiseConv1D(keras.layers.DepthwiseConv1D):
    """DepthwiseConv1D with an int8 kernel: symmetric, one scale per channel. Made by `quantize_aware`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Keras's depthwise convolution on the rounded kernel, as one of two dimensions."""
        outputs = keras.ops.depthwise_conv(
            keras.ops.expand_dims(inputs, 1),
            depthwise_per_channel(keras.ops.expand_dims(self.kernel, 0), self.bias),
            # TensorFlow has equal strides only; the first axis has size 1.
            (self.strides[0], self.strides[0]),
            self.padding,
            "channels_last",
            (1, self.dilation_rate[0]) if self.dilation_rate[0] > 1 else 1,
        )
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        outputs = outputs if self.activation is None else self.activation(outputs)
        return keras.ops.squeeze(outputs, 1)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedConv2DTranspose(KeepsGroups, keras.layers.Conv2DTranspose):
    """Conv2DTranspose with an int8 kernel: symmetric, one scale per output channel.

    Made by `quantize_aware`.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Keras's transposed convolution on the rounded kernel."""
        outputs = keras.ops.conv_transpose(
            inputs,
            on_grid(self.kernel, None if self.one_scale else [0, 1, 3]),
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

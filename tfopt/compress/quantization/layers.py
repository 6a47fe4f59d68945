"""Layers that compute with the values an int8 kernel will have, and still pass gradients.

They use TensorFlow's fake-quantization operations, which the TFLite converter turns into integer scales.
Gradients pass where a value is inside its range and are zero outside (straight-through).
"""

from typing import Any, final

import keras
import tensorflow as tf

from tfopt._checks import check_number

_SMALLEST = 1e-8  # an all-zero channel still needs a scale
_NARROWEST = 1e-3  # XNNPACK refuses ratios of scales above 256, which a dead activation would give


@final
@keras.saving.register_keras_serializable(package="tfopt")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to 256 levels of a range that it learns from the data, or that is given.

    `quantize_aware` inserts these layers; you need them only for a scheme of your own.

        low, high <- momentum * (low, high) + (1 - momentum) * (min(x, 0), max(x, 0))
        output = round x to the nearest of 256 levels between low and high

    The first training batch sets the range, so it is right from the first step. The model cannot be exported
    before it has seen a batch. Ranges stop moving when the layer is not trainable.

    Args:
        momentum: Share of the old range that stays at each training step, in [0, 1).
        minimum: Lower end of a fixed range, <= 0, or None to learn it.
        maximum: Upper end of a fixed range, >= 0, or None to learn it.

    Raises:
        ValueError: a momentum outside [0, 1) or only one end of the range.

    Example:
        >>> layer = tfopt.compress.FakeQuantize(minimum=0.0, maximum=255.0)
        >>> float(layer(3.4))
        3.0

    Differs from tfmot: the range starts at the first batch, not at [-6, 6] with momentum 0.999.

    References:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Inference. arXiv:1712.05877
    """

    def __init__(
        self,
        momentum: float = 0.9,
        minimum: float | None = None,
        maximum: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.momentum = check_number("momentum", momentum, minimum=0.0, maximum=1.0, open_maximum=True)
        if (minimum is None) != (maximum is None):
            raise ValueError(f"Give both ends of the range or none. Received: [{minimum}, {maximum}].")
        self.minimum = None if minimum is None else check_number("minimum", minimum, maximum=0.0)
        self.maximum = None if maximum is None else check_number("maximum", maximum, minimum=0.0)

    def build(self, input_shape: Any) -> None:
        """Makes the range and the number of batches it has seen."""
        fixed = self.minimum is not None
        for name, start in (("low", self.minimum), ("high", self.maximum), ("batches", float(fixed))):
            value = keras.initializers.Constant(0.0 if start is None else start)
            variable = self.add_weight(
                shape=(), initializer=value, trainable=False, name=name, aggregation="mean"
            )
            setattr(self, name, variable)

    @property
    def calibrated(self) -> bool:
        """Whether the range is fixed or has seen data."""
        return bool(self.batches.numpy() > 0)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The rounded inputs; in training the range follows them first."""
        if training and self.trainable and self.minimum is None:
            self._follow(inputs)
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        )

    def _follow(self, inputs: tf.Tensor) -> None:
        old = tf.where(tf.convert_to_tensor(self.batches) > 0, self.momentum, 0.0)
        low = tf.minimum(tf.reduce_min(inputs), 0.0)
        high = tf.maximum(tf.reduce_max(inputs), low + _NARROWEST)
        for variable, seen in ((self.low, low), (self.high, tf.maximum(high, 0.0))):
            variable.assign(old * variable + (1.0 - old) * tf.stop_gradient(seen))
        self.batches.assign_add(1.0)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """Same shape, float32."""
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"momentum": self.momentum, "minimum": self.minimum, "maximum": self.maximum}
        return {**super().get_config(), **own}


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedConv2D(keras.layers.Conv2D):
    """Conv2D with an int8 kernel: symmetric, one scale per output channel. Made by `quantize_aware`."""

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Keras's convolution on the rounded kernel."""
        return super().convolution_op(inputs, per_channel(kernel))


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """DepthwiseConv2D with an int8 kernel: symmetric, one scale per channel. Made by `quantize_aware`.

    tfmot rounds the whole kernel with one scale, which ruins kernels with uneven channels.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Keras's depthwise convolution on the rounded kernel."""
        height, width, channels, multiplier = self.kernel.shape
        flat = keras.ops.reshape(self.kernel, (1, height, width, channels * multiplier))
        kernel = keras.ops.reshape(per_channel(flat), self.kernel.shape)
        outputs = keras.ops.depthwise_conv(
            inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs) if self.activation is not None else outputs


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedDense(keras.layers.Dense):
    """Dense with an int8 kernel: symmetric, one scale for the whole kernel. Made by `quantize_aware`.

    The TFLite converter does not accept a trained scale per output here.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Keras's dense layer on the rounded kernel."""
        outputs = keras.ops.matmul(inputs, per_tensor(self.kernel))
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs) if self.activation is not None else outputs


def per_channel(kernel: Any) -> tf.Tensor:
    """A kernel of rank 4 on the grid -127..127 of each channel of its last axis."""
    value = tf.cast(kernel, tf.float32)
    limit = tf.maximum(tf.reduce_max(tf.abs(value), axis=[0, 1, 2]), _SMALLEST)
    limit = tf.stop_gradient(limit)
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        value, -limit, limit, narrow_range=True
    )
    return tf.cast(rounded, kernel.dtype)


def per_tensor(kernel: Any) -> tf.Tensor:
    """A kernel on the grid -127..127."""
    value = tf.cast(kernel, tf.float32)
    limit = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(value)), _SMALLEST))
    rounded = tf.quantization.fake_quant_with_min_max_vars(value, -limit, limit, narrow_range=True)
    return tf.cast(rounded, kernel.dtype)

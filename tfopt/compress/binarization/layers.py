"""Layers whose kernels have one bit or three values, trained straight through the rounding."""

import abc
from typing import Any, final

import keras
import tensorflow as tf


class _RoundedKernel(keras.layers.Layer, abc.ABC):
    """A layer that computes with `rounded(kernel)` and trains the kernel behind it."""

    @abc.abstractmethod
    def rounded(self, kernel: Any) -> tf.Tensor:
        """The kernel as the layer computes with it."""


class _Convolution(_RoundedKernel, keras.layers.Conv2D):
    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Keras's convolution on the rounded kernel."""
        return super().convolution_op(inputs, self.rounded(kernel))


class _Dense(_RoundedKernel, keras.layers.Dense):
    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Keras's dense layer on the rounded kernel."""
        outputs = keras.ops.matmul(inputs, self.rounded(self.kernel))
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs) if self.activation is not None else outputs


class _Binary(_RoundedKernel):
    """One bit per weight, and a scale per output channel unless `scale` is False."""

    def __init__(self, *args: Any, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = bool(scale)

    def build(self, input_shape: Any) -> None:
        """Limits the weights behind the signs, as BinaryConnect does: a large one would never turn."""
        super().build(input_shape)
        self.kernel.constraint = _Clipped(self.kernel.constraint)

    def rounded(self, kernel: Any) -> tf.Tensor:
        """See `binary_kernel`."""
        return binary_kernel(kernel, scale=self.scale)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "scale": self.scale}


class _Ternary(_RoundedKernel):
    def rounded(self, kernel: Any) -> tf.Tensor:
        """See `ternary_kernel`."""
        return ternary_kernel(kernel)


@final
@keras.saving.register_keras_serializable(package="tfopt")
class BinaryConv2D(_Binary, _Convolution):
    """Conv2D with a kernel of signs times a scale per output channel. Made by `binarize`."""


@final
@keras.saving.register_keras_serializable(package="tfopt")
class BinaryDense(_Binary, _Dense):
    """Dense with a kernel of signs times a scale per output. Made by `binarize`."""


@final
@keras.saving.register_keras_serializable(package="tfopt")
class TernaryConv2D(_Ternary, _Convolution):
    """Conv2D with a kernel of -1, 0, 1 times a scale per output channel. Made by `ternarize`."""


@final
@keras.saving.register_keras_serializable(package="tfopt")
class TernaryDense(_Ternary, _Dense):
    """Dense with a kernel of -1, 0, 1 times a scale per output. Made by `ternarize`."""


def binary_kernel(kernel: Any, *, scale: bool = True) -> tf.Tensor:
    """sign(w), times the mean |w| of the output channel: the closest such kernel in the least squares.

    The gradient passes the sign where |w| <= 1 and is zero elsewhere; that of the scale is exact.

    Args:
        kernel: Weights, output channels last.
        scale: Without it the values are -1 and 1.

    References:
        Courbariaux, Bengio, David: BinaryConnect. arXiv:1511.00363
        Rastegari et al.: XNOR-Net. arXiv:1603.05279
    """
    value = tf.convert_to_tensor(kernel)
    clipped = tf.clip_by_value(value, -1.0, 1.0)
    sign = tf.where(value >= 0, tf.ones_like(value), -tf.ones_like(value))
    passed = clipped + tf.stop_gradient(sign - clipped)
    return passed * _channel_mean(tf.abs(value)) if scale else passed


def ternary_kernel(kernel: Any) -> tf.Tensor:
    """-a, 0 or a, where a is the mean |w| of the channel's weights above 0.7 times its mean |w|.

    The gradient passes as if there were no rounding.

    Args:
        kernel: Weights, output channels last.

    References:
        Li et al.: Ternary Weight Networks. arXiv:1605.04711
    """
    value = tf.convert_to_tensor(kernel)
    size = tf.abs(value)
    large = tf.cast(size > 0.7 * _channel_mean(size), value.dtype)
    scale = tf.math.divide_no_nan(_channel_mean(size * large), _channel_mean(large))
    return value + tf.stop_gradient(tf.sign(value) * large * scale - value)


def _channel_mean(value: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(value, axis=list(range(len(value.shape) - 1)), keepdims=True)


@final
class _Clipped(keras.constraints.Constraint):
    """Limits weights to [-1, 1], after another constraint."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, weights: Any) -> tf.Tensor:
        value = tf.convert_to_tensor(self.inner(weights) if self.inner else weights)
        return tf.clip_by_value(value, -1.0, 1.0)

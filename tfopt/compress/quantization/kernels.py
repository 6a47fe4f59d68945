"""Layers with an int8 kernel, which keep the zeros or shared values it came with if they are told to."""

from typing import Any, final

import keras
import tensorflow as tf

from tfopt._checks import check_integer
from tfopt.compress.clustering.groups import KeepGroups
from tfopt.compress.quantization.layers import per_channel, per_tensor


def depthwise_per_channel(kernel: Any, bias: Any = None) -> Any:
    """A kernel (height, width, channels, multiplier) with one scale for each output channel."""
    height, width, channels, multiplier = kernel.shape
    flat = keras.ops.reshape(kernel, (1, height, width, channels * multiplier))
    return keras.ops.reshape(per_channel(flat, bias), (height, width, channels, multiplier))


class KeepsGroups(keras.layers.Layer):
    """A layer whose kernel has groups of weights that stay equal; they are saved with it.

    Args:
        clusters: Number of groups beside the zeros, 0 to keep zeros only, None for a free kernel.
        one_scale: Whether all channels of the kernel share one scale.
    """

    def __init__(
        self, *args: Any, clusters: int | None = None, one_scale: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.clusters = None if clusters is None else check_integer("clusters", clusters, minimum=0)
        self.one_scale = bool(one_scale)

    def build(self, input_shape: Any) -> None:
        """Makes the groups and the constraint that keeps them."""
        super().build(input_shape)
        if self.clusters is None:
            return
        kernel = self.kernel
        self.weight_groups = self.add_weight(
            shape=kernel.shape,
            initializer="ones",
            dtype="int32",
            trainable=False,
            name="weight_groups",
            aggregation="only_first_replica",
        )
        kernel.constraint = KeepGroups(self.weight_groups, self.clusters, kernel.constraint)

    def save_own_variables(self, store: Any) -> None:
        """Keras's layers save their kernel and bias by name, and nothing else."""
        super().save_own_variables(store)
        if self.clusters is not None:
            store["weight_groups"] = self.weight_groups.numpy()

    def load_own_variables(self, store: Any) -> None:
        """The inverse of `save_own_variables`."""
        super().load_own_variables(store)
        if self.clusters is not None:
            self.weight_groups.assign(store["weight_groups"])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"clusters": self.clusters, "one_scale": self.one_scale}
        return {**super().get_config(), **own}


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedConv2D(KeepsGroups, keras.layers.Conv2D):
    """Conv2D with an int8 kernel: symmetric, one scale per output channel. Made by `quantize_aware`.

    If all channels share their values, they share the scale: else the file would not share them.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Keras's convolution on the rounded kernel."""
        return super().convolution_op(inputs, per_channel(kernel, self.bias, one_scale=self.one_scale))


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """DepthwiseConv2D with an int8 kernel: symmetric, one scale per channel. Made by `quantize_aware`.

    tfmot rounds the whole kernel with one scale, which ruins kernels with uneven channels.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Keras's depthwise convolution on the rounded kernel."""
        kernel = depthwise_per_channel(self.kernel, self.bias)
        outputs = keras.ops.depthwise_conv(
            inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs) if self.activation is not None else outputs


@final
@keras.saving.register_keras_serializable(package="tfopt")
class QuantizedDense(KeepsGroups, keras.layers.Dense):
    """Dense with an int8 kernel: symmetric, one scale for the whole kernel. Made by `quantize_aware`.

    TFLite's converter refuses learned scales per output channel in dense layers, so there is one.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Keras's dense layer on the rounded kernel."""
        if len(inputs.shape) > 2:  # TFLite's integer kernel is one of matrices
            rows = self.call(keras.ops.reshape(inputs, (-1, inputs.shape[-1])), training)
            return keras.ops.reshape(rows, (-1, *keras.ops.shape(inputs)[1:-1], self.units))
        outputs = keras.ops.matmul(inputs, per_tensor(self.kernel, self.bias))
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return self.activation(outputs) if self.activation is not None else outputs

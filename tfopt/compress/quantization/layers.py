"""Rounding of activations and kernels to the values an int8 kernel will have, which still passes gradients.

They use TensorFlow's fake-quantization operations, which the TFLite converter turns into integer scales.
Gradients pass where a value is inside its range and are zero outside (straight-through).
"""

from typing import Any, final

import keras
import tensorflow as tf

from tfopt._checks import check_instance, check_number

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
        in_training: False rounds in inference only. For probabilities that a loss looks at: it would see
            zeros, and have no gradient, wherever a class has less than 1/512.

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
        in_training: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.momentum = check_number("momentum", momentum, minimum=0.0, maximum=1.0, open_maximum=True)
        if (minimum is None) != (maximum is None):
            raise ValueError(f"Give both ends of the range or none. Received: [{minimum}, {maximum}].")
        self.minimum = None if minimum is None else check_number("minimum", minimum, maximum=0.0)
        self.maximum = None if maximum is None else check_number("maximum", maximum, minimum=0.0)
        self.in_training = check_instance("in_training", in_training, bool)

    def build(self, input_shape: Any) -> None:
        """Makes the range and the number of batches it has seen."""
        fixed = self.minimum is not None
        for name, start in (("low", self.minimum), ("high", self.maximum), ("batches", float(fixed))):
            value = keras.initializers.Constant(0.0 if start is None else start)
            variable = self.add_weight(
                shape=(), initializer=value, trainable=False, name=name, aggregation="only_first_replica"
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
        if training and not self.in_training:
            return inputs
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        )

    def _follow(self, inputs: tf.Tensor) -> None:
        old = tf.where(tf.convert_to_tensor(self.batches) > 0, self.momentum, 0.0)
        low, high = over_replicas(tf.reduce_min(inputs), tf.reduce_max(inputs))
        low = tf.minimum(low, 0.0)
        high = tf.maximum(high, low + _NARROWEST)
        for variable, seen in ((self.low, low), (self.high, tf.maximum(high, 0.0))):
            variable.assign(old * variable + (1.0 - old) * tf.stop_gradient(seen))
        self.batches.assign_add(1.0)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """Same shape, float32."""
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"momentum": self.momentum, "minimum": self.minimum, "maximum": self.maximum}
        return {**super().get_config(), **own, "in_training": self.in_training}


def over_replicas(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The smallest low and the largest high of all replicas; strategies themselves only sum."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return low, high
    own = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)[:, None]
    ends = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(own > 0, tf.stack([low, high]), 0.0))
    return tf.reduce_min(ends[:, 0]), tf.reduce_max(ends[:, 1])


def per_channel(kernel: Any, *, one_scale: bool = False) -> tf.Tensor:
    """A kernel of rank 4 on the grid -127..127 of each channel of its last axis, or the same grid for all."""
    value = tf.cast(kernel, tf.float32)
    limit = tf.reduce_max(tf.abs(value), axis=None if one_scale else [0, 1, 2])
    limit = tf.stop_gradient(tf.broadcast_to(tf.maximum(limit, _SMALLEST), value.shape[-1:]))
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

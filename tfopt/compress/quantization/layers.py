"""Rounding of activations and kernels to the values an int8 kernel will have, which still passes gradients.

They use TensorFlow's fake-quantization operations, which the TFLite converter turns into integer scales.
Gradients pass where a value is inside its range and are zero outside (straight-through).
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, final

import keras
import tensorflow as tf

from tfopt._checks import check_instance, check_number

# The step of a bias is that of the input times that of the kernel, and a bias has 31 bits. So a channel of
# (nearly) zero weights, which gives little more than its bias, has a step at which that fits: of every kernel
# in TFLite, XNNPACK or not, larger numbers are cut. 2**-18 suits inputs of steps above 0.016.
_NARROWEST_CHANNEL = 2.0**-12  # of the largest weight
_LEAST_OF_BIAS = 2.0**-18
_calibrating: ContextVar[bool] = ContextVar("calibrating", default=False)
_unrounded: ContextVar[bool] = ContextVar("unrounded", default=False)
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
        momentum: Share of the old range that stays at each training step, in [0, 1]. 1 keeps the extremes of
            all batches, and a range in which zero is exactly one of the levels: right for inputs, whose
            extremes mean something, such as 0 and 255 for pixels.
        minimum: Lower end of a fixed range, <= 0, or None to learn it.
        maximum: Upper end of a fixed range, >= 0, or None to learn it.
        in_training: False rounds in inference only. For probabilities that a loss looks at: it would see
            zeros, and have no gradient, wherever a class has less than 1/512.
        watch: Keep the extremes of every column of the last axis in the weight `seen`, for warnings about
            inputs.

    Raises:
        ValueError: If the momentum is outside [0, 1], or only one end of the range is given.

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
        watch: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.supports_masking = True
        self.momentum = check_number("momentum", momentum, minimum=0.0, maximum=1.0)
        if (minimum is None) != (maximum is None):
            raise ValueError(f"Give both ends of the range or none. Received: [{minimum}, {maximum}].")
        self.minimum = None if minimum is None else check_number("minimum", minimum, maximum=0.0)
        self.maximum = None if maximum is None else check_number("maximum", maximum, minimum=0.0)
        self.in_training = check_instance("in_training", in_training, bool)
        self.watch = check_instance("watch", watch, bool)

    def build(self, input_shape: Any) -> None:
        """Makes the range and the number of batches it has seen."""
        fixed = self.minimum is not None
        columns = input_shape[-1] if len(input_shape) > 1 and input_shape[-1] is not None else 1
        self.low = self._statistic("low", self.minimum or 0.0)
        self.high = self._statistic("high", self.maximum or 0.0)
        self.batches = self._statistic("batches", float(fixed))
        self.seen: Any = self._statistic("seen", 0.0, (2, columns)) if self.watch else None

    def _statistic(self, name: str, start: float, shape: tuple[int, ...] = ()) -> Any:
        initializer = keras.initializers.Constant(start)
        options = {"trainable": False, "aggregation": "only_first_replica", "autocast": False}
        return self.add_weight(shape=shape, initializer=initializer, name=name, **options)

    @property
    def calibrated(self) -> bool:
        """Whether the range is fixed or has seen data."""
        return bool(self.batches.numpy() > 0)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The rounded inputs; in training the range follows them first."""
        if (training or is_calibrating()) and self.trainable:
            if self.minimum is None:
                self._follow(inputs)
            if self.watch:
                self._note(inputs)
        if (training and not self.in_training) or _unrounded.get():
            return inputs
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        )

    def _follow(self, inputs: tf.Tensor) -> None:
        low, high = over_replicas(tf.reduce_min(inputs), tf.reduce_max(inputs))
        low, high = (tf.stop_gradient(end) for end in (tf.minimum(low, 0.0), tf.maximum(high, 0.0)))
        if self.momentum == 1.0 or is_calibrating():
            low, high = tf.minimum(low, self.low), tf.maximum(high, self.high)
        if self.momentum == 1.0:
            step = tf.maximum(-low / 128.0, high / 127.0)
            both = tf.logical_and(low < 0.0, high > 0.0)
            low, high = tf.where(both, -128.0 * step, low), tf.where(both, 127.0 * step, high)
        elif not is_calibrating():
            old = tf.where(tf.convert_to_tensor(self.batches) > 0, self.momentum, 0.0)
            low, high = (old * end + (1.0 - old) * new for end, new in ((self.low, low), (self.high, high)))
        self.low.assign(low)
        self.high.assign(tf.maximum(high, low + _NARROWEST))
        self.batches.assign_add(1.0)

    def _note(self, inputs: tf.Tensor) -> None:
        """Extremes of every column; of all values together if the last axis has no fixed size."""
        columns = self.seen.shape[1]
        rows = tf.reshape(inputs, [-1, columns])
        low, high = over_replicas(tf.reduce_min(rows, 0), tf.reduce_max(rows, 0))
        self.seen.assign(tf.stack([tf.minimum(self.seen[0], low), tf.maximum(self.seen[1], high)]))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """Same shape, float32."""
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"momentum": self.momentum, "minimum": self.minimum, "maximum": self.maximum}
        return {**super().get_config(), **own, "in_training": self.in_training, "watch": self.watch}


@contextlib.contextmanager
def calibrating() -> Iterator[None]:
    """Ranges follow the data of calls inside, which otherwise compute as in inference."""
    token = _calibrating.set(True)
    try:
        yield
    finally:
        _calibrating.reset(token)


@contextlib.contextmanager
def unrounded() -> Iterator[None]:
    """Activations are not rounded in eager calls inside; compiled functions keep their rounding."""
    token = _unrounded.set(True)
    try:
        yield
    finally:
        _unrounded.reset(token)


def is_calibrating() -> bool:
    """Whether the code runs inside `calibrating`."""
    return _calibrating.get()


def over_replicas(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The smallest low and the largest high of all replicas; strategies themselves only sum."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return low, high
    both = tf.stack([low, high])
    own = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
    own = tf.reshape(own, [-1, *([1] * len(both.shape))])
    ends = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(own > 0, both, 0.0))
    return tf.reduce_min(ends[:, 0], 0), tf.reduce_max(ends[:, 1], 0)


def per_channel(kernel: Any, bias: Any = None, *, one_scale: bool = False) -> tf.Tensor:
    """A kernel of rank 4 on the grid -127..127 of each channel of its last axis, or the same grid for all.

    Args:
        kernel: The kernel.
        bias: What is added to each channel, if anything.
        one_scale: Whether all channels share a grid.
    """
    value = tf.cast(kernel, tf.float32)
    limit = tf.broadcast_to(_limit(value, None if one_scale else [0, 1, 2], bias), value.shape[-1:])
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        value, -limit, limit, narrow_range=True
    )
    return tf.cast(rounded, kernel.dtype)


def per_tensor(kernel: Any, bias: Any = None) -> tf.Tensor:
    """A kernel on the grid -127..127."""
    value = tf.cast(kernel, tf.float32)
    limit = _limit(value, None, bias)
    rounded = tf.quantization.fake_quant_with_min_max_vars(value, -limit, limit, narrow_range=True)
    return tf.cast(rounded, kernel.dtype)


def on_grid(kernel: Any, axes: list[int] | None) -> tf.Tensor:
    """A kernel on the grid -127..127 of each part, by plain arithmetic instead of a fake-quantization
    operation.

    For kernels whose scales the converter accepts only if it finds them itself. It then finds the same grid:
    the largest value of each part is on it.

    Args:
        kernel: Any shape.
        axes: Axes that share a scale; None for one scale.
    """
    value = tf.cast(kernel, tf.float32)
    step = _limit(value, axes, keepdims=True) / 127.0
    rounded = value + tf.stop_gradient(tf.round(value / step) * step - value)
    return tf.cast(rounded, kernel.dtype)


def _limit(value: tf.Tensor, axes: list[int] | None, bias: Any = None, keepdims: bool = False) -> tf.Tensor:
    """The largest magnitude of each part, wide enough that a 32-bit bias on its grid does not overflow."""
    size = tf.abs(value)
    largest = tf.reduce_max(size)
    largest = tf.where(largest > 0.0, largest, 1.0)
    least = largest * _NARROWEST_CHANNEL
    if bias is not None:
        needed = _LEAST_OF_BIAS * tf.abs(tf.cast(bias, tf.float32))
        least = tf.maximum(least, needed if axes else tf.reduce_max(needed))
    limit = tf.reduce_max(size, axes, keepdims=keepdims)
    return tf.stop_gradient(tf.where(limit > 0.0, tf.maximum(limit, least), largest))

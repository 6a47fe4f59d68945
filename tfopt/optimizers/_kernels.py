"""TensorFlow's fused kernels by what they compute: they read and write variables in one pass.

All take resource handles, and tensors of the variable's type for what changes from step to step. They
need no compilation, use all cores on large variables and few operations on small ones.
"""

import tensorflow as tf

from tfopt._keras_internals import inside_xla

# TensorFlow's CPU kernel of Adam overestimates its work and wakes another thread for more elements than
# the first number, which costs 30 microseconds and more; until the second, three other kernels are faster.
INLINE_ELEMENTS = 128
LARGE_ELEMENTS = 32_768


def read(resource: tf.Tensor, dtype: str) -> tf.Tensor:
    """The value now: a `tf.Variable` used as a tensor may be read after a later write."""
    return tf.raw_ops.ReadVariableOp(resource=resource, dtype=dtype)


def assign(resource: tf.Tensor, value: tf.Tensor) -> None:
    """Writes a whole variable."""
    tf.raw_ops.AssignVariableOp(resource=resource, value=value)


def follow(average: tf.Tensor, value: tf.Tensor, beta: float | tf.Tensor) -> None:
    """average = beta * average + (1 - beta) * value, for 0 < beta <= 1."""
    dtype = value.dtype
    if _on_gpu() or inside_xla():  # where the shorter form below has no kernel, or many operations
        distance = read(average, dtype) - value
        descend(average, tf.convert_to_tensor(1 - beta, dtype), distance)
        return
    # The kernel computes (average - alpha * value) / (1 + alpha * l2): no difference to store first.
    tf.raw_ops.ResourceApplyProximalGradientDescent(
        var=average,
        alpha=tf.convert_to_tensor((beta - 1) / beta, dtype),
        l1=tf.zeros([], dtype),
        l2=tf.constant(-1.0, dtype),
        delta=value,
    )


def descend(param: tf.Tensor, rate: tf.Tensor, direction: tf.Tensor) -> None:
    """param = param - rate * direction."""
    tf.raw_ops.ResourceApplyGradientDescent(var=param, alpha=rate, delta=direction)


def momentum(param: tf.Tensor, slot: tf.Tensor, rate: tf.Tensor, direction: tf.Tensor, share: float) -> None:
    """slot = share * slot + direction; param = param - rate * slot."""
    tf.raw_ops.ResourceApplyMomentum(
        var=param, accum=slot, lr=rate, grad=direction, momentum=tf.constant(share, direction.dtype)
    )


def descend_by_root(
    param: tf.Tensor, rate: tf.Tensor, direction: tf.Tensor, square: tf.Tensor, epsilon: tf.Tensor
) -> None:
    """param = param - rate * direction / (sqrt(square) + epsilon); `square` is a variable."""
    tf.raw_ops.ResourceApplyAdagradV2(
        var=param, accum=square, lr=rate, epsilon=epsilon, grad=direction, update_slots=False
    )


def adam(
    param: tf.Tensor,
    moments: tuple[tf.Tensor, ...],
    grad: tf.Tensor,
    rate: tf.Tensor,
    betas: tuple[float, float],
    epsilon: tf.Tensor,
) -> None:
    """Adam without bias corrections: m and v follow g and g**2, then a step along m / (sqrt(v) + epsilon)."""
    m, v = moments
    elements = grad.shape.num_elements() or 0
    if INLINE_ELEMENTS < elements < LARGE_ELEMENTS and all(betas) and not _on_gpu():
        follow(m, grad, betas[0])
        follow(v, tf.square(grad), betas[1])
        descend_by_root(param, rate, read(m, grad.dtype), v, epsilon)
        return
    beta_1, beta_2 = (tf.constant(beta, grad.dtype) for beta in betas)
    powers = {"beta1_power": tf.zeros([], grad.dtype), "beta2_power": tf.zeros([], grad.dtype)}
    tf.raw_ops.ResourceApplyAdam(
        var=param, m=m, v=v, lr=rate, beta1=beta_1, beta2=beta_2, epsilon=epsilon, grad=grad, **powers
    )


def _on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))

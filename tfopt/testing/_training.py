"""What the checks train: variables with fixed gradients, and a small linear model."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Maker = Callable[[], keras.optimizers.Optimizer]

SHAPES = ((), (3,), (4, 3), (2, 3, 4), (3, 2, 2, 3))
FULL_RANK = ((), (3,), (3, 3))  # one gradient tells all directions: no basis is arbitrary


def variables(dtype: str = "float32", shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[Any]:
    """Variables with random values, named v0, v1, ..."""
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=f"v{i}") for i, shape in enumerate(shapes)
    ]


def gradients(
    count: int, shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: str = "float32", seed: int = 100
) -> list[list[tf.Tensor]]:
    """Random gradients for so many steps, whose scale grows from variable to variable."""
    rng = np.random.default_rng(seed)
    scales = [10.0**index for index in range(-2, len(shapes) - 2)]
    return [
        [tf.constant(scale * rng.normal(size=shape), dtype) for scale, shape in zip(scales, shapes)]
        for _ in range(count)
    ]


def values(weights: Sequence[Any]) -> list[np.ndarray]:
    """The values in float64."""
    return [tf.cast(weight, tf.float64).numpy() for weight in weights]


def assert_close(actual: Sequence[Any], expected: Sequence[Any], tolerance: float, what: str) -> None:
    """Raises an AssertionError that begins with `what`; a tolerance of 0 is equality in every bit."""
    for index, (x, y) in enumerate(zip(values(actual), values(expected), strict=True)):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"{what} (variable {index})")


def require(condition: Any, what: str) -> None:
    """Raises an AssertionError that says `what` is wrong."""
    if not condition:
        raise AssertionError(what)


def updates_after(optimizer: keras.optimizers.Optimizer) -> int:
    """Calls of `apply` that a new optimizer needs for its first update: more than 1 if it accumulates."""
    weights = variables(shapes=((2,),))
    for calls in range(1, 1000):
        optimizer.apply([tf.ones(2)], weights)
        if int(keras.ops.convert_to_numpy(optimizer.iterations)):
            return calls
    raise AssertionError("1000 calls of `apply` did not count one update in `iterations`.")


def batches(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a linear model, 32 examples."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(32, 4)).astype("float32")
    return x, (x @ rng.normal(size=(4, 3))).astype("float32")


def traced(optimizer: keras.optimizers.Optimizer, weights: Sequence[Any], **options: Any) -> Any:
    """`apply` on these variables as a `tf.function` of the gradients."""
    return tf.function(lambda grads: optimizer.apply(grads, weights), autograph=False, **options)


def linear_model(optimizer: Any, built: bool = True, **options: Any) -> keras.Model:
    """One Dense layer from 4 to 3 with fixed first weights; without `built` the first step builds it."""
    first = [keras.Input((4,))] if built else []
    layer = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2))
    model = keras.Sequential([*first, layer])
    if optimizer is not None:
        model.compile(optimizer, keras.losses.MeanSquaredError(), **options)
    return model


def fit(model: keras.Model, epochs: int = 2) -> keras.Model:
    """Trains on `batches`, four steps an epoch."""
    model.fit(*batches(), batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model

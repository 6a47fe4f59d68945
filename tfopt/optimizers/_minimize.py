"""`minimize`: full-batch training by SciPy's quasi-Newton methods, such as L-BFGS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt import _checks

# How each method of SciPy takes the number of steps, the tolerance of the gradient, and its own memory.
_METHODS = {"L-BFGS-B": "gtol", "BFGS": "gtol", "CG": "gtol"}


@dataclass(frozen=True)
class Minimum:
    """What `minimize` found.

    Attributes:
        loss: Loss at the end, with regularization.
        losses: Loss after each step; the first entry is that of the start.
        gradient_norm: Largest absolute value of the gradient at the end.
        evaluations: Number of evaluations of loss and gradient.
        converged: Whether a tolerance was met, rather than `max_steps`.
        message: Why it stopped, in SciPy's words.
    """

    loss: float
    losses: list[float]
    gradient_norm: float
    evaluations: int
    converged: bool
    message: str


def minimize(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    loss: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    method: str = "L-BFGS-B",
    max_steps: int = 1000,
    tolerance: float = 1e-8,
    memory: int = 20,
    callback: Callable[[int, float], None] | None = None,
) -> Minimum:
    """Trains a model on all data at once by L-BFGS, with a line search by the strong Wolfe conditions.

    For small models and smooth losses that should be solved to many digits: physics-informed networks,
    calibration, regression. Not for noise in the loss (dropout, augmentation) or more than a few million
    weights, because SciPy works on the CPU in float64. Weights in float64 (`dtype="float64"` in the layers
    or `keras.config.set_floatx("float64")`) reach the last digits; float32 stops at about 1e-7 of the loss.

    Layers run as in evaluation: dropout is off, and batch normalization uses its moving statistics. Variables
    with constraints are refused, because the method would leave them. The optimizer of the model is not used.

    Args:
        model: A built model. Its trainable weights are changed in place.
        x: All inputs: an array, a list or a dictionary of arrays.
        y: All targets, or None where the loss needs none.
        loss: A Keras loss, its name, or a function of (y, predictions); or None for the compiled loss of the
            model. Regularization and `add_loss` of the layers are added.
        sample_weight: One weight for each example, or None. Needs a Keras loss.
        batch_size: Int >= 1: the data are evaluated in parts of this size, so that the activations fit into
            the memory; the sum is the same. None evaluates all at once. The loss must be a mean.
        method: "L-BFGS-B", "BFGS" or "CG" of `scipy.optimize.minimize`.
        max_steps: Int >= 1.
        tolerance: Float >= 0. Ends where no element of the gradient is larger.
        memory: Int >= 1. Pairs of steps and gradient changes that L-BFGS keeps.
        callback: Called with the number of the step and the loss after it, or None.

    Returns:
        A `Minimum`. The model has the weights with the smallest loss that was seen.

    Raises:
        TypeError: If the data are a dataset.
        ValueError: If the model is not built, has no trainable weights or has constraints, if there is no
            loss, if the loss is no finite number at the start, or an argument is out of its bounds.

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> minimum = tfopt.optimizers.minimize(model, x, 3 * x + 1, loss="mse")
        >>> model.layers[0].kernel.numpy().round(3), minimum.converged
        (array([[3.]], dtype=float32), True)

    References:
        Liu, Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", Mathematical
        Programming 45, 1989. Line search: More, Thuente, ACM TOMS 20, 1994.
    """
    from scipy import optimize  # takes a second to import

    method = _checks.check_choice("method", method, tuple(_METHODS))
    _checks.check_integer("max_steps", max_steps, minimum=1)
    _checks.check_number("tolerance", tolerance, minimum=0)
    _checks.check_integer("memory", memory, minimum=1)
    objective = _Objective(model, _data(x, y, sample_weight), _loss_of(model, loss), batch_size)
    losses = [objective(objective.start)[0]]
    if not np.isfinite(losses[0]):
        raise ValueError(f"The loss must be finite at the start. Received: loss={losses[0]}. Look for NaN.")

    def after_step(weights: np.ndarray) -> None:
        losses.append(objective.loss_at(weights))
        if callback is not None:
            callback(len(losses) - 1, losses[-1])

    options: dict[str, Any] = {"maxiter": max_steps, "gtol": tolerance}
    if method == "L-BFGS-B":
        options |= {"maxcor": memory, "ftol": 0.0, "maxfun": 20 * max_steps, "maxls": 50}
    result = optimize.minimize(
        objective, objective.start, jac=True, method=method, callback=after_step, options=options
    )
    objective.put_best()
    gradient_norm = float(np.abs(objective(objective.best)[1]).max())
    return Minimum(
        objective.best_loss,
        losses,
        gradient_norm,
        int(result.nfev),
        bool(result.success),
        str(result.message),
    )


class _Objective:
    """Loss and gradient as a function of all weights in one float64 vector."""

    def __init__(self, model: keras.Model, data: tuple, loss: Any, batch_size: int | None):
        self._variables = _trainable(model)
        self._sizes = [int(np.prod(variable.shape)) for variable in self._variables]
        self._count = len(next(each for each in tf.nest.flatten(data) if each is not None))
        size = _checks.check_integer("batch_size", batch_size or self._count, minimum=1)
        self._parts = [slice(start, start + size) for start in range(0, self._count, size)]
        self._data = [None if each is None else tf.nest.map_structure(_tensor, each) for each in data]
        self._part = _loss_and_gradient(model, loss, [variable.value for variable in self._variables])
        self.start = np.concatenate([_flat(keras.ops.convert_to_numpy(each)) for each in self._variables])
        self.best, self.best_loss = self.start, np.inf
        self._seen: tuple[bytes, float] | None = None

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        self._put(weights)
        value, gradient = 0.0, np.zeros_like(self.start)
        for rows in self._parts:
            x, y, weight = (_rows(each, rows) for each in self._data)
            share = len(range(*rows.indices(self._count))) / self._count
            part, grads = self._part(x, y, weight, tf.constant(share, tf.float64))
            value += float(part)
            gradient += np.concatenate([_flat(grad.numpy()) for grad in grads])
        if np.isfinite(value) and value < self.best_loss:
            self.best, self.best_loss = weights.copy(), value
        self._seen = (weights.tobytes(), value)
        return (value if np.isfinite(value) else np.inf), np.nan_to_num(gradient)

    def loss_at(self, weights: np.ndarray) -> float:
        """The loss at weights that were mostly just evaluated."""
        if self._seen is not None and self._seen[0] == weights.tobytes():
            return self._seen[1]
        return self(weights)[0]

    def put_best(self) -> None:
        """Leaves the best weights in the model."""
        self._put(self.best)

    def _put(self, weights: np.ndarray) -> None:
        parts = np.split(weights, np.cumsum(self._sizes)[:-1])
        for variable, part in zip(self._variables, parts):
            variable.assign(part.reshape(variable.shape))


def _loss_and_gradient(model: keras.Model, loss: Any, variables: list[tf.Variable]) -> Callable[..., Any]:
    @tf.function(autograph=False, reduce_retracing=True)
    def part(x: Any, y: Any, weight: Any, share: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            predictions = model(x, training=False)
            value = loss(y, predictions) if weight is None else loss(y, predictions, sample_weight=weight)
            total = tf.cast(tf.reduce_mean(value), tf.float64)
            total = share * tf.add_n([total, *(tf.cast(each, tf.float64) for each in model.losses)])
        return total, tape.gradient(total, variables, unconnected_gradients="zero")

    return part


def _tensor(value: Any) -> tf.Tensor:
    return tf.convert_to_tensor(value)


def _rows(value: Any, rows: slice) -> Any:
    return None if value is None else tf.nest.map_structure(lambda each: each[rows], value)


def _flat(value: np.ndarray) -> np.ndarray:
    return np.ravel(value).astype("float64")


def _trainable(model: keras.Model) -> list[keras.Variable]:
    _checks.check_instance("model", model, keras.Model)
    if not model.built or not model.trainable_variables:
        raise ValueError(
            "`model` must be built and have trainable weights. "
            f"Received: model={model.name!r}. Call it on a batch, or unfreeze layers."
        )
    bound = [variable.path for variable in model.trainable_variables if variable.constraint is not None]
    if bound:
        raise ValueError(
            f"`minimize` cannot keep the constraints of variables: {', '.join(bound[:3])}. Make the layers "
            "without constraints, or train by `fit`."
        )
    return list(model.trainable_variables)


def _data(x: Any, y: Any, sample_weight: Any) -> tuple:
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
        raise TypeError(
            "`x` must hold all data at once, as arrays. Received: a dataset. Gather it: "
            "`x, y = next(iter(dataset.unbatch().batch(count)))`."
        )
    counts = {len(each) for each in tf.nest.flatten((x, y, sample_weight)) if each is not None}
    if len(counts) != 1:
        raise ValueError(f"All arrays must have as many examples. Received: {sorted(counts)}.")
    return (x, y, sample_weight)


def _loss_of(model: keras.Model, loss: Any) -> Any:
    if loss is None:
        loss = model.loss if getattr(model, "compiled", False) else None
    if loss is None or isinstance(loss, dict | list):
        raise ValueError(
            "`loss` must be one loss for the outputs together, or `model` be compiled with one. "
            f"Received: loss={loss!r}. For several outputs give a function of (y, predictions)."
        )
    return keras.losses.get(loss) if isinstance(loss, str | dict) else loss

"""Activations, written with the integer kernels that TFLite has, each rounded as its kernel rounds.

TFLite has kernels for relu, relu6, leaky relu, sigmoid, tanh, softmax, log softmax, hard swish and GELU.
Others
are sums and products of such, and of exp and log, arranged so that each intermediate result has few digits
before its point: softplus(x) = max(x, 0) + log(1 + exp(-|x|)), not log(1 + exp(x)).
"""

from collections.abc import Callable
from typing import Any

import keras

from tfopt.compress.quantization.affine import QuantizedRescaling

L = keras.layers
A = keras.activations
ops = keras.ops
Ranged = Callable[..., Any]

RELUS = (A.linear, A.relu, A.relu6)
_ONE_KERNEL = (
    *RELUS,
    A.leaky_relu,
    A.hard_silu,
    A.sigmoid,
    A.tanh,
    A.softmax,
    A.log_softmax,
    A.gelu,
    A.exponential,
)
# TFLite fixes the output scale of these kernels.
PROBABILITY = {"minimum": 0.0, "maximum": 255.0 / 256.0}
_FIXED = {
    A.sigmoid: PROBABILITY,
    A.softmax: PROBABILITY,
    A.tanh: {"minimum": -1.0, "maximum": 127.0 / 128.0},
    A.log_softmax: {"minimum": -255.0 / 16.0, "maximum": 0.0},
}


def activation(function: Any, inputs: Any, name: str, ranged: Ranged) -> Any:
    """An activation as TFLite computes it, rounded after each of its kernels.

    Args:
        function: As in `keras.activations`.
        inputs: Rounded.
        name: Name of the layer whose outputs these are.
        ranged: `ranged(outputs, name, **limits)` rounds.
    """
    if function in _COMPOSED:
        return _COMPOSED[function](inputs, name, ranged)
    return ranged(L.Activation(function, name=name)(inputs), name, **_FIXED.get(function, {}))


def has_kernels(function: Any) -> bool:
    """Whether TFLite computes an activation in integers."""
    return function in _ONE_KERNEL or function in _COMPOSED


def elu(inputs: Any, name: str, ranged: Ranged, alpha: float = 1.0, scale: float = 1.0) -> Any:
    """scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))."""
    negative = ranged(ops.minimum(inputs, 0.0), f"{name}_negative")
    power = ranged(ops.exp(negative), f"{name}_exp", minimum=0.0, maximum=1.0)
    below = ranged(
        QuantizedRescaling(scale * alpha, -scale * alpha, name=f"{name}_below")(power), f"{name}_below"
    )
    above = ranged(ops.relu(inputs), f"{name}_above")
    if scale != 1.0:
        above = ranged(ops.multiply(above, scale), f"{name}_scale")
    return ranged(L.Add(name=name)([above, below]), name)


def _silu(inputs: Any, name: str, ranged: Ranged) -> Any:
    gate = activation(A.sigmoid, inputs, f"{name}_sigmoid", ranged)
    return ranged(L.Multiply(name=name)([inputs, gate]), name)


def _hard_sigmoid(inputs: Any, name: str, ranged: Ranged) -> Any:
    shifted = L.Rescaling(1.0, 3.0, name=f"{name}_shift")(inputs)
    clipped = ranged(L.ReLU(6.0, name=f"{name}_clip")(shifted), f"{name}_clip", minimum=0.0, maximum=6.0)
    return ranged(L.Rescaling(1.0 / 6.0, name=name)(clipped), name, minimum=0.0, maximum=1.0)


def _selu(inputs: Any, name: str, ranged: Ranged) -> Any:
    return elu(inputs, name, ranged, alpha=1.6732632423543772, scale=1.0507009873554805)


def _softplus(inputs: Any, name: str, ranged: Ranged) -> Any:
    above = ranged(ops.relu(inputs), f"{name}_above")
    size = ranged(ops.abs(inputs), f"{name}_abs")
    minus = ranged(ops.multiply(size, -1.0), f"{name}_minus")
    power = ranged(ops.exp(minus), f"{name}_exp", minimum=0.0, maximum=1.0)
    total = ranged(ops.add(power, 1.0), f"{name}_plus", minimum=0.0, maximum=2.0)
    rest = ranged(ops.log(total), f"{name}_log", minimum=0.0, maximum=0.70)
    return ranged(L.Add(name=name)([above, rest]), name)


def _mish(inputs: Any, name: str, ranged: Ranged) -> Any:
    gate = activation(A.tanh, _softplus(inputs, f"{name}_softplus", ranged), f"{name}_tanh", ranged)
    return ranged(L.Multiply(name=name)([inputs, gate]), name)


_COMPOSED: dict[Any, Callable[[Any, str, Ranged], Any]] = {
    A.silu: _silu,
    A.hard_sigmoid: _hard_sigmoid,
    A.elu: elu,
    A.celu: elu,
    A.selu: _selu,
    A.softplus: _softplus,
    A.mish: _mish,
}

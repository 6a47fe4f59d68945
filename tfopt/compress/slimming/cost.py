"""What a model costs with some of its channels removed, known before it is built."""

import math
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from tfopt.compress.slimming.channels import Channels
from tfopt.compress.slimming.kernel_rules import RECURRENT
from tfopt.compress.slimming.rules import weights

_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


@final
@dataclass(frozen=True)
class Cost:
    """Operations of the kernels for one input (a multiplication and an addition are two), weights, bytes."""

    flops: int
    params: int
    bytes: int


def cost(channels: Channels, kept: np.ndarray) -> Cost:
    """Cost of a model in which the units stay for which `kept` is true.

    Raises:
        ValueError: If the image size is not known.
    """
    flops, sizes = 0, {}
    for call in channels.graph.calls:
        for weight in weights(call):
            shape = kept_shape(channels, kept, weight)
            sizes[id(weight)] = math.prod(shape), np.dtype(weight.dtype).itemsize
            if len(shape) >= 2 and id(weight) in channels.axes:
                flops += _operations(channels, call, weight, math.prod(shape))
    params = sum(count for count, _ in sizes.values())
    return Cost(flops, params, sum(count * itemsize for count, itemsize in sizes.values()))


def kept_shape(channels: Channels, kept: np.ndarray, weight: Any) -> tuple[int, ...]:
    """Shape of what stays of a weight."""
    shape = list(weight.shape)
    for axis, numbers in channels.axes.get(id(weight), {}).items():
        shape[axis] = int(np.count_nonzero(kept[channels.unit[numbers]]))
    return tuple(shape)


def _operations(channels: Channels, call: Any, weight: Any, size: int) -> int:
    """An embedding is a look-up: its table makes no operations."""
    return 0 if isinstance(call.operation, keras.layers.Embedding) else 2 * size * _positions(channels, call)


def _positions(channels: Channels, call: Any) -> int:
    """At how many places a kernel works: of its output; of its input if it goes from there."""
    from_input = isinstance(call.operation, (*_TRANSPOSED, *RECURRENT, keras.layers.Bidirectional))
    index = call.inputs[0] if from_input else call.outputs[0]
    spatial = channels.graph.tensor(index).shape[1:-1]
    return math.prod(size or 1 for size in spatial)

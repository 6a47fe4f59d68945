"""What a model costs with some of its channels removed, known before it is built."""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt.compress.slimming.channels import Channels
from tfopt.compress.slimming.rules import weights


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
        ValueError: an image size that is not known.
    """
    flops, sizes = 0, {}
    for call in channels.graph.calls:
        for weight in weights(call):
            shape = kept_shape(channels, kept, weight)
            sizes[id(weight)] = math.prod(shape), np.dtype(weight.dtype).itemsize
            if len(shape) >= 2 and id(weight) in channels.axes:
                flops += 2 * math.prod(shape) * _positions(channels, call)
    params = sum(count for count, _ in sizes.values())
    return Cost(flops, params, sum(count * itemsize for count, itemsize in sizes.values()))


def kept_shape(channels: Channels, kept: np.ndarray, weight: Any) -> tuple[int, ...]:
    """Shape of what stays of a weight."""
    shape = list(weight.shape)
    for axis, numbers in channels.axes.get(id(weight), {}).items():
        shape[axis] = int(np.count_nonzero(kept[channels.unit[numbers]]))
    return tuple(shape)


def _positions(channels: Channels, call: Any) -> int:
    """At how many places of the output a kernel works."""
    spatial = channels.graph.tensor(call.outputs[0]).shape[1:-1]
    return math.prod(size or 1 for size in spatial)

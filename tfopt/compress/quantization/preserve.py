"""What a pruned or clustered kernel must keep in training: its zeros, its shared values, or both."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt.compress.clustering.groups import value_groups, zero_groups

PRESERVE = (None, "sparsity", "clusters", "both")


@final
@dataclass(frozen=True)
class Kept:
    """Groups of a kernel, and the layer arguments that go with them."""

    groups: np.ndarray
    options: dict[str, Any]


def kept_in(kernel: np.ndarray, preserve: str | None) -> Kept | None:
    """What there is to keep in a kernel, or None.

    Args:
        kernel: Weights, output channels last.
        preserve: One of `PRESERVE`.
    """
    zeros = preserve in ("sparsity", "both") and bool((kernel == 0).any())
    if preserve in ("clusters", "both"):
        per_channel = _clustered_per_channel(kernel)
        if per_channel is not None:
            groups = value_groups(kernel, per_channel=per_channel, keep_zeros=zeros)
            return Kept(groups, {"clusters": int(groups.max()), "one_scale": not per_channel})
    return Kept(zero_groups(kernel), {"clusters": 0}) if zeros else None


def _clustered_per_channel(kernel: np.ndarray) -> bool | None:
    """False if the channels share few values, True if each has few of its own, None if there are many."""
    channels = np.moveaxis(kernel, -1, 0)
    own = sum(len(np.unique(channel[channel != 0])) for channel in channels)
    shared = len(np.unique(kernel[kernel != 0]))
    few = 2 * min(own, shared) <= np.count_nonzero(kernel)
    return shared == own if few and shared else None

"""What normalizations and slopes do with the numbers of their channels; see `rules`."""

from typing import TYPE_CHECKING, Any

from tfopt.compress._graph import Call

if TYPE_CHECKING:
    from tfopt.compress.slimming.channels import Channels, Numbers


def batch_normalization(channels: "Channels", call: Call) -> "Numbers | None":
    """Scales, shifts and statistics of each channel."""
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    if layer.axis not in (-1, len(channels.graph.tensor(call.inputs[0]).shape) - 1):
        return None
    for weight in layer.weights:
        channels.slices(weight, {0: inputs}, 0)
    producer = channels.graph.producer.get(call.inputs[0])
    if producer is not None and len(channels.graph.consumers[call.inputs[0]]) == 1:
        for weight in getattr(producer.operation, "weights", ()):
            if id(weight) in channels.made and len(weight.shape) >= 2:
                channels.folded[id(weight)] = layer
    return inputs


def prelu(channels: "Channels", call: Call) -> "Numbers | None":
    """Slopes of each channel."""
    inputs, alpha = channels.of[call.inputs[0]], call.operation.alpha
    channels.slices(alpha, {alpha.ndim - 1: inputs})
    return inputs


def layer_normalization(channels: "Channels", call: Call) -> "Numbers | None":
    """Over the last axis: the channels that stay are normalized among themselves."""
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    rank = len(channels.graph.tensor(call.inputs[0]).shape)
    if [axis % rank for axis in axes] != [rank - 1]:
        return None
    for weight in layer.weights:
        channels.slices(weight, {0: inputs}, 0)
    return inputs


def group_normalization(channels: "Channels", call: Call) -> "Numbers | None":
    """The channels of a group go together: what stays is normalized as before."""
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    rank = len(channels.graph.tensor(call.inputs[0]).shape)
    if layer.axis % rank != rank - 1:
        return None
    groups = inputs.reshape(_groups(layer, len(inputs)), -1)
    if groups.shape[0] > 1:  # with a single group it is a normalization over all channels
        join_groups(channels, groups)
    for weight in layer.weights:
        channels.slices(weight, {0: inputs}, 0)
    return inputs


def join_groups(channels: "Channels", groups: Any) -> None:
    """Makes one unit of each row of channels."""
    for column in groups.T[1:]:
        channels.join(groups[:, 0], column)


def kept_groups(layer: Any, before: int, after: int) -> int:
    """The groups of a layer that stay when `after` of `before` channels do."""
    groups = _groups(layer, before)
    return max(groups * after // before, 1)


def _groups(layer: Any, channels: int) -> int:
    return channels if layer.groups == -1 else layer.groups

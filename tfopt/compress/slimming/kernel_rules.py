"""What layers with kernels do with the numbers of their channels; see `rules`."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfopt.compress._graph import Call, Ref
from tfopt.compress._layouts import LAYOUTS, Layout, row
from tfopt.compress.slimming.norm_rules import join_groups

if TYPE_CHECKING:
    from tfopt.compress.slimming.channels import Channels, Numbers

L = keras.layers
A = keras.activations
ELEMENTWISE = (
    *(A.linear, A.relu, A.relu6, A.leaky_relu, A.elu, A.selu, A.celu, A.gelu, A.silu, A.mish),
    *(A.sigmoid, A.hard_sigmoid, A.hard_silu, A.tanh, A.hard_tanh, A.softplus, A.softsign, A.exponential),
)
RECURRENT = (L.LSTM, L.GRU, L.SimpleRNN)
_CELLS = (L.LSTMCell, L.GRUCell, L.SimpleRNNCell)
KINDS = tuple(kind for kind, layout in LAYOUTS.items() if layout != () and kind not in _CELLS)


def weighted(channels: "Channels", call: Call) -> "Numbers | None":
    """Kernels one after the other: one without input channels carries them on, others make new ones."""
    layer, numbers = call.operation, channels.of[call.inputs[0]]
    if isinstance(layer, L.EinsumDense) and not _is_dense(layer):
        return None
    if isinstance(layer, L.Embedding):
        channels.fix(numbers)  # it reads numbers of words, not channels
        numbers = channels.fix(channels.fresh(layer.input_dim))
    for layout in row(layer) or ():
        numbers = _through(channels, layer, layout, numbers)
    return _biased(channels, layer, numbers)


def _through(channels: "Channels", layer: Any, layout: Layout, numbers: "Numbers") -> "Numbers":
    kernel: Any = getattr(layer, layout.weight)
    rank = len(kernel.shape)
    if not layout.inputs:
        alone = layout.weight == "kernel"  # the first half of a separable convolution makes no channels
        channels.slices(kernel, {rank - 2: numbers}, made=rank - 2 if alone else None)
        return np.repeat(numbers, layer.depth_multiplier)
    ((read,), (made,)) = layout.inputs, layout.outputs
    outputs = channels.fresh(kernel.shape[made])
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        channels.slices(kernel, {rank + read: numbers, rank + made: outputs}, rank + made)
        return outputs
    for numbers_of in (numbers, outputs):  # a whole group goes, with what it reads
        join_groups(channels, numbers_of.reshape(groups, -1))
    channels.join(numbers.reshape(groups, -1)[:, 0], outputs.reshape(groups, -1)[:, 0])
    channels.slices(kernel, {rank + made: outputs}, rank + made)
    return outputs


def recurrent(channels: "Channels", call: Call) -> "Numbers | None":
    """Units go with their gates, in the kernel and in the recurrent kernel."""
    if not _only_sequences(channels, call) or call.operation.return_state or call.operation.stateful:
        return None
    return _units(channels, call.operation.cell, channels.of[call.inputs[0]])


def _only_sequences(channels: "Channels", call: Call) -> bool:
    """Whether a recurrent layer takes sequences and at most a mask besides, no states."""
    mask = call.kwargs.get("mask")
    if isinstance(mask, Ref):
        channels.fix(channels.of[mask.index])
    return len(call.inputs) == 1 + isinstance(mask, Ref)


def bidirectional(channels: "Channels", call: Call) -> "Numbers | None":
    """A unit goes in both directions at once."""
    layer = call.operation
    directions = (layer.forward_layer, layer.backward_layer)
    simple = all(type(each) in RECURRENT and not each.stateful for each in directions)
    if (
        not _only_sequences(channels, call)
        or not simple
        or layer.merge_mode not in ("concat", "sum", "mul", "ave")
    ):
        return None
    inputs = channels.of[call.inputs[0]]
    forward, backward = (_units(channels, each.cell, inputs) for each in directions)
    channels.join(forward, backward)
    return np.concatenate([forward, backward]) if layer.merge_mode == "concat" else forward


def _units(channels: "Channels", cell: Any, inputs: "Numbers") -> "Numbers":
    units = channels.fresh(cell.units)
    gates: Numbers = np.tile(units, cell.kernel.shape[-1] // cell.units)
    channels.slices(cell.kernel, {0: inputs, 1: gates}, 1)
    channels.slices(cell.recurrent_kernel, {0: units, 1: gates}, 1)
    if cell.use_bias:
        channels.slices(cell.bias, {len(cell.bias.shape) - 1: gates})
    return units


def attention(channels: "Channels", call: Call) -> "Numbers | None":
    """Whole heads go, and the channels that queries, keys and values are made of."""
    layer, args = call.operation, [arg for arg in call.args if isinstance(arg, Ref)]
    named = {name: arg for name, arg in call.kwargs.items() if isinstance(arg, Ref)}
    query = args[0] if args else named.get("query")
    value = args[1] if len(args) > 1 else named.get("value")
    key = args[2] if len(args) > 2 else named.get("key", value)
    if query is None or value is None or key is None:
        return None
    for arg in named.values():
        if arg not in (query, value, key):
            channels.fix(channels.of[arg.index])  # masks
    heads = channels.fresh(layer.num_heads)
    parts = ((layer.query_dense, query), (layer.key_dense, key), (layer.value_dense, value))
    for part, source in parts:
        channels.slices(part.kernel, {0: channels.of[source.index], 1: heads}, 1)
        if part.bias is not None:
            channels.slices(part.bias, {0: heads})
    last = layer.output_dense
    outputs = channels.fresh(last.kernel.shape[-1])
    channels.slices(last.kernel, {0: heads, last.kernel.ndim - 1: outputs}, last.kernel.ndim - 1)
    if last.bias is not None:
        channels.slices(last.bias, {0: outputs}, 0)
    return outputs


def _biased(channels: "Channels", layer: Any, outputs: "Numbers") -> "Numbers":
    bias = getattr(layer, "bias", None)
    if bias is not None:
        channels.slices(bias, {len(bias.shape) - 1: outputs}, len(bias.shape) - 1)
    return outputs if getattr(layer, "activation", A.linear) in ELEMENTWISE else channels.fix(outputs)


def _is_dense(layer: Any) -> bool:
    """Whether an `EinsumDense` replaces the last axis of its input by new channels, as `Dense` does."""
    operands, result = layer.equation.replace(" ", "").split("->")
    source, kernel = operands.split(",")
    simple = len(kernel) == 2 and source[-1] == kernel[0] and result[-1] == kernel[1]
    return simple and source[:-1] == result[:-1] and (layer.bias is None or len(layer.bias.shape) == 1)

"""The kernels of the layers of Keras and KerasHub, by the name of the class and of the variable."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfopt.optimizers._geometry import Geometry, from_shape
from tfopt.optimizers._owners import owners
from tfopt.optimizers._slots import path_of

Rule = Callable[[Any, tuple[int, ...]], Geometry]  # from a layer and the shape of its variable

_VECTOR = re.compile(r"bias$|^(gamma|beta|alpha|scale|per_dim_scale|layer_scale|lambda\d?)$")
_TABLE = re.compile(r"(embeddings?|embed|embedding_table|mask_emb|tokens?|rel_pos_[hw])$")


def geometries(variables: Sequence[Any], ask_layers: bool = True) -> list[Geometry]:
    """The geometry of every variable, as its layer has it; by its shape where no layer is known or asked."""
    # Only the path of a variable that a layer made has parts.
    asked = [each for each in variables if ask_layers and len(each.shape) > 1 and "/" in path_of(each)]
    owned = owners(asked)
    return [_geometry(variable, owned.get(id(variable), ())) for variable in variables]


def _geometry(variable: Any, layers: Sequence[keras.Layer]) -> Geometry:
    shape, name = tuple(variable.shape), variable.name.split(":")[0]
    if len(shape) < 2:
        return Geometry(shape, "vector")
    for layer in layers:  # several if they share it: the first one that is known says what it means
        for kind in type(layer).__mro__:
            if (kind.__name__, name) in _KERNELS:
                return _KERNELS[kind.__name__, name](layer, shape)
    if layers and _VECTOR.search(name):
        return Geometry(shape, "vector")
    if layers and _TABLE.search(name):
        return _table(layers[0], shape)
    return from_shape(shape, name)


def _last(layer: Any, shape: tuple[int, ...]) -> Geometry:
    return Geometry(shape, "kernel", (len(shape) - 1,))


def _table(layer: Any, shape: tuple[int, ...]) -> Geometry:
    return Geometry(shape, "table", (len(shape) - 1,))


def _grouped(layer: Any, shape: tuple[int, ...]) -> Geometry:
    return Geometry(shape, "kernel", (len(shape) - 1,), blocks=layer.groups)


def _transposed(layer: Any, shape: tuple[int, ...]) -> Geometry:
    return Geometry(shape, "kernel", (len(shape) - 2,))


def _depthwise(layer: Any, shape: tuple[int, ...]) -> Geometry:
    return Geometry(shape, "kernel", (len(shape) - 2, len(shape) - 1))


def _side_by_side(blocks: int) -> Rule:
    return lambda layer, shape: Geometry(shape, "kernel", (len(shape) - 1,), blocks=blocks)


def _experts(blocks: int = 1) -> Rule:
    return lambda layer, shape: Geometry(shape, "kernel", (2,), stacked=(0,), blocks=blocks)


def _einsum(layer: Any, shape: tuple[int, ...]) -> Geometry:
    """Letters in inputs and kernel only are summed over; letters in all three make separate kernels."""
    terms, result = layer.equation.replace("...", "").replace(" ", "").split("->")
    inputs, kernel = terms.split(",")
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in result and letter not in inputs)
    stacked = tuple(axis for axis, letter in enumerate(kernel) if letter in result and letter in inputs)
    if len(outputs) + len(stacked) == len(kernel):
        return Geometry(shape, "vector")  # a scale of the inputs: nothing is summed over
    return Geometry(shape, "kernel", outputs, stacked)


_KERNELS: dict[tuple[str, str], Rule] = {
    ("Dense", "kernel"): _last,
    ("EinsumDense", "kernel"): _einsum,
    ("BaseConv", "kernel"): _grouped,
    ("BaseConvTranspose", "kernel"): _transposed,
    ("BaseDepthwiseConv", "kernel"): _depthwise,
    ("BaseSeparableConv", "depthwise_kernel"): _depthwise,
    ("BaseSeparableConv", "pointwise_kernel"): _last,
    ("Embedding", "embeddings"): _table,
    ("Embedding", "lora_embeddings_a"): _table,
    ("Embedding", "lora_embeddings_b"): _last,
    ("ReversibleEmbedding", "reverse_embeddings"): _last,
    ("Attention", "concat_score_weight"): lambda layer, shape: Geometry(shape, "vector"),
    **{
        (layer, f"lora_kernel_{part}"): _last
        for layer in ("Dense", "EinsumDense", "BaseConv")
        for part in "ab"
    },
    **{
        (cell, name): _side_by_side(gates)
        for cell, gates in (("SimpleRNNCell", 1), ("GRUCell", 3), ("LSTMCell", 4), ("ConvLSTMCell", 4))
        for name in ("kernel", "recurrent_kernel")
    },
    # KerasHub: experts are (experts, inputs, outputs).
    ("MixtralMoeExperts", "expert_feedforward_gate_dense"): _experts(),
    ("MixtralMoeExperts", "expert_feedforward_intermediate_dense"): _experts(),
    ("MixtralMoeExperts", "expert_feedforward_output_dense"): _experts(),
    **{
        (f"{model}Experts", f"expert_feedforward_{name}_dense"): _experts(blocks)
        for model in ("QwenMoe", "Qwen3Moe", "Qwen3_5Moe")
        for name, blocks in (("gate", 2), ("output", 1))  # gate and up side by side
    },
    ("GptOssExperts", "gate_up_proj"): _experts(),  # gate and up take turns: no blocks
    ("GptOssExperts", "down_proj"): _experts(),
    ("Gemma4MoEBlock", "gate_proj"): _experts(),
    ("Gemma4MoEBlock", "up_proj"): _experts(),
    ("Gemma4MoEBlock", "down_proj"): _experts(),
    ("MaskedLMHead", "output_kernel"): _last,
}

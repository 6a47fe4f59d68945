"""binarize and ternarize: clones of a model whose kernels have one bit or three values."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from tfopt._checks import check_instance, message
from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Graph
from tfopt.compress.binarization.layers import BinaryConv2D, BinaryDense, TernaryConv2D, TernaryDense
from tfopt.compress.distillation import Lesson

L = keras.layers


def binarize(
    model: keras.Model,
    exclude: Sequence[str] = (),
    *,
    scale: bool = True,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """Returns a clone whose Conv2D and Dense kernels are signs times a scale per output channel.

    Use it for the smallest download, where some accuracy may be lost; train the clone with the whole recipe
    of the model, best with `teacher=model`. Neither TFLite nor TensorFlow has kernels for single bits: the
    file computes as any other and stores a byte (int8) or four (float) per weight, but it zips to less than
    two bits. For speed remove channels with `slim`.

        kernel = mean|w| * sign(w);   gradient to w as if sign were clip(w, -1, 1) (straight-through)

    The first and the last layer with a kernel stay as they are: they are small and lose the most. So do
    depthwise convolutions, and activations.

    Args:
        model: A Functional or Sequential model; models nested in it are opened.
        exclude: More layers to leave alone: names or patterns such as "block_1_*".
        scale: False for BinaryConnect's plain signs, which need batch normalization behind them.
        teacher: A model, such as `model` itself, to learn from besides the labels in every `fit` of the
            clone; see `Distillation`.

    Returns:
        A flat `keras.Model` with the same inputs, outputs, layer names and weights. Not compiled.

    Raises:
        ValueError: The model is subclassed or not built, a name fits no layer, or nothing is left to convert.

    Example:
        >>> binary = tfopt.compress.binarize(model, teacher=model)
        >>> binary.compile(tfopt.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        >>> binary.fit(train, epochs=20)

    References:
        Courbariaux, Bengio, David: BinaryConnect. arXiv:1511.00363
        Rastegari et al.: XNOR-Net (its weights, not its activations). arXiv:1603.05279
    """
    check_instance("scale", scale, bool)
    kinds = {L.Conv2D: BinaryConv2D, L.Dense: BinaryDense}
    return _converted(model, kinds, exclude, teacher, {"scale": scale})


def ternarize(
    model: keras.Model, exclude: Sequence[str] = (), *, teacher: keras.Model | None = None
) -> keras.Model:
    """Returns a clone whose Conv2D and Dense kernels are -a, 0 or a, with a scale a per output channel.

    Use it like `binarize`, where one bit loses too much. About half of the weights become zero. There are no
    integer kernels for it either; the file zips to about two bits a weight.

        kernel = a * sign(w) where |w| > 0.7 mean|w|, else 0;   a = mean |w| of those;   straight-through

    Args: see `binarize`.

    Returns:
        A flat `keras.Model` with the same inputs, outputs, layer names and weights. Not compiled.

    Raises:
        ValueError: As in `binarize`.

    Example:
        >>> ternary = tfopt.compress.ternarize(model, exclude=["block_1_*"])

    References:
        Li et al.: Ternary Weight Networks. arXiv:1605.04711
    """
    return _converted(model, {L.Conv2D: TernaryConv2D, L.Dense: TernaryDense}, exclude, teacher, {})


def _converted(
    model: keras.Model,
    kinds: dict[type, Any],
    exclude: Sequence[str],
    teacher: keras.Model | None,
    options: dict[str, Any],
) -> keras.Model:
    graph = Graph(model)
    chosen = _chosen(graph, exclude)

    def make(layer: keras.Layer, name: str) -> keras.Layer:
        if name in chosen:
            return new_layer(layer, name, kinds[type(layer)], **options)
        return new_layer(layer, name)

    converted = cloned(graph, make)
    Lesson(teacher).begin(converted)
    return converted


def _chosen(graph: Graph, exclude: Sequence[str]) -> set[str]:
    """Names of the layers to convert: all with a dense kernel but the first, the last and the excluded."""
    names = list(dict.fromkeys(c.name for c in graph.calls if type(c.operation) in (L.Conv2D, L.Dense)))
    excluded = set(names[:1] + names[-1:])
    for pattern in exclude:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise ValueError(message("exclude", f"names of Conv2D or Dense layers: {names}", pattern))
        excluded |= found
    if not set(names) - excluded:
        raise ValueError(
            "`model` must have a Conv2D or Dense layer between the first and the last, and not in `exclude`. "
            f"Received: {graph.model.name!r} with {names}, exclude={list(exclude)}."
        )
    return set(names) - excluded

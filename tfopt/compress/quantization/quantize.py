"""quantize_aware: a clone of a model that trains with the rounding of its int8 file."""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np

from tfopt._checks import check_choice, check_instance, message
from tfopt.compress._graph import Call, Graph
from tfopt.compress._kernels import refuse_keras_quantized
from tfopt.compress._ports import check_model
from tfopt.compress.distillation import Lesson
from tfopt.compress.quantization import rules
from tfopt.compress.quantization.hiding import with_chosen_scores
from tfopt.compress.quantization.inputs import InputRange, calibrate, named_ranges
from tfopt.compress.quantization.layers import FakeQuantize
from tfopt.compress.quantization.opening import Opener, as_functional
from tfopt.compress.quantization.preserve import PRESERVE, Kept, kept_in
from tfopt.compress.quantization.quantizer import Quantizer, softens

L = keras.layers
GROUPED: set[type] = {L.Conv1D, L.Conv2D, L.Conv2DTranspose, L.Dense}
_logger = logging.getLogger(__name__)


def quantize_aware(
    model: keras.Model,
    preserve: str | None = None,
    *,
    skip: Sequence[str] = (),
    scheme: Mapping[type, type] | None = None,
    freeze_batch_norm: bool = True,
    teacher: keras.Model | None = None,
    input_range: InputRange = None,
    data: Any = None,
) -> keras.Model:
    """Returns a clone that computes with int8 values, to be trained a little and exported.

    Use it when `export(quantization="int8")` of the float model loses accuracy. Compile the clone with a
    small learning rate (a tenth of the last one), fit it for an epoch or more, then export it; no
    representative data is needed. The original model is not changed, and shares nothing with the clone.

        weights:      symmetric, 8 bits, a scale per channel (Dense: one per kernel)
        activations:  8 bits, range learned as a moving average of batch extremes

    Batch normalization behind a convolution stays a layer; the converter folds it into the kernel. Channels
    of very unequal size are made even first (`equalize`), unless an argument asks to keep something. Layers
    without a rule, a user's own or attention, are opened where their `call` consists of Keras layers and
    `keras.ops`. What TFLite has no integer kernel for is computed in float inside the int8 file, between
    integer neighbors; a warning names it.

    Args:
        model: A Functional, Sequential or built subclassed model; models nested in it are opened.
        preserve: What training must keep of a pruned or clustered model: "sparsity" (zeros), "clusters"
            (shared values; channels that share values share one scale), or "both".
        skip: What to leave in float: names of layers, operations and inputs, or patterns such as "block_1_*".
        scheme: Your own layers by the layer they replace, such as `{keras.layers.Dense: MyDense}`; made by
            `MyDense.from_config(dense.get_config())`, weights copied, outputs rounded.
        freeze_batch_norm: Keep the statistics, scales and shifts that the model has learned. The clone then
            starts as the function that the model is, and trains faster. False trains them on.
        teacher: A model, such as `model` itself, to learn from besides the labels in every `fit` of the
            clone (not saved with it); see `Distillation`.
        input_range: (low, high) of all inputs, or a dictionary of such by the name of the input. By
        default it
            is learned: the extremes of all batches, which for pixels are 0 and 255. Integer inputs are
            indices
            or exact numbers and are never rounded.
        data: A batched dataset or arrays, from which all ranges start (32 batches at most). Without, they
            start at the first batch of `fit`. A clone made with data can be exported without any training,
            and warnings tell of inputs outside of `input_range` and of columns of very unequal size.

    Returns:
        A flat `keras.Model` with the same inputs, outputs and layer names. Not compiled.

    Raises:
        ValueError: If the model is not built, is a subclassed one that cannot be traced, is quantized
            already, or has nothing that `preserve` could keep.

    Example:
        >>> quantized = tfopt.compress.quantize_aware(model)
        >>> quantized.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy")
        >>> quantized.fit(train, epochs=2)
        >>> tfopt.compress.export(quantized, "flowers.tflite", quantization="int8")

    Differs from tfmot: takes Keras 3 models, nested ones too; depthwise kernels have a scale per channel;
    any Keras optimizer, callback and strategy trains the clone; it saves and loads as `.keras`.

    References:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Inference. arXiv:1712.05877
        Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342
    """
    check_instance("freeze_batch_norm", freeze_batch_norm, bool)
    check_choice("preserve", preserve, PRESERVE)
    scheme = dict(scheme or {})
    refuse_keras_quantized(check_model(model), "quantized")
    source = as_functional(model)
    if preserve is None and freeze_batch_norm and not (skip or scheme):
        source = _evened(source, data)
    graph = _opened(source, Opener(skip, list(scheme)))
    _check_float(graph)
    skipped = _matching(graph, skip)
    kept = _kept(graph, skipped, GROUPED - scheme.keys(), preserve)
    quantizer = Quantizer(graph, skipped, scheme, kept, named_ranges(graph.model, input_range))
    quantized = graph.replay(quantizer.run, quantizer.source)
    _set_weights(graph, quantizer.clones, kept)
    outputs = {id(tensor) for tensor in quantized.outputs}
    for layer in quantized.layers:
        if isinstance(layer, FakeQuantize) and softens(layer):
            layer.in_training = id(layer.output) not in outputs
    for layer in quantized.layers if freeze_batch_norm else ():
        if isinstance(layer, L.BatchNormalization):
            layer.trainable = False
    if quantizer.floats:
        _logger.warning(
            "Computed in float inside the int8 file, for want of an integer kernel: %s.",
            ", ".join(dict.fromkeys(quantizer.floats)),
        )
    if data is not None:
        calibrate(quantized, data)
    Lesson(teacher).begin(quantized)
    return quantized


def _opened(model: keras.Model, opener: Opener) -> Graph:
    """The calls of the model, the masks in its attention such that scores keep their scale."""
    graph = Graph(model, opener)
    bounded = with_chosen_scores(graph)
    return graph if bounded is None else Graph(bounded, opener)


def _evened(model: keras.Model, data: Any) -> keras.Model:
    """The model, or its equalized copy where training would not bring back what int8 loses."""
    from tfopt.compress.equalization import equalize  # it reads the rules of this package
    from tfopt.compress.equalization.unevenness import is_uneven

    if not is_uneven(model):
        return model
    _logger.warning(
        "%s has channels of very unequal size, of which int8 would lose most: they are equalized, and batch "
        "normalizations folded. See `equalize`; `skip` or `freeze_batch_norm=False` leave them as they are.",
        model.name,
    )
    return equalize(model, data)


def _set_weights(graph: Graph, clones: dict[str, keras.Layer], kept: dict[str, Kept]) -> None:
    for call in graph.calls:
        if call.name in clones:
            groups = [kept[call.name].groups] if call.name in kept else []
            clones[call.name].set_weights([*call.operation.get_weights(), *groups])
        if call.name in clones and rules.folds(graph, call) and call.operation.scale:
            _without_zero_gammas(graph, call, clones)


def _without_zero_gammas(graph: Graph, call: Call, clones: dict[str, keras.Layer]) -> None:
    """Channels that a batch normalization multiplies by (nearly) zero get a gamma of 1 and no weights.

    They give beta as before. The converter cannot fold a scale of zero: it leaves the convolution in float;
    and folded into small weights, a small scale leaves no step that a 32-bit bias fits.
    """
    norm, producer = clones[call.name], graph.producer[call.inputs[0]]
    gamma = np.asarray(norm.gamma.numpy())
    least = max(float(np.abs(gamma).max()), 1.0) * 2.0**-10
    dead = np.abs(gamma) < least
    if not dead.any():
        return
    if sum(each.name == producer.name for each in graph.calls) > 1:  # its weights serve another call, too
        norm.gamma.assign(np.where(dead, np.copysign(least, gamma), gamma))
        return
    convolution = clones[producer.name]
    kernel = convolution.kernel.numpy()
    channels = dead.reshape(kernel.shape[-2:]) if rules.is_depthwise(convolution) else dead
    convolution.kernel.assign(np.where(channels, 0.0, kernel))
    bias = convolution.bias.numpy() if convolution.use_bias else 0.0
    norm.gamma.assign(np.where(dead, 1.0, gamma))
    norm.moving_mean.assign(np.where(dead, bias, norm.moving_mean.numpy()))
    norm.moving_variance.assign(np.where(dead, 1.0, norm.moving_variance.numpy()))


def _check_float(graph: Graph) -> None:
    """Refuses models of this function."""
    for call in graph.calls:
        if isinstance(call.operation, FakeQuantize):
            expected = "a model in float: give the one from before its quantization"
            raise ValueError(message("model", expected, f"{call.name!r} of `quantize_aware`"))


def _kept(graph: Graph, skip: set[str], kinds: set[type], preserve: str | None) -> dict[str, Kept]:
    """What each kernel must keep, by name of the layer."""
    if preserve is None:
        return {}
    layers = {call.name: call.operation for call in graph.calls if type(call.operation) in kinds}
    found = {name: kept_in(layer.kernel.numpy(), preserve) for name, layer in layers.items()}
    kept = {name: value for name, value in found.items() if value is not None and name not in skip}
    if not kept:
        expected = "None for a model without pruned or clustered kernels"
        raise ValueError(message("preserve", expected, preserve))
    return kept


def _matching(graph: Graph, skip: Sequence[str]) -> set[str]:
    """Names of calls and inputs that fit one of the patterns."""
    names = {call.name for call in graph.calls} | {tensor.name for tensor in graph.model.inputs}
    found: set[str] = set()
    for pattern in skip:
        fits = {name for name in names if fnmatchcase(name, pattern)}
        if not fits:
            raise ValueError(message("skip", f"names of layers: {sorted(names)}", pattern))
        found |= fits
    return found

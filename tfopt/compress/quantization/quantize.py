"""quantize_aware: a clone of a model that trains with the rounding of its int8 file."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from tfopt._checks import check_choice, check_instance, message
from tfopt.compress._graph import Call, Graph
from tfopt.compress.distillation import Lesson
from tfopt.compress.quantization import rules
from tfopt.compress.quantization.layers import FakeQuantize
from tfopt.compress.quantization.preserve import PRESERVE, Kept, kept_in

L = keras.layers
PIXELS = (0.0, 255.0)
GROUPED: set[type] = {L.Conv2D, L.Dense}


def quantize_aware(
    model: keras.Model,
    preserve: str | None = None,
    *,
    skip: Sequence[str] = (),
    scheme: Mapping[type, type] | None = None,
    freeze_batch_norm: bool = True,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """Returns a clone that computes with int8 values, to be trained a little and exported.

    Use it when `export(quantization="int8")` of the float model loses accuracy. Compile the clone with a
    small learning rate (a tenth of the last one), fit it for an epoch or more, then export it; no
    representative data is needed. The original model is not changed, and shares nothing with the clone.

        weights:      symmetric, 8 bits, a scale per channel (Dense: one per kernel)
        activations:  8 bits, range learned as a moving average of batch extremes

    Batch normalisation behind a convolution stays a layer; the converter folds it into the kernel.

    Args:
        model: A Functional or Sequential model; models nested in it are opened. If it starts with
            `Rescaling`, its inputs are taken to be pixels in [0, 255], and the file will take uint8.
        preserve: What training must keep of a pruned or clustered model: "sparsity" (zeros), "clusters"
            (shared values; channels that share values share one scale), or "both".
        skip: Layers to leave in float: names or patterns such as "block_1_*".
        scheme: Your own layers by the layer they replace, such as `{keras.layers.Dense: MyDense}`; made by
            `MyDense.from_config(dense.get_config())`, weights copied, outputs rounded.
        freeze_batch_norm: Keep the statistics, scales and shifts that the model has learned. The clone then
            starts as the function that the model is, and trains faster. False trains them on.
        teacher: A model, such as `model` itself, to learn from besides the labels in every `fit` of the
            clone (not saved with it); see `Distillation`.

    Returns:
        A flat `keras.Model` with the same inputs, outputs and layer names. Not compiled.

    Raises:
        ValueError: the model is subclassed or not built, has layers without an int8 kernel, or nothing
            that `preserve` could keep.

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
    graph = Graph(model)
    skipped = _matching(graph, skip)
    scheme = dict(scheme or {})
    kept = _kept(graph, skipped, GROUPED - scheme.keys(), preserve)
    quantizer = _Quantizer(graph, skipped, scheme, kept)
    quantized = graph.replay(quantizer.run, quantizer.source)
    for call in graph.calls:
        if call.name in quantizer.clones:
            groups = [kept[call.name].groups] if call.name in kept else []
            quantizer.clones[call.name].set_weights([*call.operation.get_weights(), *groups])
    outputs = {id(tensor) for tensor in quantized.outputs}
    for layer in quantized.layers:
        if isinstance(layer, FakeQuantize) and layer.maximum == rules.PROBABILITY["maximum"]:
            layer.in_training = id(layer.output) not in outputs
    for layer in quantized.layers if freeze_batch_norm else ():
        if isinstance(layer, L.BatchNormalization):
            layer.trainable = False
    Lesson(teacher).begin(quantized)
    return quantized


class _Quantizer:
    """Replays the calls of a graph with rounded weights and activations."""

    def __init__(self, graph: Graph, skip: set[str], scheme: dict[type, type], kept: dict[str, Kept]) -> None:
        self.graph, self.skip, self.scheme, self.kept = graph, skip, scheme, kept
        self.clones: dict[str, keras.Layer] = {}
        self.uses: dict[str, int] = {}
        calls = [call for call in graph.calls if not self._is_exempt(call)]
        bad = [f"{c.name} ({type(c.operation).__name__})" for c in calls if rules.unsupported(graph, c)]
        if bad:
            raise ValueError(
                f"These layers have no int8 rule: {', '.join(bad)}. Leave them in float with `skip=[...]` or "
                "give layers of your own with `scheme={LayerClass: YourClass}`."
            )

    def source(self, tensor: keras.KerasTensor, index: int) -> keras.KerasTensor:
        """Rounds an input of the model."""
        pixels = all(isinstance(call.operation, L.Rescaling) for call in self.graph.consumers[index])
        limits = {"minimum": PIXELS[0], "maximum": PIXELS[1]} if pixels else {}
        return self._ranged(tensor, tensor.name, **limits)

    def run(self, call: Call, args: tuple, kwargs: dict) -> Any:
        """The outputs of a call, rounded where TFLite rounds."""
        layer, name = call.operation, call.name
        if name in self.skip or isinstance(layer, rules.SAME_RANGE):
            return self._layer(call)(*args, **kwargs)
        if type(layer) in self.scheme:
            return self._ranged(self._layer(call, self.scheme[type(layer)])(*args, **kwargs), name)
        if isinstance(layer, L.Rescaling) and self._rescales_pixels(call):
            return self._rescaled(call, *args)
        if isinstance(layer, L.Activation):
            return rules.activation(layer.activation, args[0], name, self._ranged_unless_fused(call))
        if isinstance(layer, L.Softmax):
            return self._ranged(self._layer(call)(*args), name, **rules.PROBABILITY)
        if type(layer) in rules.WEIGHTED:
            return self._weighted(call, args)
        kind = rules.AFFINE.get(type(layer)) if not rules.folds(self.graph, call) else None
        output = self._layer(call, kind)(*args, **kwargs)
        return self._ranged_unless_fused(call)(output, name)

    def _weighted(self, call: Call, args: tuple) -> Any:
        function, kind = call.operation.activation, rules.WEIGHTED[type(call.operation)]
        ranged = self._ranged_unless_fused(call)
        if function in rules.RELUS:
            return ranged(self._layer(call, kind)(*args), call.name)
        output = self._ranged(self._layer(call, kind, activation="linear")(*args), call.name)
        return rules.activation(function, output, f"{call.name}_{function.__name__}", ranged)

    def _layer(self, call: Call, kind: Any = None, **changes: Any) -> Any:
        if not isinstance(call.operation, L.Layer):
            return call.operation
        if call.name not in self.clones:
            kind = kind or type(call.operation)
            keeping = self.kept[call.name].options if call.name in self.kept else {}
            config = {**call.operation.get_config(), "name": call.name, **changes, **keeping}
            self.clones[call.name] = kind.from_config(config)
        return self.clones[call.name]

    def _ranged(self, output: Any, name: str, **limits: Any) -> Any:
        self.uses[name] = count = self.uses.get(name, 0) + 1  # a shared layer has a range for each use
        suffix = f"_{count}" if count > 1 else ""
        return FakeQuantize(name=f"{name}_range{suffix}", **limits)(output)

    def _ranged_unless_fused(self, call: Call) -> rules.Ranged:
        fused = rules.fuses_forward(self.graph, call)

        def ranged(output: Any, name: str, **limits: Any) -> Any:
            return (
                output if fused and name == call.name and not limits else self._ranged(output, name, **limits)
            )

        return ranged

    def _rescales_pixels(self, call: Call) -> bool:
        numbers = (call.operation.scale, call.operation.offset)
        return set(call.inputs) <= set(self.graph.inputs) and all(isinstance(n, int | float) for n in numbers)

    def _rescaled(self, call: Call, pixels: keras.KerasTensor) -> keras.KerasTensor:
        """Rescaling of pixels as the two integer kernels that TFLite has for it: a product and a sum."""
        scale, offset, name = call.operation.scale, call.operation.offset, call.name
        product = L.Rescaling(scale, name=f"{name}_scale")(pixels)
        product = self._ranged(product, f"{name}_scale", **_grid(*(scale * end for end in PIXELS)))
        total = L.Rescaling(1.0, offset, name=name)(product)
        return self._ranged(total, name, **_grid(*(scale * end + offset for end in PIXELS)))

    def _is_exempt(self, call: Call) -> bool:
        return call.name in self.skip or type(call.operation) in self.scheme


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


def _grid(low: float, high: float) -> dict[str, float]:
    """A range that holds both ends and has zero exactly on one of its 256 levels.

    Without the latter, [-1, 1] puts every pixel halfway between two levels.
    """
    if low >= 0.0 or high <= 0.0:
        return {"minimum": min(low, 0.0), "maximum": max(high, 0.0)}
    step = max(-low / 128, high / 127)
    return {"minimum": -128 * step, "maximum": 127 * step}


def _matching(graph: Graph, skip: Sequence[str]) -> set[str]:
    names, found = {call.name for call in graph.calls}, set()
    for pattern in skip:
        fits = {name for name in names if fnmatchcase(name, pattern)}
        if not fits:
            raise ValueError(message("skip", f"names of layers: {sorted(names)}", pattern))
        found |= fits
    return found

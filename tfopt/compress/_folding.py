"""Batch normalization folded into the convolution in front of it, for a model that only predicts.

TensorFlow does not fuse the two on its own: it runs three more operations over the whole activation.
"""

from typing import Any

import keras
import numpy as np

from tfopt.compress._clone import new_layer
from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization import rules


def folded(model: keras.Model) -> keras.Model:
    """Returns a copy that gives the same results, up to rounding, sooner.

    Args:
        model: Functional or Sequential, nested ones too; left as it is. The copy has its weights of now.

    References:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Inference, section 3.2.
        arXiv:1712.05877
    """
    graph = Graph(model)
    copies: dict[tuple[str, int], keras.Layer] = {}  # a layer called twice folds once for each norm behind it
    values: dict[tuple[str, int], list[np.ndarray]] = {}

    def run(call: Call, args: tuple, kwargs: dict) -> Any:
        if not isinstance(call.operation, keras.layers.Layer):
            return call.operation(*args, **kwargs)
        if rules.folds(graph, call):
            return args[0]
        following = rules.only_consumer(graph, call) if len(call.outputs) == 1 else None
        norm = following.operation if following and rules.folds(graph, following) else None
        key = call.name, id(norm)
        if key not in copies:
            count = sum(name == call.name for name, _ in copies)
            changes = {} if norm is None else {"use_bias": True}
            name = call.name if count == 0 else f"{call.name}_folded_{count}"
            copies[key] = new_layer(call.operation, name, **changes)
            values[key] = call.operation.get_weights() if norm is None else _together(call.operation, norm)
        return copies[key](*args, **kwargs)

    copy = graph.replay(run)
    for key, layer in copies.items():
        layer.set_weights(values[key])
    return copy


def _together(convolution: Any, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias that do what the convolution and the normalization behind it do."""
    gain = 1.0 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    if norm.scale:
        gain = gain * norm.gamma.numpy()
    bias = -norm.moving_mean.numpy() * gain
    if norm.center:
        bias = bias + norm.beta.numpy()
    if convolution.use_bias:
        bias = bias + convolution.bias.numpy() * gain
    kernel = convolution.kernel.numpy()
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    return [kernel * (gain.reshape(kernel.shape[2:]) if depthwise else gain), bias]

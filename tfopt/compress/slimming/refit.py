"""What a layer lost with its input channels is made up by those that stay: least squares on some images."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress.slimming.channels import Channels

RIDGE = 1e-3  # of the mean variance of what a layer reads: it keeps weights near those that were cut out


def refit(
    channels: Channels, kept: np.ndarray, whole: keras.Model, small: keras.Model, data: Sequence[Any]
) -> None:
    """Fits each Dense and Conv2D of `small` that lost inputs to what the same layer of `whole` gives.

        min |X W - Y|^2 + ridge |W - W_cut|^2,    X and Y less their means

    Y is what the layer makes in the whole model, X what it reads in the small one, whose earlier layers are
    fitted already. The difference of the means goes into the bias, or the mean of the batch normalization
    behind it. A layer that is called twice stays as it was cut.

    References:
        He, Zhang, Sun: Channel Pruning for Accelerating Very Deep Neural Networks. arXiv:1707.06168
    """
    counts = Counter(call.name for call in channels.graph.calls)
    names = {id(call.operation): call.name for call in channels.graph.calls}
    for call in channels.graph.calls:
        layer = call.operation
        known = isinstance(layer, keras.layers.Dense | keras.layers.Conv2D) and counts[call.name] == 1
        if not known or getattr(layer, "groups", 1) != 1 or id(layer.kernel) not in channels.axes:
            continue
        *_, before, after = (
            kept[channels.unit[numbers]] for _, numbers in sorted(channels.axes[id(layer.kernel)].items())
        )
        if not before.all():
            taps = [keras.Model(model.input, model.get_layer(call.name).input) for model in (whole, small)]
            wanted = np.asarray(layer.kernel, np.float64)[..., after]
            norm = channels.folded.get(id(layer.kernel))
            behind = None if norm is None else small.get_layer(names[id(norm)])
            _fit(small.get_layer(call.name), behind, wanted, taps, data)


def _fit(layer: Any, norm: Any, wanted: np.ndarray, taps: Sequence[keras.Model], data: Sequence[Any]) -> None:
    """Sets the kernel of a layer of the small model, and an offset in its bias or in the norm behind it."""
    cut = np.asarray(layer.kernel, np.float64)
    shape, cut, wanted = cut.shape, cut.reshape(-1, cut.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
    count, old, new, squares, products = _moments(layer, taps, data)
    old, new = old / count, new / count
    if layer.use_bias or norm is not None:
        squares, products = squares - count * np.outer(new, new), products - count * np.outer(new, old)
    ridge = RIDGE * np.trace(squares) / len(squares) + 1e-30
    missing = products @ wanted - squares @ cut
    fitted = cut + np.linalg.solve(squares + ridge * np.eye(len(squares)), missing)
    layer.kernel.assign(fitted.reshape(shape))
    offset = old @ wanted - new @ fitted
    if layer.use_bias:
        layer.bias.assign_add(offset)
    elif norm is not None:
        norm.moving_mean.assign_sub(offset)


def _moments(layer: keras.Layer, taps: Sequence[keras.Model], data: Sequence[Any]) -> list:
    """Count, sums of what the layer read and reads, sums of squares and products, over all places."""

    @tf.function(reduce_retracing=True)
    def sums(images: Any) -> list:
        old, new = (_rows(layer, tap(images, training=False)) for tap in taps)
        products = [tf.matmul(new, other, transpose_a=True) for other in (new, old)]
        return [tf.shape(old)[0], tf.reduce_sum(old, 0), tf.reduce_sum(new, 0), *products]

    parts = [[np.asarray(value, np.float64) for value in sums(images)] for images in data]
    return [sum(values) for values in zip(*parts)]


def _rows(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    """A row of factors for every place at which the kernel works."""
    x = tf.cast(x, tf.float32)
    if isinstance(layer, keras.layers.Conv2D):
        sizes, strides, rates = layer.kernel_size, layer.strides, layer.dilation_rate
        if sizes == (1, 1):
            x = x[:, :: strides[0], :: strides[1]]
        else:
            windows = ((1, *option, 1) for option in (sizes, strides, rates))
            x = tf.image.extract_patches(x, *windows, padding=layer.padding.upper())
    return tf.reshape(x, (-1, x.shape[-1]))

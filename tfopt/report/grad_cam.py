"""Grad-CAM: where in the picture the model looked for a class."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_instance
from tfopt.report.flattening import flat

_HEAT = np.array(  # from transparent to bright: black, violet, red, orange, pale yellow
    [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], "float32"
)


def grad_cam(model: keras.Model, images: np.ndarray, class_indices: Sequence[int]) -> np.ndarray:
    """Heat maps of the evidence for one class in each image.

    The gradient of the class's logit, averaged over the last convolutional feature map, weights that
    map's channels; the positive part of the weighted sum is the heat. The logit is used even when the
    model ends in a softmax, whose gradient vanishes exactly for the confident answers one wants explained.

        w_k = mean_ij dlogit_c / dA_ijk         heat = relu(sum_k w_k A_k) / max

    Args:
        model: A Functional or Sequential classifier, models nested in it included.
        images: Whatever the model takes, [examples, height, width, channels].
        class_indices: The class to explain, one index per image.

    Returns:
        float32 in [0, 1], [examples, height, width]; all zero where nothing speaks for the class.

    Raises:
        TypeError: If `model` is no `keras.Model`.
        ValueError: If `model` has no spatial feature map, or is subclassed.

    References:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization", ICCV 2017. arXiv:1610.02391
    """
    check_instance("model", model, keras.Model)
    model = flat(model)
    probe = keras.Model(model.inputs[0], [_last_feature_map(model), _logits(model)])
    batch = tf.convert_to_tensor(images)
    indices = tf.convert_to_tensor(class_indices, "int32")
    with tf.GradientTape() as tape:
        features, logits = probe(batch, training=False)
        score = tf.reduce_sum(tf.gather(logits, indices, axis=1, batch_dims=1))
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    heat = tf.image.resize(tf.cast(heat, "float32"), batch.shape[1:3], method="bicubic")[..., 0]
    heat = tf.nn.relu(heat)  # bicubic interpolation may undershoot
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True)).numpy()


def overlay(images: np.ndarray, heat: np.ndarray, strength: float = 0.7) -> np.ndarray:
    """The images with the heat on top; where it is cold the photograph stays as it was.

    Args:
        images: uint8, [examples, height, width, 1 or 3].
        heat: Result of `grad_cam`, [examples, height, width].
        strength: Opacity of the hottest point, in [0, 1].
    """
    position = np.clip(heat, 0, 1)[..., None] * (len(_HEAT) - 1)
    below = np.minimum(position.astype("int32"), len(_HEAT) - 2)
    color = _HEAT[below[..., 0]] + (position - below) * (_HEAT[below[..., 0] + 1] - _HEAT[below[..., 0]])
    alpha = strength * np.clip(heat, 0, 1)[..., None]
    return np.rint(alpha * color + (1 - alpha) * images.astype("float32")).astype("uint8")


def _last_feature_map(model: keras.Model) -> keras.KerasTensor:
    """Output of the last layer that still has a height and a width above one."""
    for layer in reversed(model.layers):
        shape = tuple(layer.output.shape)
        if len(shape) == 4 and all(side is None or side > 1 for side in shape[1:3]):
            return layer.output
    expected = "a layer with outputs of shape [batch, height, width, channels]"
    raise ValueError(f"`model` must have {expected}. Received: {model.name!r}.")


def _logits(model: keras.Model) -> keras.KerasTensor:
    """The model's output before its softmax, if it ends in one."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return last.input
    if last.get_config().get("activation") != "softmax":
        return model.outputs[0]
    if isinstance(last, keras.layers.Activation):
        return last.input
    linear = type(last).from_config(
        {**last.get_config(), "activation": "linear", "name": f"{last.name}_logits"}
    )
    logits = linear(last.input)
    linear.set_weights(last.get_weights())
    return logits

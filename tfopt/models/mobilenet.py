"""MobileNet V1, V2 and V3 with their preprocessing inside: pixels in, class probabilities out."""

import pathlib
from collections.abc import Callable

import keras

from tfopt import _checks

_BACKBONES: dict[str, Callable] = {
    "mobilenet": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "mobilenet_v3_small": keras.applications.MobileNetV3Small,
    "mobilenet_v3_large": keras.applications.MobileNetV3Large,
}
NAMES = tuple(_BACKBONES)


def mobilenet(
    name: str = "mobilenet",
    classes: int = 1000,
    *,
    image_size: int | tuple[int, int] = 224,
    alpha: float = 1.0,
    weights: str | pathlib.Path | None = None,
    dropout: float = 0.2,
    stem_stride: int = 2,
) -> keras.Model:
    """Builds a MobileNet classifier that takes raw pixels and returns probabilities.

    The model is one flat functional graph: pixels, rescaling to [-1, 1], the convolutional layers of
    `keras.applications`, global average pooling ("features"), dropout, a dense layer ("logits") and a
    softmax ("probabilities"). Because the preprocessing is inside, the exported int8 file takes uint8
    pixels as they come from the camera.

    Args:
        name: "mobilenet" (V1), "mobilenet_v2", "mobilenet_v3_small" or "mobilenet_v3_large".
        classes: Number of classes, >= 2.
        image_size: Height and width in pixels, or one number for both; >= 32.
        alpha: Width multiplier > 0: the share of each layer's channels that is kept.
        weights: "imagenet" (downloaded by Keras), the path of an `.h5` or `.keras` file that holds the
            weights of the same backbone, or None for random initialisation.
        dropout: Share of the features that is dropped in training, in [0, 1).
        stem_stride: Stride of the first convolution, 1 or 2. 1 suits small images from scratch, such as
            CIFAR's: every feature map has twice the side, at four times the computation.

    Returns:
        A `keras.Model` from float32 `[batch, height, width, 3]` in [0, 255] to `[batch, classes]`.

    Raises:
        ValueError: If an argument is out of its bounds, or the weights do not fit or cannot be read.
        FileNotFoundError: If the file of weights does not exist.
        ConnectionError: If "imagenet" weights cannot be downloaded.

    Example:
        >>> model = tfopt.models.mobilenet("mobilenet_v2", classes=12, image_size=96, alpha=0.35)
        >>> model.output_shape
        (None, 12)

    Differs from: `keras.applications`, which leaves preprocessing to the caller, except in V3; and the
    V3 paper, whose last 1x1 convolution (part of the ImageNet classifier) is left out.

    References:
        Howard et al., "MobileNets", 2017. arXiv:1704.04861
        Sandler et al., "MobileNetV2", CVPR 2018. arXiv:1801.04381
        Howard et al., "Searching for MobileNetV3", ICCV 2019. arXiv:1905.02244
    """
    _checks.check_choice("name", name, NAMES)
    _checks.check_integer("classes", classes, minimum=2)
    _checks.check_number("alpha", alpha, minimum=0, open_minimum=True)
    _checks.check_number("dropout", dropout, minimum=0, maximum=1, open_maximum=True)
    height, width = image_shape(image_size)

    pixels = keras.Input((height, width, 3), name="pixels")
    _checks.check_choice("stem_stride", stem_stride, (1, 2))
    backbone = _backbone(name, pixels, alpha, "imagenet" if weights == "imagenet" else None)
    if stem_stride == 1:
        backbone = _without_stem_stride(backbone)
    if weights is not None and weights != "imagenet":
        _load_weights(backbone, pathlib.Path(weights), f"{name} with alpha={alpha}")
    return keras.Model(backbone.inputs[0], classifier(backbone.output, classes, dropout), name=name)


def classifier(feature_map: keras.KerasTensor, classes: int, dropout: float) -> keras.KerasTensor:
    """Pooling, dropout, a dense layer and softmax, with the layer names that recipes look for."""
    x = keras.layers.GlobalAveragePooling2D(name="features")(feature_map)
    x = keras.layers.Dropout(dropout, name="dropout_features")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    return keras.layers.Activation("softmax", name="probabilities", dtype="float32")(x)


def image_shape(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Checks an image size and returns it as (height, width) in pixels."""
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2:
        raise ValueError(_checks.message("image_size", "one side or (height, width)", image_size))
    height, width = (_checks.check_integer("image_size", side, minimum=32) for side in sides)
    return height, width


def _backbone(name: str, pixels: keras.KerasTensor, alpha: float, weights: str | None) -> keras.Model:
    """The layers of keras.applications without a top, on rescaled pixels (V3 rescales by itself)."""
    x = pixels
    if not name.startswith("mobilenet_v3"):
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    options = dict(input_shape=(*pixels.shape[1:],), alpha=alpha, include_top=False, weights=weights)
    try:
        return _BACKBONES[name](input_tensor=x, **options)
    except ValueError:
        raise  # an alpha that Keras does not know
    except Exception as error:  # keras.utils.get_file raises a bare Exception when it is offline
        if weights is None:
            raise
        raise ConnectionError(
            f"The ImageNet weights of {name} (alpha={alpha}) could not be downloaded ({error}). "
            "Pass the path of a local file as `weights`, or `weights=None` to train from scratch."
        ) from error


def _without_stem_stride(backbone: keras.Model) -> keras.Model:
    """A copy whose first convolution visits every pixel; all kernels keep their shapes and weights."""
    stem = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        changed = {"strides": (1, 1)} if layer is stem else {}
        return type(layer).from_config({**layer.get_config(), **changed})

    copy = keras.models.clone_model(backbone, clone_function=clone)
    copy.set_weights(backbone.get_weights())
    return copy


def _load_weights(backbone: keras.Model, path: pathlib.Path, expected: str) -> None:
    """Loads an `.h5` of exactly this backbone, or the layers of the same names of a `.keras` model."""
    if not path.is_file():
        raise FileNotFoundError(f"`weights` must be the path of a file. Received: weights={str(path)!r}.")
    if path.suffix not in (".h5", ".keras"):
        kinds = "None, 'imagenet' or the path of an .h5 or .keras file"
        raise ValueError(_checks.message("weights", kinds, str(path)))
    try:
        if path.suffix == ".h5":
            backbone.load_weights(path)
        else:
            _copy_layers(keras.models.load_model(path, compile=False), backbone)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`weights` must be a complete file that holds the layers of a {expected}, without top. "
            f"Received: weights={str(path)!r}, which gives: {reason}"
        ) from error


def _copy_layers(source: keras.Model, target: keras.Model) -> None:
    layers = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if layer.weights:
            if layer.name not in layers:
                raise ValueError(f"it has no layer {layer.name!r}")
            layer.set_weights(layers[layer.name].get_weights())

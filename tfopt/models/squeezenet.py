"""SqueezeNet 1.1: few parameters through squeeze-and-expand "fire" modules."""

import keras

from tfopt import _checks
from tfopt.models.mobilenet import image_shape

# (squeeze channels, expand channels) of each fire module; None is a 3x3 max-pooling of stride 2.
_MODULES = [(16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256)]


def squeezenet(
    classes: int = 1000, *, image_size: int | tuple[int, int] = 224, dropout: float = 0.5
) -> keras.Model:
    """Builds SqueezeNet 1.1, a classifier of 0.7 million parameters before its last layer.

    Use it where the file must be small and depthwise convolutions are slow; a MobileNet of the same
    size is more accurate nearly everywhere else.

    Args:
        classes: Number of classes, >= 2.
        image_size: Height and width in pixels, or one number for both; >= 32.
        dropout: Share dropped before the last convolution in training, in [0, 1).

    Returns:
        A `keras.Model` from float32 `[batch, height, width, 3]` in [0, 255] to `[batch, classes]`.

    Raises:
        ValueError: If an argument is out of its bounds.

    Example:
        >>> tfopt.models.squeezenet(classes=10, image_size=64).count_params()
        727626

    Differs from: the authors' Caffe network, in same-padding of the first convolution and poolings.

    References:
        Iandola et al., "SqueezeNet", 2016. arXiv:1602.07360 (version 1.1 of the authors' repository)
    """
    _checks.check_integer("classes", classes, minimum=2)
    _checks.check_number("dropout", dropout, minimum=0, maximum=1, open_maximum=True)
    height, width = image_shape(image_size)

    pixels = keras.Input((height, width, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    x = _convolution(x, 64, 3, "conv1", strides=2)
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    for index, module in enumerate(_MODULES, start=2):
        if module is None:
            x = keras.layers.MaxPooling2D(3, 2, padding="same", name=f"pool{index}")(x)
        else:
            x = _fire(x, *module, name=f"fire{index}")
    x = keras.layers.Dropout(dropout, name="dropout_features")(x)
    x = keras.layers.Conv2D(classes, 1, kernel_initializer="he_uniform", name="conv10")(x)
    x = keras.layers.GlobalAveragePooling2D(name="logits")(x)
    x = keras.layers.Activation("softmax", name="probabilities", dtype="float32")(x)
    return keras.Model(pixels, x, name="squeezenet")


def _fire(x: keras.KerasTensor, squeeze: int, expand: int, name: str) -> keras.KerasTensor:
    """Squeeze by 1x1 convolutions, expand by 1x1 and 3x3 ones side by side."""
    x = _convolution(x, squeeze, 1, f"{name}_squeeze")
    sides = [_convolution(x, expand, size, f"{name}_expand{size}") for size in (1, 3)]
    return keras.layers.Concatenate(name=f"{name}_concat")(sides)


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, name: str, strides: int = 1
) -> keras.KerasTensor:
    initializer = keras.initializers.HeUniform()
    options = dict(strides=strides, padding="same", activation="relu", kernel_initializer=initializer)
    return keras.layers.Conv2D(filters, size, name=name, **options)(x)

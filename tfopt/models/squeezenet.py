"""SqueezeNet 1.1: few parameters through squeeze-and-expand "fire" modules."""

import keras

from tfopt import _checks
from tfopt.models._image_model import image_model


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
    return image_model("squeezenet", classes, image_size=image_size, dropout=dropout)

"""MobileNets and SqueezeNet as classifiers: pixels in, class probabilities out."""

import pathlib

import keras

from tfopt import _checks
from tfopt.models import _architectures
from tfopt.models._image_model import image_model


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
            weights of the same backbone, or None for random initialization.
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
    _checks.check_choice("name", name, _architectures.MOBILENETS)
    _checks.check_integer("classes", classes, minimum=2)
    return image_model(
        name,
        classes,
        image_size=image_size,
        alpha=alpha,
        weights=weights,
        dropout=dropout,
        stem_stride=stem_stride,
    )


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

"""A network of any name with a new head: pixels in, probabilities or numbers out."""

import pathlib

import keras

from tfopt import _checks
from tfopt.models import _architectures, _backbones, _efficientnet_lite

ACTIVATIONS = ("softmax", "sigmoid", None)
_IMAGENET_CLASSES = 1000


def image_model(
    name: str,
    outputs: int = 1000,
    *,
    activation: str | None = "softmax",
    image_size: int | tuple[int, int] | None = None,
    alpha: float = 1.0,
    weights: str | pathlib.Path | None = None,
    dropout: float | None = None,
    stem_stride: int = 2,
) -> keras.Model:
    """Builds an image model that takes raw pixels and ends in a head for its task.

    The model is one flat functional graph: pixels, the preprocessing of the network, its layers, global
    average pooling ("features"), dropout, a dense layer ("logits") and the activation ("probabilities").

    Args:
        name: As in `tfopt.models.backbone`, or "squeezenet", whose own classifier is a convolution.
        outputs: Number of classes, labels or numbers, >= 1; with softmax >= 2.
        activation: "softmax" for one class of several, "sigmoid" for any number of labels, None for numbers.
        image_size: As in `tfopt.models.backbone`.
        alpha: As in `tfopt.models.backbone`.
        weights: As in `tfopt.models.backbone`. The head is random, but that of an EfficientNet-Lite with
            "imagenet" weights and 1,000 outputs is ImageNet's.
        dropout: Share of the features that is dropped in training, in [0, 1). None: 0.2; SqueezeNet: 0.5.
        stem_stride: Stride of the first convolution, 1 or 2. 1 suits small images from scratch, such as
            CIFAR's: every feature map has twice the side, at four times the computation.

    Returns:
        A `keras.Model` from float32 `[batch, height, width, 3]` in [0, 255] to `[batch, outputs]`.

    Raises:
        ValueError: If an argument is out of its bounds, or the weights do not fit or cannot be read.
        FileNotFoundError: If the file of weights does not exist.
        ConnectionError: If Keras cannot download "imagenet" weights.
        ImportError: If the package with the weights of EfficientNet-Lite is not installed.

    Example:
        >>> model = tfopt.models.image_model("resnet50", outputs=3, activation="sigmoid", image_size=96)
        >>> model.output_shape
        (None, 3)
    """
    architecture = _architectures.find(name)
    _checks.check_choice("activation", activation, ACTIVATIONS)
    _checks.check_integer("outputs", outputs, minimum=2 if activation == "softmax" else 1)
    if dropout is None:
        dropout = 0.5 if architecture.name == "squeezenet" else 0.2
    _checks.check_number("dropout", dropout, minimum=0, maximum=1, open_maximum=True)
    _checks.check_choice("stem_stride", stem_stride, (1, 2))
    size = _backbones.checked_size(image_size or architecture.image_size, architecture.smallest)
    network = _backbones.build(architecture, size, alpha=alpha, weights=weights)
    if stem_stride == 1:
        network = _without_stem_stride(network)
    x = network.output
    if architecture.name == "squeezenet":
        x = keras.layers.Dropout(dropout, name="dropout_features")(x)
        x = keras.layers.Conv2D(outputs, 1, kernel_initializer="he_uniform", name="conv10")(x)
        x = keras.layers.GlobalAveragePooling2D(name="logits")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="features")(x)
        x = keras.layers.Dropout(dropout, name="dropout_features")(x)
        x = keras.layers.Dense(outputs, name="logits")(x)
    if activation is not None:
        x = keras.layers.Activation(activation, name="probabilities", dtype="float32")(x)
    model = keras.Model(network.inputs[0], x, name=architecture.name)
    if weights == "imagenet" and outputs == _IMAGENET_CLASSES and not architecture.constructor:
        _efficientnet_lite.load_imagenet(model, architecture.name)
    return model


def _without_stem_stride(network: keras.Model) -> keras.Model:
    """A copy whose first convolution visits every pixel; all kernels keep their shapes and weights."""
    stem = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        changed = {"strides": (1, 1)} if layer is stem else {}
        return type(layer).from_config({**layer.get_config(), **changed})

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy

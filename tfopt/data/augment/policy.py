"""RandAugment and TrivialAugment: a few of 14 changes, picked for each image.

The ranges are torchvision's (`RandAugment`, `TrivialAugmentWide`), with strengths from 0 to 30.

References:
    Cubuk, Zoph, Shlens, Le: RandAugment, arXiv:1909.13719.
    Mueller, Hutter: TrivialAugment, arXiv:2103.10158.
"""

from typing import NamedTuple

import tensorflow as tf

from tfopt.data.augment import color
from tfopt.data.augment.geometry import Affine, resample, resample_nearest, rotation

STEPS = 30
_GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_OTHER = ("identity", "brightness", "saturation", "contrast", "sharpness", "posterize", "solarize")
CHANGES = (*_GEOMETRIC, *_OTHER, "autocontrast", "equalize")


class Ranges(NamedTuple):
    """The strongest form of each change."""

    shear: float
    translate: float  # share of the width or height
    rotate: float  # degrees
    enhance: float
    posterize: int  # bits taken away


def rand_augment_ranges() -> Ranges:
    """Those of RandAugment, at strength 30."""
    return Ranges(shear=0.3, translate=150 / 331, rotate=30, enhance=0.9, posterize=4)


def trivial_augment_ranges(width: int) -> Ranges:
    """Those of TrivialAugment (wide): shifts of up to 32 pixels."""
    return Ranges(shear=0.99, translate=32 / width, rotate=135, enhance=0.99, posterize=6)


def change(
    image: tf.Tensor,
    number: tf.Tensor,
    strength: tf.Tensor,
    sign: tf.Tensor,
    ranges: Ranges,
    fill: tuple[str, float],
) -> tf.Tensor:
    """Applies one of the changes to an image.

    Args:
        image: float32 [height, width, 3] in [0, 255].
        number: Which of `CHANGES`, an int32.
        strength: In [0, 1].
        sign: -1 or 1, the direction of changes that have two.
        ranges: The strongest form of each change.
        fill: `fill_mode` and `fill_value` of the geometric changes.
    """
    signed = strength * sign
    factor = 1 + ranges.enhance * signed

    def geometric() -> tf.Tensor:
        place = _place(number, signed, ranges, image.shape[0], image.shape[1])
        return resample(image, place, *fill)

    bits = 8 - tf.round(strength * ranges.posterize)
    branches = [
        geometric,
        lambda: image,
        lambda: color.brightness(image, factor),
        lambda: color.saturation(image, factor),
        lambda: color.contrast(image, factor),
        lambda: color.sharpness(image, factor),
        lambda: color.posterize(image, bits),
        lambda: color.solarize(image, 255 * (1 - strength)),
        lambda: color.autocontrast(image),
        lambda: color.equalize(image),
    ]
    changed = tf.switch_case(tf.maximum(number - len(_GEOMETRIC) + 1, 0), branches)
    return tf.ensure_shape(changed, image.shape)


def move_mask(
    mask: tf.Tensor,
    number: tf.Tensor,
    strength: tf.Tensor,
    sign: tf.Tensor,
    ranges: Ranges,
    fill: tuple[str, float],
) -> tf.Tensor:
    """Moves a mask [height, width, channels] as `change` moves its image; colors leave it alone."""

    def geometric() -> tf.Tensor:
        place = _place(number, strength * sign, ranges, mask.shape[0], mask.shape[1])
        return resample_nearest(mask, place, *fill)

    return tf.ensure_shape(tf.cond(number < len(_GEOMETRIC), geometric, lambda: mask), mask.shape)


def _place(number: tf.Tensor, signed: tf.Tensor, ranges: Ranges, height: int, width: int) -> Affine:
    """The map of one of the geometric changes."""
    maps = [
        Affine(xy=ranges.shear * signed),
        Affine(yx=ranges.shear * signed),
        Affine(x0=ranges.translate * width * signed),
        Affine(y0=ranges.translate * height * signed),
        rotation(ranges.rotate * signed),
    ]
    entries = tf.stack([tf.stack([tf.convert_to_tensor(entry, tf.float32) for entry in row]) for row in maps])
    return Affine(*tf.unstack(tf.gather(entries, tf.minimum(number, len(maps) - 1))))

"""What `Augment` does to one image: geometry, a policy, color, blur, erasing, in this order."""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfopt.data.augment import color, policy
from tfopt.data.augment.geometry import Affine, crop, resample, resample_nearest, rotation
from tfopt.data.augment.stateless_random import uniform

# Purposes of the draws of one key. A new kind of change gets a new number, so that the others stay.
_GEOMETRY, MIX, _COLOR, _BLUR, _ERASE, _POLICY = range(6)


def move(options: Any, image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Applies the geometry of an `Augment` to an image.

    Args:
        options: The `Augment`.
        image: [height, width, 3] of static shape, in [0, 255].
        key: From `make_key`.

    Returns:
        float32 [height, width, 3] in [0, 255].
    """
    height, width, _ = image.shape
    place = place_of(options, height, width, key)
    if place is None:
        return tf.cast(image, tf.float32)
    return resample(image, place, options.fill_mode, options.fill_value)


def move_mask(options: Any, mask: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Moves a mask [height, width, channels] of any dtype as `move` and `paint` move its image."""
    fill = (options.fill_mode, options.mask_fill_value)
    place = place_of(options, mask.shape[0], mask.shape[1], key)
    if place is not None:
        mask = resample_nearest(mask, place, *fill)
    if options.randaugment or options.trivial_augment:
        mask = _policy(options, mask, key, policy.move_mask, fill)
    return mask


def paint(options: Any, image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Applies the policy, colors, blur and erasing of an `Augment` to an image, as `move` does."""
    if options.randaugment or options.trivial_augment:
        image = _policy(options, image, key, policy.change, (options.fill_mode, options.fill_value))
    if options.color:
        factors = 1 + options.color * (2 * uniform(key, _COLOR, 3) - 1)
        image = color.brightness(image, factors[0])
        image = color.contrast(image, factors[1])
        image = color.saturation(image, factors[2])
    if options.blur:
        sigma = tf.maximum(options.blur * uniform(key, _BLUR, 1)[0], 1e-2)
        image = color.blur(image, sigma)
    if options.erase:
        image = _erase(options.erase, image, uniform(key, _ERASE, 5))
    return image


def place_of(options: Any, height: int, width: int, key: tf.Tensor) -> Affine | None:
    """Composes the maps in use, None without any; the picture is cropped first and mirrored last."""
    u = uniform(key, _GEOMETRY, 12)
    signed = 2 * u - 1
    maps = []
    if options.flip:
        x = tf.where(u[0] < 0.5, 1.0, -1.0) if options.flip != "vertical" else 1.0
        y = tf.where(u[1] < 0.5, 1.0, -1.0) if options.flip != "horizontal" else 1.0
        maps.append(Affine(xx=x, yy=y))
    if options.shift:
        maps.append(Affine(x0=options.shift * width * signed[2], y0=options.shift * height * signed[3]))
    if options.rotate:
        maps.append(rotation(options.rotate * signed[4]))
    if options.shear:
        maps.append(Affine(xy=tf.tan(options.shear * (math.pi / 180) * signed[5])))
    if options.zoom:
        size = 1 / (1 + options.zoom * signed[6])
        maps.append(Affine(xx=size, yy=size))
    if options.crop:
        area = options.crop + (1 - options.crop) * u[7]
        ratio = tf.exp(math.log(4 / 3) * signed[8])
        maps.append(crop(area, ratio, u[9], u[10], height, width))
    return functools.reduce(lambda place, following: following.after(place), maps) if maps else None


def _policy(
    options: Any, image: tf.Tensor, key: tf.Tensor, change: Callable[..., tf.Tensor], fill: tuple[str, float]
) -> tf.Tensor:
    if options.trivial_augment:
        layers, ranges = 1, policy.trivial_augment_ranges(image.shape[1])
    else:
        layers, ranges = options.randaugment_layers, policy.rand_augment_ranges()
    u = tf.reshape(uniform(key, _POLICY, 3 * layers), [layers, 3])

    def layer(number: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        which, strength, sign = tf.unstack(u[number])
        strength = tf.floor(strength * (policy.STEPS + 1)) if options.trivial_augment else options.randaugment
        which = tf.cast(which * len(policy.CHANGES), tf.int32)
        sign = tf.where(sign < 0.5, -1.0, 1.0)
        return number + 1, change(image, which, strength / policy.STEPS, sign, ranges, fill)

    # A loop in the graph, so that XLA compiles the 14 changes once for all layers.
    return tf.while_loop(lambda number, _: number < layers, layer, [0, image])[1]


def _erase(probability: float, image: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    area = 0.02 + (1 / 3 - 0.02) * u[1]
    ratio = tf.exp(math.log(3.3) * (2 * u[2] - 1))
    return tf.where(u[0] < probability, color.erase(image, area, ratio, u[3], u[4]), image)

"""Changes of color and sharpness, each as Pillow's ImageOps and ImageEnhance define it.

Images are float32 [height, width, 3] in [0, 255]; so are results. Pillow works on whole numbers, so
results agree with it within 2 gray levels for images of whole numbers.
"""

from typing import TypeAlias

import tensorflow as tf

Number: TypeAlias = tf.Tensor | float


def blend(image: tf.Tensor, other: tf.Tensor, factor: Number) -> tf.Tensor:
    """`other` at factor 0, the image at 1, beyond it above 1 (`PIL.Image.blend`, clipped)."""
    return tf.clip_by_value(other + (image - other) * factor, 0.0, 255.0)


def gray(image: tf.Tensor) -> tf.Tensor:
    """Luma [height, width, 1] by ITU-R 601-2, as Pillow's mode "L"."""
    return tf.floor(tf.reduce_sum(image * [0.299, 0.587, 0.114], -1, keepdims=True) + 0.5)


def brightness(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Black at factor 0."""
    return blend(image, tf.zeros_like(image), factor)


def contrast(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """The mean gray at factor 0."""
    return blend(image, tf.floor(tf.reduce_mean(gray(image)) + 0.5), factor)


def saturation(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Black and white at factor 0."""
    return blend(image, gray(image), factor)


def sharpness(image: tf.Tensor, factor: Number) -> tf.Tensor:
    """Smoothed at factor 0 (a 3x3 mean with weight 5 of 13 in the middle; the border stays)."""
    height, width = image.shape[0], image.shape[1]
    if min(height, width) < 3:  # all of it is border
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]
    smooth = tf.pad(total / 13, [[1, 1], [1, 1], [0, 0]])
    y, x = tf.range(height)[:, None], tf.range(width)[None, :]
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return blend(image, tf.where(inner[..., None], smooth, image), factor)


def posterize(image: tf.Tensor, bits: Number) -> tf.Tensor:
    """Keeps the highest bits of each value."""
    step = tf.pow(2.0, 8.0 - bits)
    return tf.floor(tf.floor(image) / step) * step


def solarize(image: tf.Tensor, threshold: Number) -> tf.Tensor:
    """Inverts the values from the threshold on."""
    return tf.where(image < threshold, image, 255 - image)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to [0, 255]; a channel of one value stays."""
    low, high = tf.reduce_min(image, [0, 1]), tf.reduce_max(image, [0, 1])
    return tf.where(high > low, (image - low) * (255 / tf.maximum(high - low, 1e-3)), image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes the histogram of each channel flat."""
    height, width, channels = image.shape
    values = tf.reshape(tf.cast(image, tf.int32), [height * width, channels])
    bins = values + 256 * tf.range(channels)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, 256 * channels)
    counts = tf.reshape(counts, [channels, 256])
    places = tf.where(counts > 0, tf.range(256), -1)
    last = tf.gather(counts, tf.reduce_max(places, -1), batch_dims=1)
    step = (height * width - last)[:, None] // 255
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    mapped = tf.gather(tf.reshape(table, [-1]), bins)
    return tf.cast(tf.reshape(mapped, [height, width, channels]), tf.float32)


def blur(image: tf.Tensor, sigma: Number) -> tf.Tensor:
    """Gaussian blur; what lies outside the image has no weight.

    A product with a matrix for each axis: XLA would repeat the first of two fused convolutions.

    Args:
        image: float32 [height, width, 3].
        sigma: Standard deviation in pixels, > 0.
    """
    rows, columns = _gaussian(image.shape[0], sigma), _gaussian(image.shape[1], sigma)
    return tf.einsum("yi,xj,ijc->yxc", rows, columns, image)


def _gaussian(size: int, sigma: Number) -> tf.Tensor:
    places = tf.range(size, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square((places[:, None] - places[None, :]) / sigma))
    return weights / tf.reduce_sum(weights, -1, keepdims=True)


def erase(image: tf.Tensor, area: Number, ratio: Number, x: Number, y: Number) -> tf.Tensor:
    """Paints a box with the mean color of the image (Random Erasing, arXiv:1708.04896).

    Args:
        image: float32 [height, width, 3].
        area: Share of the image, before the box is cut off at the edges.
        ratio: Width of the box over its height, relative to those of the image.
        x: Middle of the box from left (0) to right (1).
        y: Middle of the box from top (0) to bottom (1).
    """
    height, width = image.shape[0], image.shape[1]
    rows = tf.abs((tf.range(height, dtype=tf.float32) + 0.5) / height - y) < tf.sqrt(area / ratio) / 2
    columns = tf.abs((tf.range(width, dtype=tf.float32) + 0.5) / width - x) < tf.sqrt(area * ratio) / 2
    box = rows[:, None] & columns[None, :]
    return tf.where(box[..., None], tf.reduce_mean(image, [0, 1]), image)

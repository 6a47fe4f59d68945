"""Pictures inside the page: shrunk to what is shown and written into the `src` itself."""

import base64

import numpy as np
import tensorflow as tf

from tfopt.report.markup import Markup, tag

_SMALL = 64  # below this many pixels JPEG blurs what there is to see, and PNG costs nothing


def picture(image: np.ndarray, alt: str, size: int = 160) -> Markup:
    """An `img` element that needs no file.

    Args:
        image: uint8 pixels, [height, width, 1 or 3].
        alt: What it shows, for those who cannot see it.
        size: Longest side that is kept, in pixels: twice the shown size, for dense screens.
    """
    pixels = shrink(image, size)
    small = max(pixels.shape[:2]) <= _SMALL
    if small:
        encoded, kind = tf.io.encode_png(pixels).numpy(), "png"
    else:
        encoded, kind = tf.io.encode_jpeg(pixels, quality=82).numpy(), "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
    return tag("img", src=source, alt=alt, title=alt, class_="pixels" if small else None, loading="lazy")


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """The image with its longest side at most `size` pixels; smaller ones are left alone."""
    pixels = np.asarray(image)
    scale = size / max(pixels.shape[:2])
    if scale >= 1:
        return pixels.astype("uint8")
    shape = [max(1, round(side * scale)) for side in pixels.shape[:2]]
    resized = tf.image.resize(pixels, shape, method="area")
    return np.clip(np.rint(resized.numpy()), 0, 255).astype("uint8")

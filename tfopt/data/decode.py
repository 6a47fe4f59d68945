"""One door from an image file to uint8 pixels [height, width, 3], and one error that names a bad file."""

import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from tfopt._checks import message

MAX_PIXELS = 128 * 2**20
EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

# What Pillow's parsers raise on damaged files, found by fuzzing them.
_DAMAGE: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError)
_DAMAGE += (ArithmeticError, RuntimeError, AttributeError, MemoryError)
_DAMAGE += (struct.error, zlib.error, Image.DecompressionBombError)


class BadImageError(ValueError):
    """A file that is not an image, or an image that cannot be decoded."""

    def __init__(self, path: str, reason: object) -> None:
        super().__init__(
            f"Cannot read the image {path!r}: {reason}. Remove or repair the file, "
            "or leave such files out with on_bad_image='skip'."
        )
        self.path = path
        self.reason = str(reason)


def decode(
    path: str | bytes, image_size: tuple[int, int] | None = None, crop_to_aspect_ratio: bool = False
) -> np.ndarray:
    """The pixels of an image file, upright, as uint8 [height, width, 3] in [0, 255].

    Grey is repeated, transparency is laid on white, CMYK and palettes are converted, 16-bit grey is
    scaled to 8 bits, the EXIF orientation is applied. A JPEG that will be made smaller is decoded at
    the smallest of the scales 1/8, 1/4, 1/2, 1 that still covers `image_size`, which costs less.

    Args:
        path: The file.
        image_size: (height, width) to resize to with an antialiased bilinear filter; None keeps the size.
        crop_to_aspect_ratio: Cut the middle of the image instead of stretching it.

    Raises:
        BadImageError: if the file is missing, empty, truncated, not an image, or claims more than
            128 Mi pixels.
    """
    name = os.fsdecode(path)
    try:
        with Image.open(name) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"its header claims {width} x {height} pixels")
            if image_size is not None:
                image.draft("RGB", (image_size[1], image_size[0]))
            ImageOps.exif_transpose(image, in_place=True)
            rgb = _to_rgb(image)
        return np.asarray(_resize(rgb, image_size, crop_to_aspect_ratio))
    except _DAMAGE as error:
        empty = os.path.isfile(name) and os.path.getsize(name) == 0
        raise BadImageError(name, "the file is empty" if empty else error) from error


def resize(pixels: np.ndarray, image_size: tuple[int, int], crop_to_aspect_ratio: bool = False) -> np.ndarray:
    """Resizes uint8 pixels [height, width, 3] as `decode` does."""
    if pixels.shape[:2] == tuple(image_size):
        return pixels
    return np.asarray(_resize(Image.fromarray(pixels), image_size, crop_to_aspect_ratio))


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3] of pixels in [0, 255] of any dtype, grey or RGB."""
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise ValueError(message("image", "[height, width, 3] or [height, width, 1]", pixels.shape))
    if pixels.dtype != np.uint8:
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        depth = 257 if grey.max(initial=0) > 255 else 1
        image = Image.fromarray((grey // depth).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _resize(image: Image.Image, image_size: tuple[int, int] | None, crop: bool) -> Image.Image:
    if image_size is None or image.size == image_size[::-1]:
        return image
    height, width = image_size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if crop:
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)

"""One door from an image file to uint8 pixels [height, width, 3], and one error that names a bad file."""

import contextlib
import io
import os
import stat
import struct
import threading
import zlib

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from tfopt._checks import message
from tfopt._optional import install_command
from tfopt.data.bit_depth import brightest, depth_of

MAX_PIXELS = 128 * 2**20
_HEADER = 2**16  # bytes
_BINARY = getattr(os, "O_BINARY", 0)  # on Windows
_SCALABLE = 8  # pixels; of a smaller image, several of libjpeg's scales have the same size
_SCAN, _FRAMES, _TABLES = 0xDA, (0xC0, 0xC1, 0xC2), (0xE0, 0xDB, 0xC4, 0xDD)  # markers
_JFIF, _JFIF_LENGTH = 0xE0, 16  # a shorter one is damaged: Pillow refuses it
_LARGE = 2**24  # pixels from which images are decoded one at a time, as each takes hundreds of MB
_ONE_AT_A_TIME = threading.Lock()
_STRIP = 2**20  # pixels that are converted at a time
_HEIF = install_command("pillow_heif")
_UNKNOWN_KINDS = {  # what has no decoder in Pillow, by the ending of the file, and what to do
    (".heic", ".heif", ".hif"): f"Pillow has no decoder for HEIC: {_HEIF}, or convert to JPEG",
    (".avif",): "this Pillow has no decoder for AVIF: install Pillow 11.3 or newer, or convert to JPEG",
    (".svg",): "it is a drawing, not pixels: convert it to PNG",
    (".dcm",): "it is a DICOM file: convert it to PNG, as with `pydicom`",
}

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
    path: str | bytes,
    image_size: tuple[int, int] | None = None,
    crop_to_aspect_ratio: bool = False,
    *,
    out: np.ndarray | None = None,
    grey_bits: int | None = None,
) -> np.ndarray:
    """The pixels of an image file, upright, as uint8 [height, width, 3] in [0, 255].

    Gray is repeated, transparency is laid on white, CMYK and palettes are converted, gray pixels of more
    than 8 bits are scaled, the EXIF orientation is applied. A JPEG that will be made smaller is decoded at
    the smallest of the scales 1/8, 1/4, 1/2, 1 that still covers `image_size`, which costs less.

    Args:
        path: The file.
        image_size: (height, width) to resize to with an antialiased bilinear filter; None keeps the size.
        crop_to_aspect_ratio: Cut the middle of the image instead of stretching it.
        out: Where the pixels go, uint8 [*image_size, 3]; None makes a new array. After an error it may
            hold a part of them.
        grey_bits: How many bits the pixels of 16-bit gray files have, 8 to 16; brighter ones become white.
            None takes the smallest of 8, 10, 12, 14, 16 that holds the brightest pixel of the image.

    Raises:
        BadImageError: If the file is missing, empty, truncated, not an image, or claims more than
            128 Mi pixels.
    """
    name = os.fsdecode(path)
    try:
        check_regular(name)
        pixels = _plain_jpeg(name, image_size, crop_to_aspect_ratio, out)
        if pixels is None:
            pixels = _any_image(name, image_size, crop_to_aspect_ratio, grey_bits)
    except _DAMAGE as error:
        raise BadImageError(name, _reason(name, error)) from error
    if out is None:
        return pixels
    if not np.may_share_memory(pixels, out):
        out[:] = pixels
    return out


def decode_bytes(content: bytes, name: str) -> np.ndarray:
    """The pixels of an encoded image in memory, as `decode` returns them; `name` is for the error."""
    try:
        return _any_image(io.BytesIO(content), None, False, None)
    except _DAMAGE as error:
        raise BadImageError(name, "it is empty" if not content else str(error) or repr(error)) from error


def _reason(path: str, error: Exception) -> str:
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty"
    for endings, advice in _UNKNOWN_KINDS.items():
        if isinstance(error, UnidentifiedImageError) and path.lower().endswith(endings):
            return advice
    return str(error) or repr(error)


def open_image(path: str | io.BytesIO) -> Image.Image:
    """`Image.open`, with the decoder of `pillow-heif` if it is needed and installed."""
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        if not isinstance(path, str) or not path.lower().endswith((".heic", ".heif", ".hif", ".avif")):
            raise
        try:
            import pillow_heif
        except ImportError:
            raise UnidentifiedImageError(f"cannot identify image file {path!r}") from None
        pillow_heif.register_heif_opener()
        return Image.open(path)


def check_regular(path: str) -> None:
    """Refuses what can be opened but is no file: a pipe would be waited for, and a device never ends."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is not a regular file")


def _any_image(
    path: str | io.BytesIO, image_size: tuple[int, int] | None, crop: bool, grey_bits: int | None
) -> np.ndarray:
    with open_image(path) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"its header claims {width} x {height} pixels")
        if image_size is not None:
            image.draft("RGB", (image_size[1], image_size[0]))
        with _ONE_AT_A_TIME if width * height > _LARGE else contextlib.nullcontext():
            # Before the conversion to three channels, resizing gray gives the same for a third of the memory.
            plain = _resize(_to_plain(image, grey_bits), image_size, crop)
            return np.asarray(plain if plain.mode == "RGB" else plain.convert("RGB"))


def resize(pixels: np.ndarray, image_size: tuple[int, int], crop_to_aspect_ratio: bool = False) -> np.ndarray:
    """Resizes uint8 pixels [height, width, 3] as `decode` does."""
    if pixels.shape[:2] == tuple(image_size):
        return pixels
    return np.asarray(_resize(Image.fromarray(pixels), image_size, crop_to_aspect_ratio))


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3] of pixels in [0, 255] of any dtype, gray or RGB."""
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise ValueError(message("image", "[height, width, 3] or [height, width, 1]", pixels.shape))
    if pixels.dtype != np.uint8:
        _check_range(pixels)
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _check_range(pixels: np.ndarray) -> None:
    """Refuses pixels that were scaled to [0, 1] or [-1, 1], of which rounding would leave nothing."""
    low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))  # NaN if one is
    if not low <= high < np.inf or (high <= 1 and np.any(pixels % 1)):
        fix = "Multiply scaled pixels by 255; the models hold their own scaling."
        raise ValueError(message("image", "pixels in [0, 255]", f"[{low:g}, {high:g}]", fix))


def _plain_jpeg(
    path: str, image_size: tuple[int, int] | None, crop: bool, out: np.ndarray | None
) -> np.ndarray | None:
    """Pixels of a JPEG file from libjpeg at once, if possible into `out`; the same as Pillow's, but sooner.

    None stands for everything that has to be looked at more closely, such as an EXIF orientation.
    """
    descriptor = os.open(path, os.O_RDONLY | _BINARY)  # a Python file would cost a tenth of the decoding
    try:
        content = os.read(descriptor, _HEADER)
        height, width = _plain_size(content) or (0, 0)
        if not 0 < height * width <= MAX_PIXELS:
            return None
        if len(content) == _HEADER:  # anything may follow the image; Pillow reads what is really longer
            content += os.read(descriptor, min(os.fstat(descriptor).st_size, MAX_PIXELS))
    finally:
        os.close(descriptor)
    fits = min(height // image_size[0], width // image_size[1]) if image_size else 1
    scale = max(scale for scale in (1, 2, 4, 8) if scale <= max(fits, 1))
    if scale > 1 and max(height, width) < _SCALABLE:
        return None
    size = -(-height // scale), -(-width // scale)
    least = {"min_height": size[0], "min_width": size[1]} if scale > 1 else {}
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGB", **least, buffer=out if image_size == size else None)
    except ValueError:  # damaged perhaps: Pillow knows why
        return None
    return pixels if image_size is None else resize(pixels, image_size, crop)


def _plain_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file whose header has nothing but tables, so no orientation."""
    place, size = 2, None
    while content[:2] == b"\xff\xd8" and len(content) > place + 9 and content[place] == 0xFF:
        kind, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if kind == _SCAN:
            return size
        if kind in _FRAMES and content[place + 9] in (1, 3):  # components
            numbers = content[place + 5 : place + 9]
            size = int.from_bytes(numbers[:2], "big"), int.from_bytes(numbers[2:], "big")
        elif kind not in _TABLES or (kind == _JFIF and length < _JFIF_LENGTH):
            return None
        place += 2 + length
    return None


def _to_plain(image: Image.Image, grey_bits: int | None) -> Image.Image:
    """Upright RGB or 8-bit gray."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        return _eight_bits(image, grey_bits)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    image.load()
    return image if image.mode in ("RGB", "L") else image.convert("RGB")  # which would copy


def _eight_bits(image: Image.Image, bits: int | None) -> Image.Image:
    """Scales gray of more bits, a strip at a time: as one array of int64, 134 megapixels took 3 GB."""
    bits = bits or depth_of(brightest(image))
    pixels: np.ndarray = np.empty((image.height, image.width), np.uint8)
    step = max(_STRIP // image.width, 1)
    for top in range(0, image.height, step):
        strip = np.asarray(image.crop((0, top, image.width, min(top + step, image.height))))
        pixels[top : top + step] = strip.astype(np.int64).clip(0, 2**bits - 1) * 255 // (2**bits - 1)
    return Image.fromarray(pixels)


def _resize(image: Image.Image, image_size: tuple[int, int] | None, crop: bool) -> Image.Image:
    if image_size is None or image.size == image_size[::-1]:
        return image
    height, width = image_size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if crop:
        scale = min(image.width / width, image.height / height)
        # Rounding must not put an edge outside, by however little: Pillow refuses such a box.
        left, top = max(image.width - scale * width, 0.0) / 2, max(image.height - scale * height, 0.0) / 2
        box = (left, top, image.width - left, image.height - top)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)

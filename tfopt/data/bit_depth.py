"""How many bits the pixels of 16-bit files have, decided for a whole data set.

Cameras, microscopes and X-ray machines write 10 or 12 bits into files of 16. Scaled by 65,535 such images
are black, and scaled each by its own maximum they are no longer comparable.
"""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

_DEEP = (".png", ".tif", ".tiff", ".pgm", ".pnm", ".jp2", ".j2k")
_LOOKED_AT = 48  # files with deep pixels whose maximum is read
_TRIED = 192  # files whose header is read
_DEPTHS = (8, 10, 12, 14, 16)


def depth_of(maximum: int) -> int:
    """The smallest usual depth that holds a pixel."""
    return next((bits for bits in _DEPTHS if maximum < 2**bits), 16)


def brightest(image: Image.Image) -> int:
    """The largest pixel of a gray image."""
    _, high = image.getextrema()
    return int(high)  # type: ignore[arg-type]


def grey_bits(paths: Sequence[bytes]) -> int | None:
    """The depth of the pixels in 16-bit gray files, from a sample over the whole list; None without any."""
    deep = [path for path in paths if os.fsdecode(path).lower().endswith(_DEEP)]
    largest, looked_at = 0, 0
    for place in np.random.default_rng(0).permutation(len(deep))[:_TRIED]:  # files are in class order
        try:
            with Image.open(os.fsdecode(deep[place])) as image:
                if not image.mode.startswith("I"):
                    continue
                largest = max(largest, brightest(image))
                looked_at += 1
        except Exception:  # a damaged file is named where it is read
            continue
        if looked_at >= _LOOKED_AT or largest >= 2**14:
            break
    return depth_of(largest) if looked_at else None

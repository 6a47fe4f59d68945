"""Finds images that are the same picture: equal pixels, saved again, compressed again or at another size.

Every image has a thumbnail of 16 x 16 pixels and 128 bits that tell where it grows brighter (a difference
hash). Images whose bits nearly agree are compared by their thumbnails, so that different pictures with
equal outlines, flat images and drawings are not taken for one. Parts of pictures and mirrored pictures
are not found.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tfopt.data.decode import resize

DECODED = (32, 32)  # for thumbnails: directly at 16 x 16, JPEG's scaled decoding changes the colors
_THUMBNAIL = (16, 16)
_BANDS = 8  # of 16 bits: two hashes that differ in less than 8 bits agree in one band
_DIFFERENT = 12  # bits
_NEIGHBORS = 64  # compared at most, of those that agree in a band
_REMEMBERED = 4096  # thumbnails, of at most a few kilobytes each
_REMEMBERED_PAIRS = 2**17  # of different pictures: about 13 MB
_STEP = 2  # a difference in brightness below is taken for none
_BIT_COUNTS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
_LEAST, _SHARE, _MOST = 0.5, 0.06, 4.0  # of a difference, in brightness or by contrast


def thumbnail_of(pixels: np.ndarray) -> np.ndarray:
    """uint8 [16, 16, 3] of an image of any size, or of one decoded at `DECODED`."""
    return resize(pixels, _THUMBNAIL)


def hash_of(thumbnail: np.ndarray) -> np.ndarray:
    """128 bits, as uint8 [16], of a thumbnail uint8 [16, 16, 3]."""
    blocks = thumbnail.mean(-1).reshape(8, 2, 8, 2).mean((1, 3))
    bits = [blocks > np.roll(blocks, -1, axis) + _STEP for axis in (0, 1)]
    return np.packbits(np.stack(bits).ravel())


def same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two thumbnails differ by no more than compression and resizing change."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    limit = np.clip(_SHARE * one.std((0, 1)).mean(), _LEAST, _MOST)
    return bool(np.sqrt(np.square(one - other).mean()) <= limit)


def same_pictures(
    hashes: np.ndarray, thumbnail: Callable[[int], np.ndarray], equal: Sequence[Sequence[int]] = ()
) -> list[list[int]]:
    """Groups of two or more images that are one picture, by their numbers, sorted.

    Cost: n log n comparisons of hashes; thumbnails are asked for only where hashes nearly agree.

    Args:
        hashes: uint8 [images, 16], of `hash_of`.
        thumbnail: Gives the thumbnail of an image again.
        equal: Groups that are known to be one picture already.
    """
    group = np.arange(len(hashes))

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = group[group[number]]
            number = int(group[number])
        return number

    for members in equal:
        group[list(members)] = min(members)
    # One image stands for all that equal it: thousands of copies would be compared again and again.
    leaders = np.flatnonzero(group == np.arange(len(group)))
    seen = functools.lru_cache(maxsize=_REMEMBERED)(thumbnail)
    different: set[int] = set()  # one number for each pair takes half of the memory
    for pair in _candidates(hashes[leaders]):
        one, other = sorted(int(leaders[place]) for place in pair)
        first, second = root(one), root(other)
        number = one * len(hashes) + other
        if first == second or number in different:
            continue
        if same_picture(seen(one), seen(other)):
            group[max(first, second)] = min(first, second)
        else:
            if len(different) == _REMEMBERED_PAIRS:  # many alike pictures: compare again rather than grow
                different.clear()
            different.add(number)
    found: dict[int, list[int]] = {}
    for number in range(len(hashes)):
        found.setdefault(root(number), []).append(number)
    return [members for members in found.values() if len(members) > 1]


def _candidates(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs whose hashes agree in a band and nearly agree as a whole."""
    bands = hashes.reshape(len(hashes), _BANDS, 2)
    words = [hashes[:, i] for i in range(hashes.shape[1])]
    for band in range(_BANDS):
        key = bands[:, band, 0].astype(np.uint16) * 256 + bands[:, band, 1]
        order = np.lexsort((*words, key))
        for distance in range(1, min(_NEIGHBORS, len(order) - 1) + 1):
            one, other = order[:-distance], order[distance:]
            agree = key[one] == key[other]
            if not agree.any():
                break
            one, other = one[agree], other[agree]
            close = _BIT_COUNTS[hashes[one] ^ hashes[other]].sum(1, dtype=np.int64) <= _DIFFERENT
            yield from zip(one[close].tolist(), other[close].tolist())

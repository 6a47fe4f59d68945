"""Masks as labels: images of classes that are resized and moved with their image and never blended."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt._checks import check_choice, message
from tfopt.data.python_call import call_python

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


def has_masks(dataset: tf.data.Dataset, masks: bool | None, boxes: Any) -> bool:
    """Whether the labels of a dataset are masks: as the user says, else those as high and wide as images.

    Raises:
        ValueError: If labels are said to be masks and cannot be.
    """
    check_choice("masks", masks, (True, False, None))
    image, label = dataset.element_spec[:2]
    sides = label.shape.rank in (2, 3) and None not in label.shape[2:]
    known = sides and image.shape.rank == 3 and None not in (*image.shape[:2], *label.shape[:2])
    same = known and image.shape[:2] == label.shape[:2]
    if not masks:
        return bool(masks is None and not boxes and same)
    if boxes:
        raise ValueError(message("masks", "None or False with `boxes`: a label is one of the two", masks))
    if label.shape.rank is None:
        fix = (
            "Give them one: dataset.map(lambda image, mask: (image, tf.ensure_shape(mask, (None, None, 1))))."
        )
        raise ValueError(message("masks", "None or False for labels of unknown shape", masks, fix))
    if not sides or (known and not same):
        expected = "None or False for labels that are not as high and wide as their image"
        raise ValueError(message("masks", expected, masks, f"An image is {image}, a label {label}."))
    return True


def mask_spec(label: tf.TensorSpec, image_size: tuple[int, int]) -> tf.TensorSpec:
    """A mask of this size: integers and booleans keep their type, other numbers become float32."""
    dtype = label.dtype if label.dtype.is_integer or label.dtype.is_bool else tf.float32
    return tf.TensorSpec((*image_size, *label.shape[2:]), dtype)


def resize_mask(
    mask: np.ndarray, image: np.ndarray, image_size: tuple[int, int], crop_to_aspect_ratio: bool = False
) -> np.ndarray:
    """The nearest pixels of a mask [height, width(, channels)], where `resize` reads its image.

    Raises:
        ValueError: If the mask has not the size of its image.
    """
    if mask.shape[:2] != image.shape[:2]:
        expected = f"with masks as high and wide as their images, here {image.shape[0]} x {image.shape[1]}"
        fix = "Pass masks=False to `pipeline` if such labels are no masks."
        raise ValueError(message("dataset", expected, mask.shape, fix))
    scales = [old / new for old, new in zip(mask.shape, image_size)]
    rows, columns = (
        _places(old, new, min(scales) if crop_to_aspect_ratio else scale)
        for old, new, scale in zip(mask.shape, image_size, scales)
    )
    return mask[rows[:, None], columns[None, :]]


def _places(old: int, new: int, scale: float) -> np.ndarray:
    """The pixels of a side that lie nearest to those of the resized side, in the middle."""
    places = (np.arange(new) + 0.5) * scale + (old - scale * new) / 2
    return places.astype(int).clip(0, old - 1)


def resized(mask: tf.Tensor, image: tf.Tensor, spec: tf.TensorSpec, crop_to_aspect_ratio: bool) -> tf.Tensor:
    """`resize_mask` in a graph, to the size of `spec`."""
    size = tuple(spec.shape[:2])
    if tuple(mask.shape) == tuple(spec.shape) and image.shape[:2] == mask.shape[:2]:
        return tf.cast(mask, spec.dtype)

    def read(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
        return resize_mask(mask, image, size, crop_to_aspect_ratio)

    return tf.ensure_shape(tf.cast(call_python(read, [mask, image], mask.dtype), spec.dtype), spec.shape)

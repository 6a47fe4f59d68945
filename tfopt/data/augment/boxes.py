"""Boxes of objects that move with their image, and labels that look like boxes and would stay behind."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfopt.data.augment.geometry import Affine

FORMATS = ("xyxy", "xywh", "center_xywh", "yxyx", "rel_xyxy", "rel_xywh", "rel_center_xywh", "rel_yxyx")
_SEEN = 64  # labels of a dataset without random access that are looked at
_PLACES = {"x", "y", "cx", "cy", "xmin", "xmax", "ymin", "ymax", "xc", "yc", "left", "right", "top", "bottom"}
_PLACES |= {"bbox", "box", "angle", "steering", "heading", "yaw", "roll"}


def moved(boxes: tf.Tensor, place: Affine, form: str, height: int, width: int) -> tf.Tensor:
    """Boxes after an image was read at other places.

    The result is the smallest upright box around the four moved corners, cut at the edges of the image; a box
    that left the image has no area. A box without area, such as padding, stays as it is.

    Args:
        boxes: Numbers [..., 4]. Pixels count from the outer edges: the whole image is (0, 0, width, height).
        place: Where each pixel of the result was read, as in `resample`.
        form: One of `FORMATS`.
        height: Of the image.
        width: Of the image.

    Returns:
        float32 of the same shape and format.
    """
    given = tf.cast(boxes, tf.float32)
    size = tf.constant([width, height], tf.float32)
    scale = size if form.startswith("rel_") else tf.ones(2)
    kind = form.removeprefix("rel_")
    low, high = _corners(given, kind)
    low, high = low * scale - size / 2, high * scale - size / 2
    x = tf.stack([low[..., 0], high[..., 0], low[..., 0], high[..., 0]], -1) - place.x0
    y = tf.stack([low[..., 1], low[..., 1], high[..., 1], high[..., 1]], -1) - place.y0
    determinant = place.xx * place.yy - place.xy * place.yx
    corners = tf.stack(
        [(place.yy * x - place.xy * y) / determinant, (place.xx * y - place.yx * x) / determinant], -1
    )
    first = tf.clip_by_value(tf.reduce_min(corners, -2) + size / 2, 0.0, size) / scale
    last = tf.clip_by_value(tf.reduce_max(corners, -2) + size / 2, 0.0, size) / scale
    empty = tf.reduce_any(high <= low, -1, keepdims=True)
    return tf.where(empty, given, _written(first, last, kind))


def _corners(boxes: tf.Tensor, kind: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The corners (x, y) of least and of largest coordinates."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if kind == "yxyx":
        return first[..., ::-1], second[..., ::-1]
    if kind == "xywh":
        return first, first + second
    if kind == "center_xywh":
        return first - second / 2, first + second / 2
    return first, second


def _written(low: tf.Tensor, high: tf.Tensor, kind: str) -> tf.Tensor:
    if kind == "yxyx":
        low, high = low[..., ::-1], high[..., ::-1]
    elif kind == "xywh":
        high = high - low
    elif kind == "center_xywh":
        low, high = (low + high) / 2, high - low
    return tf.concat([low, high], -1)


def may_be_places(labels: np.ndarray) -> bool:
    """Whether vectors of numbers may be places in an image: no classes, soft labels or several labels.

    Four numbers between 0 and 1 that do not add up to 1 may be a box, relative to the image.
    """
    labels = np.asarray(labels, np.float64)
    if labels.ndim != 2 or labels.shape[1] < 2 or not len(labels):
        return False
    shares = bool(np.all((labels >= 0) & (labels <= 1)))
    if shares and (np.isin(labels, (0, 1)).all() or np.allclose(labels.sum(1), 1, atol=1e-3)):
        return False
    return not shares or labels.shape[1] == 4


def first_labels(dataset: tf.data.Dataset, source: Any) -> np.ndarray:
    """Labels of the source that a dataset has kept, or the first of its examples."""
    if source is not None:
        return source.labels
    labels = dataset.map(lambda image, label, *weight: label).take(_SEEN)
    return np.stack([label.numpy() for label in labels] or [np.zeros(0)])


def names_of_places(names: Sequence[str]) -> bool:
    """Whether targets have names of coordinates or directions, such as "xmin", "left_eye_x" or "angle"."""
    words = {word for name in names for word in re.split(r"[^a-z]+", name.lower())}
    return bool(words & _PLACES)

"""Contact sheets of augmented images."""

from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tfopt._checks import check_integer

_GAP = 4


def write_sheet(
    augment: Any, dataset: tf.data.Dataset, path: str, images: int, views: int, seed: int
) -> None:
    """Writes one row for each of the first images: the original, then its augmented versions."""
    check_integer("images", images, minimum=1)
    check_integer("views", views, minimum=1)
    check_integer("seed", seed, minimum=0)
    rows: list[list[np.ndarray]] = []
    for index, (image, _) in enumerate(dataset.take(images).as_numpy_iterator()):
        if rows:  # images of other sizes are stretched to the first one's
            size = rows[0][0].shape[:2]
            image = np.asarray(Image.fromarray(image).resize(size[::-1]))
        rows.append([image, *(_view(augment, image, seed, epoch, index) for epoch in range(views))])
    if not rows:
        raise ValueError("`dataset` must have images. Received: an empty dataset.")
    Image.fromarray(_tiled(rows)).save(path)


def _view(augment: Any, image: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
    where = {"epoch": tf.constant(epoch, tf.int64), "index": tf.constant(index, tf.int64)}
    changed = augment.image(tf.constant(image), seed=seed, **where).numpy()
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def _tiled(rows: list[list[np.ndarray]]) -> np.ndarray:
    padding = ((0, _GAP), (0, _GAP), (0, 0))
    lines = [np.concatenate([np.pad(tile, padding, constant_values=255) for tile in row], 1) for row in rows]
    return np.concatenate(lines)[:-_GAP, :-_GAP]

"""Whether labels fit to their images after an augmentation that moves pixels."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfopt._checks import check_choice, message
from tfopt.data.augment import Augment
from tfopt.data.augment.boxes import FORMATS, first_labels, may_be_places
from tfopt.data.random_access import random_access_of


def check_labels_stay(augment: Augment, dataset: tf.data.Dataset, boxes: Any, masks: Any) -> None:
    """Refuses masks, and numbers that may be places, where nobody said what they are."""
    label = dataset.element_spec[1]
    if not augment.moves or boxes or (boxes is False and masks is False):
        return
    if label.shape.rank is None or label.shape.rank > 1:
        fix = (
            "Pass masks=True if labels are masks as high and wide as their images, the format of boxes as "
            "`boxes` (such as 'xyxy'), both as False if they are no places in the image, or leave these "
            "options out."
        )
        expected = "without options that move pixels, as labels of this form (masks, boxes) would stay behind"
        raise ValueError(message("augment", expected, f"{augment.moves} with a label {label}", fix))
    if boxes is not None or label.shape.rank == 0 or label.shape[0] == 1:
        return
    if may_be_places(first_labels(dataset, random_access_of(dataset))):
        expected = "given, as labels that are boxes or points would stay behind where `augment` moves pixels"
        fix = (
            f"`augment` has {', '.join(augment.moves)}, and a label is {label.shape[0]} numbers. Pass "
            'boxes="xyxy" or another format if they are a box, boxes=False if they are no places in the '
            "image. Points do not move yet: leave these options out."
        )
        raise ValueError(message("boxes", expected, boxes, fix))


def check_boxes(
    boxes: str, dataset: tf.data.Dataset, sizes: Sequence[tuple[int, int]], augment: Augment | None
) -> None:
    """Refuses a format for labels that are none, or that would no longer fit to resized images."""
    check_choice("boxes", boxes, (*FORMATS, False, None))
    image, label = dataset.element_spec[0], dataset.element_spec[1]
    if label.shape.rank not in (1, 2) or label.shape[-1] != 4:
        raise ValueError(message("boxes", "None or False for labels without 4 numbers", boxes, f"{label}."))
    if not boxes.startswith("rel_") and any(tuple(image.shape[:2]) != size for size in sizes):
        fix = (
            f"Images of {tuple(image.shape[:2])} become {sizes[0]}. Divide boxes by the size of their image."
        )
        raise ValueError(message("boxes", "a format relative to the image, as it is resized", boxes, fix))
    fixed = [name for name in ("randaugment", "trivial_augment", "mixup", "cutmix") if _has(augment, name)]
    if fixed:
        raise ValueError(message("augment", "without options that boxes cannot follow", fixed))


def _has(augment: Augment | None, name: str) -> bool:
    return augment is not None and bool(getattr(augment, name))

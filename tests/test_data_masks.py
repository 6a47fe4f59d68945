"""Masks as labels are resized and moved with their images, by the nearest pixel."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image

from tfopt.data import Augment, pipeline
from tfopt.data.augment import geometry
from tfopt.data.masks import resize_mask

FOLLOWED = {
    "geometry": Augment(flip="both", rotate=90, shift=0.2, zoom=0.3, shear=20, crop=0.5),
    "constant": Augment(rotate=60, shift=0.3, fill_mode="constant", fill_value=200, mask_fill_value=20),
    "RandAugment": Augment(randaugment=25, randaugment_layers=4, fill_mode="reflect"),
}


def fields(count=6, height=24, width=32):
    """Large fields of three values, and the masks that name them: value = 10 times class."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(count):
        a, b = rng.uniform(8, 24), rng.uniform(6, 18)
        masks.append((x > a).astype(int) + 2 * (y > b))
    masks = np.array(masks, np.uint8) + 5
    return np.repeat(masks[..., None] * 10, 3, -1), masks


@pytest.mark.parametrize("name", FOLLOWED)
def test_masks_follow_their_images(name):
    augment = FOLLOWED[name]
    images, masks = fields()
    colors = "Augment" in name  # these change colors too: only the borders of the fields can be compared
    for index, (image, mask) in enumerate(zip(images, masks)):
        where = {"seed": 0, "epoch": 3, "index": index}
        moved = augment.mask(tf.constant(mask), **where).numpy()
        channels = augment.mask(tf.constant(mask[..., None]), **where).numpy()
        assert moved.dtype == np.uint8 and set(np.unique(moved)) <= {5, 6, 7, 8, 20}
        np.testing.assert_array_equal(channels[..., 0], moved)
        found = augment.image(tf.constant(image, tf.float32), **where).numpy()[..., 0]
        low = scipy.ndimage.minimum_filter(moved, 5, mode="constant", cval=0)  # no edges of the image
        inside = low == scipy.ndimage.maximum_filter(moved, 5)
        if not colors:
            np.testing.assert_allclose(found[inside], moved[inside] * 10.0, atol=1e-3)
            continue
        for value in np.unique(moved[inside]):  # each field has one color
            assert np.ptp(found[inside & (moved == value)]) < 1


def test_nearest_resampling_equals_scipy():
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 9, (20, 26))
    place = geometry.Affine(*map(np.float32, (0.9137, 0.2071, 3.317, -0.3119, 1.1031, -2.113)))
    middle = (np.array(mask.shape) - 1) / 2
    matrix = np.array([[1.1031, -0.3119], [0.2071, 0.9137]])
    offset = np.array([-2.113, 3.317]) + middle - matrix @ middle
    for ours, theirs in {"constant": "grid-constant", "nearest": "nearest", "wrap": "grid-wrap"}.items():
        expected = scipy.ndimage.affine_transform(mask, matrix, offset, order=0, mode=theirs, cval=77)
        found = geometry.resample_nearest(tf.constant(mask[..., None]), place, ours, 77)[..., 0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [(11, 17), (48, 40), (24, 32)])
def test_masks_are_resized_to_the_nearest_pixels_of_pillow(size, crop):
    images, masks = fields(2)
    scale = min(24 / size[0], 32 / size[1])
    height, width = (size[0] * scale, size[1] * scale) if crop else (24, 32)
    box = ((32 - width) / 2, (24 - height) / 2, (32 + width) / 2, (24 + height) / 2)
    for image, mask in zip(images, masks):
        expected = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST, box=box)
        np.testing.assert_array_equal(resize_mask(mask, image, size, crop), np.asarray(expected))


def several_sizes(images, masks, dtype):
    """Images of sizes that only the running graph knows."""

    def generate():
        for number, (image, mask) in enumerate(zip(images, masks)):
            yield image[: 20 + number], mask[: 20 + number, :, None].astype(dtype)

    specs = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None, 1), dtype)
    return tf.data.Dataset.from_generator(generate, output_signature=specs)


@pytest.mark.parametrize("cache", ["memory", "disk", None])
def test_pipelines_move_masks_in_every_cache(cache):
    images, masks = fields()
    options = {
        "augment": Augment(flip="both", shift=0.1),
        "cache": cache,
        "seed": 4,
        "shuffle": cache is not None,
    }
    known = tf.data.Dataset.from_tensor_slices((images, masks))
    for dataset, size, mask in (
        (known, None if cache == "memory" else (12, 16), None),
        (several_sizes(images, masks, np.uint8), {0: (12, 16), 1: (24, 32)}, True),
    ):
        batches = pipeline(dataset, 4, image_size=size, masks=mask, **options)
        for epoch in range(2):
            found = list(batches)
            assert [len(labels) for _, labels in found] == [4, 2]
            for pixels, labels in found:
                assert labels.dtype == tf.uint8 and labels.shape[1:3] == pixels.shape[1:3]
                near = np.abs(pixels.numpy()[..., 0] - 10.0 * labels.numpy().reshape(pixels.shape[:3])) < 1
                assert near.mean() > 0.75, epoch  # all but what interpolation blends


def test_masks_without_augmentation_are_resized_too():
    images, masks = fields()
    for values in (masks, masks.astype(np.int32), masks > 6, masks.astype(np.float64)):
        dataset = tf.data.Dataset.from_tensor_slices((images, values, np.arange(6.0)))
        ((pixels, labels, weights),) = pipeline(dataset, 6, image_size=(12, 16), shuffle=False)
        assert pixels.shape == (6, 12, 16, 3) and list(weights.numpy()) == list(range(6))
        assert labels.dtype == (values.dtype if values.dtype != np.float64 else tf.float32)
        np.testing.assert_array_equal(labels, values[:, 1::2, 1::2])


def test_masks_that_cannot_be_are_refused_in_words():
    images, masks = fields()
    flip = {"augment": Augment(flip="both")}
    make = tf.data.Dataset.from_tensor_slices
    with pytest.raises(ValueError, match=r"not as high and wide as their image.*\(12, 32\)"):
        pipeline(make((images, masks[:, ::2])), 2, masks=True, **flip)
    with pytest.raises(ValueError, match="with `boxes`"):
        pipeline(make((images, masks)), 2, masks=True, boxes="xyxy", **flip)
    with pytest.raises(ValueError, match="cutmix"):
        pipeline(make((images, masks)), 2, augment=Augment(cutmix=1.0))
    with pytest.raises(ValueError, match=r"as high and wide as their images, here 20 x 32.*\(10, 32, 1\)"):
        pipeline(
            several_sizes(images, masks, np.uint8).map(lambda x, y: (x, y[::2])), 2, image_size=8, masks=True
        )
    with pytest.raises(ValueError, match="mask_fill_value"):
        Augment(mask_fill_value=-2)

"""Augmentation against Pillow, SciPy and formulas; its random numbers against their distributions."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tfopt.data import Augment, load, pipeline
from tfopt.data.augment import color, geometry, mix, policy, stateless_random

SIZE = 40


def pictures():
    """Noise, a smooth picture, a dull one, one flat channel, one value only; not all square."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    smooth = np.stack([x * 6, y * 6, 120 + 60 * np.sin(x / 4)], -1)
    dull = rng.integers(100, 140, (SIZE, 30, 3))
    flat = rng.integers(0, 256, (SIZE, SIZE, 3))
    flat[..., 1] = 7
    arrays = [rng.integers(0, 256, (30, SIZE, 3)), smooth, dull, flat, np.full((SIZE, SIZE, 3), 90)]
    return [array.astype(np.uint8) for array in arrays]


def result(function, picture, *args):
    return function(tf.constant(picture, tf.float32), *args).numpy()


def enhance(kind):
    return lambda image, factor: kind(image).enhance(factor)


PILLOW = [
    (color.brightness, enhance(ImageEnhance.Brightness), [0.1, 0.7, 1.0, 1.9]),
    (color.contrast, enhance(ImageEnhance.Contrast), [0.1, 0.7, 1.0, 1.9]),
    (color.saturation, enhance(ImageEnhance.Color), [0.1, 0.7, 1.0, 1.9]),
    (color.sharpness, enhance(ImageEnhance.Sharpness), [0.1, 0.7, 1.0, 1.9]),
    (color.posterize, ImageOps.posterize, [1, 2, 4, 7, 8]),
    (color.solarize, ImageOps.solarize, [0, 1, 100, 255, 256]),
    (color.autocontrast, lambda image, _: ImageOps.autocontrast(image), [None]),
    (color.equalize, lambda image, _: ImageOps.equalize(image), [None]),
]


@pytest.mark.parametrize("ours, pillows, values", PILLOW, ids=[case[0].__name__ for case in PILLOW])
def test_changes_of_color_equal_pillow(ours, pillows, values):
    for picture in pictures():
        for value in values:
            expected = np.asarray(pillows(Image.fromarray(picture), value), float)
            found = result(ours, picture, *([] if value is None else [value]))
            assert np.abs(found - expected).max() <= 2.0  # Pillow rounds, twice in a blend
            if ours in (color.posterize, color.solarize, color.equalize):
                np.testing.assert_array_equal(found, expected)


def test_blur_equals_scipy():
    for picture in pictures():
        for sigma in (0.5, 2.0):
            image, ones = picture.astype(float), np.ones(picture.shape[:2])
            blurred = scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="constant", truncate=9)
            weight = scipy.ndimage.gaussian_filter(ones, sigma, mode="constant", truncate=9)
            np.testing.assert_allclose(
                result(color.blur, picture, sigma), blurred / weight[..., None], atol=0.02
            )


SCIPY_MODES = {"nearest": "nearest", "constant": "grid-constant", "reflect": "reflect", "wrap": "grid-wrap"}


@pytest.mark.parametrize("fill_mode", SCIPY_MODES)
def test_resampling_equals_scipy(fill_mode):
    rng = np.random.default_rng(1)
    program = tf.function(geometry.resample, jit_compile=True)
    for picture in pictures()[:3]:
        height, width, _ = picture.shape
        for _ in range(3):
            xx, xy, yx, yy = np.eye(2).ravel() + rng.uniform(-0.6, 0.6, 4)
            x0, y0 = rng.uniform(-15, 15, 2)
            place = geometry.Affine(*map(np.float32, (xx, xy, x0, yx, yy, y0)))
            middle = np.array([(height - 1) / 2, (width - 1) / 2])
            matrix = np.array([[yy, yx], [xy, xx]])
            offset = np.array([y0, x0]) + middle - matrix @ middle
            channels = [
                scipy.ndimage.affine_transform(
                    picture[..., c].astype(float),
                    matrix,
                    offset,
                    order=1,
                    mode=SCIPY_MODES[fill_mode],
                    cval=50.0,
                )
                for c in range(3)
            ]
            expected = np.stack(channels, -1)
            for resample in (geometry.resample, program):
                found = resample(tf.constant(picture), place, fill_mode, 50.0).numpy()
                assert np.abs(found - expected).max() < 0.02


def test_maps_move_pictures_the_way_they_say():
    square, wide = pictures()[1], pictures()[0]

    def moved(place, picture):
        return geometry.resample(tf.constant(picture), place, "constant").numpy()

    np.testing.assert_allclose(moved(geometry.rotation(90.0), square), np.rot90(square), atol=0.01)
    np.testing.assert_array_equal(moved(geometry.Affine(xx=-1.0), wide), wide[:, ::-1])
    np.testing.assert_array_equal(moved(geometry.Affine(yy=-1.0), wide), wide[::-1])
    np.testing.assert_array_equal(moved(geometry.Affine(x0=-3.0), wide)[:, 3:], wide[:, :-3])
    first, second = geometry.Affine(x0=-3.0), geometry.rotation(90.0)
    both = second.after(first)  # the picture is turned, then shifted
    np.testing.assert_allclose(moved(both, square)[:, 3:], np.rot90(square)[:, :-3], atol=0.01)
    box = geometry.crop(0.25, 1.0, 0.0, 1.0, SIZE, SIZE)  # the lower left quarter
    centres = moved(box, square)[1::2, 1::2] / 2 + moved(box, square)[::2, ::2] / 2
    np.testing.assert_allclose(
        centres[1:-1, 1:-1, 0], square[SIZE // 2 :, : SIZE // 2, 0][1:-1, 1:-1], atol=1.5
    )


def pillow_place(image, xx=1.0, xy=0.0, x0=0.0, yx=0.0, yy=1.0, y0=0.0):
    """The same map as an affine transform of Pillow, whose pixels are read at their middles."""
    cx, cy = image.width / 2, image.height / 2
    rows = (xx, xy, x0 + cx - xx * cx - xy * cy, yx, yy, y0 + cy - yx * cx - yy * cy)
    return image.transform(image.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)


def pillow_change(name, image, strength, sign, ranges):
    signed = strength * sign
    angle = np.radians(ranges.rotate * signed)
    enhancers = {
        "brightness": "Brightness",
        "saturation": "Color",
        "contrast": "Contrast",
        "sharpness": "Sharpness",
    }
    if name in enhancers:
        return getattr(ImageEnhance, enhancers[name])(image).enhance(1 + ranges.enhance * signed)
    return {
        "shear_x": lambda: pillow_place(image, xy=ranges.shear * signed),
        "shear_y": lambda: pillow_place(image, yx=ranges.shear * signed),
        "translate_x": lambda: pillow_place(image, x0=ranges.translate * image.width * signed),
        "translate_y": lambda: pillow_place(image, y0=ranges.translate * image.height * signed),
        "rotate": lambda: pillow_place(image, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle)),
        "identity": lambda: image,
        "posterize": lambda: ImageOps.posterize(image, 8 - round(strength * ranges.posterize)),
        "solarize": lambda: ImageOps.solarize(image, int(np.ceil(255 * (1 - strength)))),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("ranges", [policy.rand_augment_ranges(), policy.trivial_augment_ranges(SIZE)])
def test_the_changes_of_the_policies_equal_pillow(ranges):
    program = tf.function(
        lambda image, number, strength, sign: policy.change(
            image, number, strength, sign, ranges, ("constant", 0.0)
        ),
        jit_compile=True,
    )
    assert len(policy.CHANGES) == len(set(policy.CHANGES)) == 14
    picture = pictures()[1]
    for number, name in enumerate(policy.CHANGES):
        for strength, sign in ((0.3, 1.0), (0.3, -1.0), (0.9, 1.0)):
            expected = np.asarray(
                pillow_change(name, Image.fromarray(picture), strength, sign, ranges), float
            )
            image = tf.constant(picture, tf.float32)
            found = program(image, tf.constant(number), tf.constant(strength), tf.constant(sign)).numpy()
            wrong = np.abs(found - expected).max(-1) > 2
            inside = name not in policy.CHANGES[:5]  # Pillow leaves the outermost pixels empty
            assert wrong.mean() <= (0 if inside else 0.12), name


def test_erasing_equals_a_box_painted_by_hand():
    picture = pictures()[0]
    height, width, _ = picture.shape
    for area, ratio, x, y in ((0.2, 1.0, 0.5, 0.5), (0.3, 3.3, 0.05, 0.9), (0.02, 0.4, 1.0, 0.0)):
        expected = picture.astype(float)
        for row in range(height):
            for column in range(width):
                beside = abs((column + 0.5) / width - x) < np.sqrt(area * ratio) / 2
                level = abs((row + 0.5) / height - y) < np.sqrt(area / ratio) / 2
                if beside and level:
                    expected[row, column] = picture.mean((0, 1))
        assert (expected != picture).any()
        np.testing.assert_allclose(result(color.erase, picture, area, ratio, x, y), expected, atol=1e-3)


def split_mix(seed, epoch, index, purpose, count):
    """The stateless_random, computed with Python's integers."""
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def output(z):
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        return z ^ z >> 31

    key = output((seed + gamma) & mask)
    for part in (epoch, index):
        key = output(((key ^ part) + gamma) & mask)
    numbers = range(64 * purpose + 1, 64 * purpose + count + 1)
    return np.array([output((key + number * gamma) & mask) >> 40 for number in numbers]) * 2.0**-24


def test_draws_equal_split_mix():
    for seed, epoch, index in ((0, 0, 0), (3, 1, 7), (2**40, 2**33, 2**35)):
        key = stateless_random.make_key(seed, tf.constant(epoch, tf.int64), tf.constant(index, tf.int64))
        np.testing.assert_array_equal(
            stateless_random.uniform(key, 2, 5), split_mix(seed, epoch, index, 2, 5)
        )


def test_geometry_from_draw_to_pixel_equals_scipy():
    """All options at once, against matrices made from the documented meaning of each option."""
    picture = pictures()[1][:, :32]
    height, width, _ = picture.shape
    options = {"flip": "both", "shift": 0.1, "rotate": 30, "shear": 20, "zoom": 0.3, "crop": 0.5}
    augment = Augment(**options)
    for index in range(6):
        u = split_mix(5, 2, index, 0, 12)
        signed = 2 * u - 1
        eye = np.eye(3)
        flip = np.diag([1 if u[0] < 0.5 else -1, 1 if u[1] < 0.5 else -1, 1])
        shift, shear = eye.copy(), eye.copy()
        shift[:2, 2] = 0.1 * width * signed[2], 0.1 * height * signed[3]
        angle = np.radians(30 * signed[4])
        rotate = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        shear[0, 1] = np.tan(np.radians(20 * signed[5]))
        zoom = np.diag([1 / (1 + 0.3 * signed[6])] * 2 + [1])
        area, ratio = 0.5 + 0.5 * u[7], np.exp(np.log(4 / 3) * signed[8])
        box = np.minimum([np.sqrt(area * ratio), np.sqrt(area / ratio)], 1.0)
        crop = np.diag([*box, 1.0])
        crop[:2, 2] = (u[9:11] - 0.5) * (1 - box) * [width, height]
        xy = crop @ zoom @ shear @ rotate @ shift @ flip
        matrix, middle = xy[1::-1, 1::-1], np.array([(height - 1) / 2, (width - 1) / 2])
        offset = xy[1::-1, 2] + middle - matrix @ middle
        channels = [
            scipy.ndimage.affine_transform(
                picture[..., c].astype(float), matrix, offset, order=1, mode="nearest"
            )
            for c in range(3)
        ]
        where = {"epoch": tf.constant(2, tf.int64), "index": tf.constant(index, tf.int64)}
        found = augment.image(tf.constant(picture), seed=5, **where).numpy()
        assert np.abs(found - np.stack(channels, -1)).max() < 0.05


def run(augment, picture, epochs=1, seed=0):
    return np.stack(
        [
            augment.image(
                tf.constant(picture),
                seed=seed,
                epoch=tf.constant(e, tf.int64),
                index=tf.constant(5, tf.int64),
            )
            for e in range(epochs)
        ]
    )


def ramp():
    """An image that says where each pixel came from: red = x, green = y."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([x * 5, y * 5, x * 0], -1).astype(np.uint8)


def test_options_stay_inside_their_bounds_and_reach_them():
    inner = slice(SIZE // 2 - 1, SIZE // 2 + 1)

    def middle(images):
        return images[:, inner, inner].mean((1, 2)) / 5 - (SIZE - 1) / 2

    shifts = middle(run(Augment(shift=0.1), ramp(), 200))[:, :2]
    assert 3.6 < np.abs(shifts).max() <= 4.0001 and np.abs(shifts.mean(0)).max() < 0.6
    flips = run(Augment(flip="both"), ramp(), 200)[:, 3, 3, :2] > 100
    assert all(0.35 < share < 0.65 for share in flips.mean(0)) and len(np.unique(flips, axis=0)) == 4
    turned = run(Augment(rotate=30), ramp(), 200)
    slope = turned[:, inner.start, inner.start + 5] - turned[:, inner.start, inner.start - 5]
    angles = np.degrees(np.arctan2(slope[:, 1], slope[:, 0]))
    assert 28 < np.abs(angles).max() < 30.5 and scipy.stats.kstest(angles, "uniform", (-30, 60)).pvalue > 1e-3
    wide = (
        run(Augment(zoom=0.5), ramp(), 200)[:, 20, 25, 0] - run(Augment(zoom=0.5), ramp(), 200)[:, 20, 15, 0]
    )
    assert 10 * 5 / 1.5 - 1 <= wide.min() < 36 and 90 < wide.max() <= 10 * 5 / 0.5 + 1
    boxes = run(Augment(crop=0.3), ramp(), 200)
    sides = boxes[:, -2, -2, :2] - boxes[:, 1, 1, :2]
    areas = sides.prod(-1) / ((SIZE - 3) * 5) ** 2
    assert 0.28 < areas.min() < 0.4 and 0.85 < areas.max() <= 1.01
    assert boxes.min() >= 0 and boxes.max() <= 195.01
    sheared = run(Augment(shear=45), ramp(), 200)
    assert 0.9 < np.abs((sheared[:, 24, 20, 0] - sheared[:, 16, 20, 0]) / 40).max() <= 1.001
    erased = run(Augment(erase=0.5), ramp(), 200)
    gone = (np.abs(erased - ramp()).max(-1) > 0).mean((1, 2))
    assert 0.35 < (gone > 0).mean() < 0.65 and 0.25 < gone.max() <= 0.36
    grey = np.full((SIZE, SIZE, 3), 100, np.uint8)
    colored = run(Augment(color=0.2), grey, 100)[:, 0, 0, 0]
    assert 80 <= colored.min() < 84 and 116 < colored.max() <= 120.01
    edge = np.zeros((SIZE, SIZE, 3), np.uint8)
    edge[:, SIZE // 2 :] = 255
    blurred = run(Augment(blur=3), edge, 30)[:, 0, SIZE // 2, 0]
    assert 127 < blurred.min() < 150 and 240 < blurred.max() <= 255.1


def test_policies_change_most_images_and_stay_in_range():
    for augment in (Augment(randaugment=9), Augment(trivial_augment=True)):
        images = run(augment, pictures()[1], 60)
        changed = np.abs(images - pictures()[1]).max((1, 2, 3)) > 1
        assert changed.mean() > 0.6 and len(np.unique(images.reshape(60, -1), axis=0)) > 25
        assert images.min() >= 0 and images.max() <= 255.01
    weak, strong = (
        run(Augment(randaugment=strength, randaugment_layers=1), ramp(), 60) for strength in (1, 30)
    )
    assert np.abs(weak - ramp()).mean() < np.abs(strong - ramp()).mean()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (2, 3, 3)])
@pytest.mark.parametrize("options", [{"trivial_augment": True}, {"randaugment": 30, "color": 1, "blur": 3}])
def test_images_that_are_all_border(shape, options):
    image = tf.constant(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    changed = Augment(**options).image(
        image, seed=0, epoch=tf.constant(0, tf.int64), index=tf.constant(0, tf.int64)
    )
    assert changed.shape == shape
    picture = Image.fromarray(image.numpy())
    sharper = result(color.sharpness, image.numpy(), 1.9)
    np.testing.assert_array_equal(sharper, np.asarray(ImageEnhance.Sharpness(picture).enhance(1.9)))


def test_draws_are_uniform_and_independent():
    index = tf.range(20_000, dtype=tf.int64)
    key = stateless_random.make_key(3, tf.constant(0, tf.int64), index)
    u = stateless_random.uniform(key, 1, 3).numpy()
    others = [
        stateless_random.uniform(key, 2, 3),
        stateless_random.uniform(stateless_random.make_key(3, tf.constant(1, tf.int64), index), 1, 3),
        stateless_random.uniform(stateless_random.make_key(4, tf.constant(0, tf.int64), index), 1, 3),
    ]
    assert u.min() >= 0 and u.max() < 1
    for column in u.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
    columns = np.concatenate([u, np.roll(u, 1, 0), *[other.numpy() for other in others]], 1)
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 0.035
    one = stateless_random.uniform(
        stateless_random.make_key(3, tf.constant(0, tf.int64), tf.constant(7, tf.int64)), 1, 3
    )
    np.testing.assert_array_equal(one, u[7])


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 5.0])
def test_shares_are_beta_distributed(alpha):
    u = np.random.default_rng(0).uniform(size=20_000).astype(np.float32)
    share = mix.from_quantiles(mix.beta_quantiles(alpha), tf.constant(u)).numpy()
    assert share.min() >= 0 and share.max() <= 1 and not np.isnan(share).any()
    assert abs(share.var() - 0.25 / (2 * alpha + 1)) < 0.004
    inner = share[(share > 1e-3) & (share < 1 - 1e-3)]  # the quantiles are 1/4096 apart
    low, high = scipy.stats.beta.cdf([1e-3, 1 - 1e-3], alpha, alpha)
    cdf = lambda x: (scipy.stats.beta.cdf(x, alpha, alpha) - low) / (high - low)  # noqa: E731
    assert scipy.stats.kstest(inner, cdf).pvalue > 1e-4
    assert abs(len(inner) / len(share) - (high - low)) < 0.01


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("count", [6, 7])
def test_mixing(kind, count):
    classes = 4
    images = tf.constant(np.arange(count), tf.float32)[:, None, None, None] * tf.ones((1, 20, 30, 3))
    labels = np.arange(count) % classes
    where = {"seed": 1, "epoch": tf.constant(0, tf.int64), "index": tf.range(count, dtype=tf.int64)}
    mixed, soft = Augment(**{kind: 1.0}).batch(images, tf.constant(labels), classes=classes, **where)
    from_soft = Augment(**{kind: 1.0}).batch(images, tf.one_hot(labels, classes), classes=classes, **where)
    np.testing.assert_array_equal(from_soft[1], soft)
    np.testing.assert_allclose(tf.reduce_sum(soft, -1), 1, rtol=1e-6)
    for row in range(count):
        other = min(row ^ 1, count - 1)
        share = mixed[row].numpy().mean()  # of a picture that is its own number
        weight = 1.0 if other == row else (share - other) / (row - other)
        expected = weight * np.eye(classes)[labels[row]] + (1 - weight) * np.eye(classes)[labels[other]]
        np.testing.assert_allclose(soft[row], expected, atol=2e-5)
        if kind == "cutmix":
            assert set(np.unique(mixed[row])) <= {row, other}
    assert len(np.unique(np.round(soft.numpy().max(-1), 4))) > 2  # each pair has its own share


def test_both_kinds_of_mixing_occur_and_labels_follow_the_pixels():
    x = np.zeros((64, 8, 8, 3), np.uint8)
    x[32:] = 200
    data = load((x, np.repeat([0, 1], 32)), validation_split=0, test_split=0)
    batches = pipeline(data.train, 16, augment=Augment(mixup=1.0, cutmix=1.0), classes=2, epochs=4)
    images, labels = (np.concatenate(part) for part in zip(*[(a.numpy(), b.numpy()) for a, b in batches]))
    np.testing.assert_allclose(images.mean((1, 2, 3)) / 200, labels[:, 1], atol=1e-5)
    values = np.array([len(np.unique(image)) for image in images])
    inner = (labels[:, 1] > 0.02) & (labels[:, 1] < 0.98)
    assert (values[inner] == 1).any() and (values[inner] == 2).any()


@pytest.mark.full
def test_threads_do_not_matter(tmp_path):
    data = load((np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3)), np.arange(24) % 2), test_split=0)

    def pixels(threads):
        batches = pipeline(data.train, 6, augment=Augment.strong(), classes=2)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        return np.concatenate([images.numpy() for images, _ in batches.with_options(options)])

    np.testing.assert_array_equal(pixels(1), pixels(8))


def test_presets_and_contact_sheet(tmp_path):
    data = load("digits").resized(32)
    for augment in (Augment.light(), Augment.standard(), Augment.image_data_generator()):
        assert augment == Augment(**augment.get_config())
    Augment.light().show(data.train, tmp_path / "sheet.png", images=3, views=4)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (5 * 36 - 4, 3 * 36 - 4)
    first = np.asarray(sheet)[:32, :32]
    np.testing.assert_array_equal(first, next(iter(data.train))[0])


@pytest.mark.parametrize(
    "option, value",
    [
        ("flip", "sideways"), ("flip", True), ("rotate", 0), ("rotate", 181), ("shift", -0.1), ("zoom", 1),
        ("shear", 90), ("crop", 0), ("crop", 1.5), ("color", 2), ("blur", 0), ("erase", 1.1), ("mixup", 0),
        ("cutmix", float("nan")), ("randaugment", 31), ("randaugment_layers", 0), ("fill_mode", "edge"),
        ("fill_value", 256), ("rotate", "20"), ("trivial_augment", 1),
    ],
)  # fmt: skip
def test_refused_options(option, value):
    with pytest.raises((ValueError, TypeError), match=f"`{option}`"):
        Augment(**{option: value})

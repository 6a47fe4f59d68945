"""`weighted`, `class_weights` and `balance` for every form of labels; augmentation of masks and boxes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.data import Augment, balance, class_weights, load, pipeline, weighted
from tfopt.recipes.labels_in_place import with_labels_in_place

X = np.zeros((12, 4), np.float32)
Y = np.arange(12) % 3
WEIGHTS = {0: 1.0, 1: 2.0, 2: 4.0}
EXPECTED = np.array([1, 2, 4] * 4, np.float32)
PIXELS = np.tile(Y[:, None, None], (1, 2, 2))


def added(y, weights, *given, batch=4):
    dataset = tf.data.Dataset.from_tensor_slices((X, y, *given))
    dataset = dataset.batch(batch) if batch else dataset
    parts = [found for *_, found in weighted(dataset, weights)]
    join = (lambda *values: np.concatenate(values)) if batch else (lambda *values: np.stack(values))
    return tf.nest.map_structure(join, *parts)


@pytest.mark.parametrize("batch", [4, 3, None])
@pytest.mark.parametrize(
    "y, expected",
    [
        (Y, EXPECTED),
        (Y.astype("uint8")[:, None], EXPECTED),
        (Y.astype("float32"), EXPECTED),
        (np.eye(3, dtype="f4")[Y], EXPECTED),
        (np.eye(3, dtype="f4")[Y] * 0.7 + 0.1, EXPECTED * 0.7 + 0.7),
        (PIXELS.astype("uint8")[..., None], np.tile(EXPECTED[:, None, None], (1, 2, 2))),
        (np.eye(3, dtype="f4")[PIXELS], np.tile(EXPECTED[:, None, None], (1, 2, 2))),
        (PIXELS, np.tile(EXPECTED[:, None, None], (1, 2, 2))),
    ],
)
def test_every_form_of_labels(y, expected, batch):
    if batch is None and y.shape[1:] == (1,):
        expected = expected[:, None]  # one label [1] of an unbatched dataset keeps its form
    np.testing.assert_allclose(added(y, WEIGHTS, batch=batch), expected, rtol=1e-6)


def test_a_static_batch_of_as_many_labels_as_classes_is_no_soft_label():
    for y in (Y, Y.astype("float32")):
        dataset = tf.data.Dataset.from_tensor_slices((X, y)).batch(3, drop_remainder=True)
        np.testing.assert_allclose(next(iter(weighted(dataset, WEIGHTS)))[2], [1, 2, 4])


def test_one_sigmoid_and_given_weights():
    binary = (Y > 0).astype("float32")[:, None]
    np.testing.assert_allclose(added(binary, {0: 1.0, 1: 3.0}), [1, 3, 3] * 4)
    given = np.arange(12, dtype="float32")
    np.testing.assert_allclose(added(Y, WEIGHTS, given), EXPECTED * given)
    np.testing.assert_allclose(added(PIXELS, WEIGHTS, given)[:, 1, 1], EXPECTED * given)


def test_several_outputs():
    y = {"a": Y, "b": (Y == 0).astype("uint8"), "c": np.ones((12, 2), np.float32)}
    found = added(y, {"a": WEIGHTS, "b": class_weights([9, 1])})
    np.testing.assert_allclose(found["a"], EXPECTED)
    np.testing.assert_allclose(found["b"], [1.8, 0.2, 0.2] * 4, rtol=1e-6)
    np.testing.assert_allclose(found["c"], np.ones(12))
    first, second = added((Y, Y), (WEIGHTS, {0: 1.0, 1: 1.0, 2: 1.0}))
    np.testing.assert_allclose(first, EXPECTED)
    np.testing.assert_allclose(second, 1)
    assert class_weights({"a": [1, 1], "b": [9, 1]})["b"] == class_weights([9, 1])


def test_arrays_and_a_model_with_two_outputs():
    y = {"a": Y, "b": (Y == 0).astype("uint8")}
    weights = {"a": WEIGHTS, "b": {0: 1.0, 1: 5.0}}
    x, _, found = weighted((X, y), weights)
    np.testing.assert_allclose(found["a"], EXPECTED)
    inputs = keras.Input((4,))
    outputs = {"a": keras.layers.Dense(3, name="a")(inputs), "b": keras.layers.Dense(2, name="b")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, sample_weight=found, verbose=0)
    model.fit(weighted(tf.data.Dataset.from_tensor_slices((X, y)).batch(4), weights), verbose=0)


@pytest.mark.parametrize(
    "y, weights, text",
    [
        ({"a": Y}, WEIGHTS, r"by output, .*\['a'\]"),
        ({"a": Y}, {"b": WEIGHTS}, r"by output, .*\['a'\]"),
        ((Y, Y), [WEIGHTS], "2 dicts"),
        (Y, {1: 1.0, 2: 2.0}, r"0 \.\.\. classes - 1"),
        (Y.astype(str), WEIGHTS, "StringLookup"),
    ],
)
def test_weights_and_labels_that_do_not_fit(y, weights, text):
    with pytest.raises(ValueError, match=text):
        weighted(tf.data.Dataset.from_tensor_slices((X, y)).batch(4), weights)


def test_balance_names_what_it_cannot_balance():
    slices = tf.data.Dataset.from_tensor_slices
    with pytest.raises(TypeError, match=r"data\.balanced\(\)"):
        balance(load("digits"))
    with pytest.raises(ValueError, match="StringLookup"):
        balance(slices((X, Y.astype(str))))
    with pytest.raises(ValueError, match="before `batch`"):
        balance(slices((X, {"a": Y})))


@pytest.mark.parametrize("shape", [(6, 5), (5, 4), (2, 3, 4)])
def test_labels_of_unknown_meaning_do_not_stay_behind_moved_images(shape):
    images = np.zeros((4, 6, 6, 3), np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.zeros((4, *shape), np.float32)))
    for augment in (Augment(flip="horizontal"), Augment(rotate=5), Augment(randaugment=9)):
        with pytest.raises(ValueError, match=rf"`augment` must be .*{augment.moves[0]}.*masks=True"):
            pipeline(dataset, 2, augment=augment)
    with pytest.raises(ValueError, match="`mixup` must be None"):
        pipeline(dataset, 2, augment=Augment(mixup=1.0))
    assert len(list(pipeline(dataset, 2, augment=Augment(color=0.2)))) == 2
    pipeline(dataset, 2, augment=Augment(rotate=5), boxes=False, masks=False)


BOX = np.array([1.0, 2.0, 4.0, 5.0], np.float32)  # x, y, x, y
FORMS = {
    "xyxy": lambda x, y, u, v: (x, y, u, v),
    "yxyx": lambda x, y, u, v: (y, x, v, u),
    "xywh": lambda x, y, u, v: (x, y, u - x, v - y),
    "center_xywh": lambda x, y, u, v: ((x + u) / 2, (y + v) / 2, u - x, v - y),
}


def test_boxes_move_with_their_image():
    height, width = 24, 32
    x, y, u, v = 6, 5, 14, 17
    image = np.zeros((height, width, 3), np.float32)
    image[y:v, x:u] = 255
    augment = Augment(flip="both", shift=0.2, zoom=0.2, rotate=90, fill_mode="constant")
    for index in range(4):
        where = {"seed": 0, "epoch": 0, "index": index}
        rows, columns = np.nonzero(augment.image(tf.constant(image), **where).numpy()[..., 0] > 64)
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        for name, form in FORMS.items():
            pixels = np.array((height, width, height, width) if name == "yxyx" else (width, height) * 2)
            given = np.float32(form(x, y, u, v))
            found = augment.boxes(given, name, (height, width), **where)
            relative = augment.boxes(given / pixels, f"rel_{name}", (height, width), **where)
            np.testing.assert_allclose(found, form(*edges), atol=1.6)
            np.testing.assert_allclose(relative * pixels, found, atol=1e-3)


def test_several_boxes_move_and_padding_stays():
    boxes = np.array([[[0, 1, 2, 3], [0, 0, 0, 0], [-1, -1, -1, -1]]] * 4)
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((4, 6, 8, 3), np.uint8), boxes))
    batches = pipeline(dataset, 4, augment=Augment(flip="horizontal"), boxes="xyxy")
    found = np.concatenate([labels.numpy() for _ in range(3) for _, labels in batches])
    assert {tuple(box) for box in found[:, 0]} == {(0, 1, 2, 3), (6, 1, 8, 3)}
    np.testing.assert_array_equal(found[:, 1:], np.tile([[0.0] * 4, [-1.0] * 4], (12, 1, 1)))


@pytest.mark.parametrize(
    "labels, stream",
    [(BOX, False), (BOX, True), (BOX / 6, False), (BOX.astype(int), True), (BOX[:2], True)],
)
def test_numbers_that_may_be_places_are_refused_under_moving_augmentation(labels, stream):
    images, labels = np.zeros((4, 6, 6, 3), np.uint8), np.tile(labels, (4, 1))
    if stream:
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    else:
        dataset = load((images, labels), task="regression", validation_split=0, test_split=0).train
    with pytest.raises(ValueError, match=r"`boxes` must be given.*has flip.*boxes=False"):
        pipeline(dataset, 2, augment=Augment(flip="horizontal"))
    pipeline(dataset, 2, augment=Augment(flip="horizontal"), boxes=False)
    pipeline(dataset, 2, augment=Augment(color=0.2))


def test_soft_and_several_labels_need_no_word_on_boxes():
    images = np.zeros((4, 6, 6, 3), np.uint8)
    for labels in (np.full((4, 4), 0.25), np.ones((4, 4)), np.arange(4.0)[:, None]):
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
        pipeline(dataset, 2, augment=Augment(flip="horizontal"))


def test_boxes_that_cannot_follow_are_refused():
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((4, 6, 6, 3), np.uint8), np.tile(BOX, (4, 1))))
    with pytest.raises(ValueError, match="relative to the image"):
        pipeline(dataset, 2, image_size=12, boxes="xyxy")
    with pytest.raises(ValueError, match="cannot follow.*randaugment"):
        pipeline(dataset, 2, augment=Augment(randaugment=9), boxes="xyxy")
    with pytest.raises(ValueError, match="center_xywh"):
        pipeline(dataset, 2, augment=Augment(flip="horizontal"), boxes="coco")
    with pytest.raises(ValueError, match="without 4 numbers"):
        pipeline(load("digits").train, 2, boxes="xyxy")


@pytest.mark.parametrize(
    "names, places",
    [
        (("0", "1", "2", "3"), True),
        (("xmin", "ymin", "xmax", "ymax"), True),
        (("left_eye_x", "left_eye_y"), True),
        (("age",), False),
        (("year", "price"), False),
    ],
)
def test_finetune_moves_no_image_whose_numbers_are_places_in_it(names, places):
    asked = tfopt.FinetuneConfig()
    task, config = tfopt.tasks.Regression(names), asked.resolved((224, 224))
    found = with_labels_in_place(config, asked, task)
    assert found.augment == (Augment(color=0.2) if places else config.augment)
    if places:
        with pytest.raises(ValueError, match=r"flip.*Augment\(color=0.2\).*class_names"):
            with_labels_in_place(config, tfopt.FinetuneConfig(augment="standard"), task)

"""The losses against their formulas in float64, Keras, and a fresh load."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.losses import ClassBalanced, Focal, LogitAdjusted

COUNTS = [1000, 50, 3]
rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(8, 3)) * 3
LABELS = rng.integers(0, 3, 8)
SOFT = rng.dirichlet(np.ones(3), 8)
LOSSES = [
    Focal(),
    Focal(gamma=0.5, alpha=[1, 2, 5], label_smoothing=0.1),
    ClassBalanced(COUNTS),
    ClassBalanced(COUNTS, beta=0.9, gamma=2.0),
    LogitAdjusted(COUNTS),
    LogitAdjusted(COUNTS, tau=0.5, label_smoothing=0.2),
]
IDS = [f"{loss.name}-{i}" for i, loss in enumerate(LOSSES)]


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference(loss, y, logits):
    """From the papers, in float64."""
    config = loss.get_config()
    y = np.eye(3)[y] if y.ndim == 1 else y
    y = y * (1 - config["label_smoothing"]) + config["label_smoothing"] / 3
    if isinstance(loss, LogitAdjusted):
        prior = np.array(COUNTS) / np.sum(COUNTS)
        return -(y * np.log(softmax(logits + config["tau"] * np.log(prior)))).sum(-1).mean()
    p = softmax(logits)
    if isinstance(loss, Focal):
        weights = np.ones(3) if config["alpha"] is None else np.array(config["alpha"])
    else:
        weights = (1 - config["beta"]) / (1 - config["beta"] ** np.array(COUNTS, float))
        weights = weights * 3 / weights.sum()
    return -(weights * y * (1 - p) ** config["gamma"] * np.log(p)).sum(-1).mean()


def with_logits(loss):
    return type(loss).from_config(loss.get_config() | {"from_logits": True})


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_equals_the_formula(loss):
    for y in (LABELS, SOFT):
        expected = reference(loss, y, LOGITS)
        assert float(with_logits(loss)(y, LOGITS)) == pytest.approx(expected, rel=2e-5)
        assert float(loss(y, softmax(LOGITS))) == pytest.approx(expected, rel=2e-5)
    column = float(with_logits(loss)(LABELS[:, None], LOGITS))
    assert column == pytest.approx(reference(loss, LABELS, LOGITS), rel=2e-5)
    weighted = with_logits(loss)(LABELS, LOGITS, sample_weight=[1.0] + [0.0] * 7)
    assert float(weighted) * 8 == pytest.approx(reference(loss, LABELS[:1], LOGITS[:1]), rel=2e-5)


def test_without_their_knobs_they_are_cross_entropy():
    expected = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS))
    for loss in (
        Focal(gamma=0, from_logits=True),
        ClassBalanced(COUNTS, beta=0, from_logits=True),
        LogitAdjusted(COUNTS, tau=0, from_logits=True),
        LogitAdjusted([7, 7, 7], from_logits=True),
    ):
        assert float(loss(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-5)
    keras_focal = keras.losses.CategoricalFocalCrossentropy(alpha=0.25, from_logits=True)
    ours = Focal(alpha=[0.25] * 3, from_logits=True)
    assert float(ours(SOFT, LOGITS)) == pytest.approx(float(keras_focal(SOFT, LOGITS)), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_extreme_predictions_give_finite_values_and_gradients(loss):
    for scale in (1e3, 1e-12):
        logits = tf.Variable(np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]) * scale, dtype=tf.float32)
        for y in ([0, 2], [1, 1]):
            with tf.GradientTape() as tape:
                value = with_logits(loss)(np.array(y), logits)
            assert np.isfinite(value) and np.isfinite(tape.gradient(value, logits)).all()
    probabilities = tf.Variable([[1.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = loss(np.array([1]), probabilities)
    assert np.isfinite(value) and np.isfinite(tape.gradient(value, probabilities)).all()


@pytest.mark.parametrize("loss", LOSSES[::2], ids=IDS[::2])
def test_trains_in_fit_after_reload_and_with_replicas(loss, tmp_path, two_replicas):
    x = rng.normal(size=(32, 4)).astype(np.float32)

    def model(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
            net.compile(keras.optimizers.SGD(0.1), with_logits(loss))
        return net

    one, two = model(tf.distribute.get_strategy()), model(two_replicas)
    one.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == one.loss.get_config()
    for net in (one, two, again):
        net.fit(x, np.arange(32) % 3, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(again.get_weights()[0], one.get_weights()[0], rtol=1e-6)
    np.testing.assert_allclose(two.get_weights()[0], one.get_weights()[0], rtol=1e-4, atol=1e-6)


def test_half_precision_predictions_are_computed_in_float32():
    for loss in map(with_logits, LOSSES):
        value = loss(LABELS, tf.constant(LOGITS, tf.float16))
        assert float(value) == pytest.approx(reference(loss, LABELS, LOGITS), rel=5e-3)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: Focal(gamma=-1), "gamma"),
        (lambda: Focal(alpha=[1, 0]), "alpha"),
        (lambda: Focal(alpha=0.25), "alpha"),
        (lambda: Focal(alpha=[1, float("inf")]), "alpha"),
        (lambda: Focal(label_smoothing=1.0), "label_smoothing"),
        (lambda: ClassBalanced([5, 0]), "counts"),
        (lambda: ClassBalanced([5]), "counts"),
        (lambda: ClassBalanced([5, 5], beta=1.0), "beta"),
        (lambda: LogitAdjusted([5, float("nan")]), "counts"),
        (lambda: LogitAdjusted([5, 5], tau=-1), "tau"),
        (lambda: LogitAdjusted({"cat": 5, "dog": 5}), "counts"),
    ],
)
def test_refused_arguments(make, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()


@pytest.mark.parametrize(
    "loss, name",
    [(Focal(alpha=[1, 2]), "alpha"), (ClassBalanced([5, 5]), "counts"), (LogitAdjusted([5, 5]), "counts")],
)
def test_predictions_of_another_number_of_classes_are_refused(loss, name):
    with pytest.raises(ValueError, match=f"`{name}` must be 3 numbers.*The model predicts 3 classes"):
        loss(np.array([0, 1]), np.full((2, 3), 1 / 3, "f4"))
    assert float(loss(np.array([0, 1]), np.full((2, 1), 0.5, "f4"))) > 0.1  # one sigmoid is two classes


SIGMOID = rng.normal(size=(6, 1)) * 3
BINARY = rng.integers(0, 2, 6)
TWO = [
    Focal(from_logits=True, alpha=[1, 3], label_smoothing=0.1),
    ClassBalanced([90, 10], gamma=1.0, from_logits=True),
    LogitAdjusted([90, 10], from_logits=True),
]


@pytest.mark.parametrize("loss", TWO, ids=lambda each: each.name)
def test_one_sigmoid_equals_a_softmax_over_its_two_classes(loss):
    both = np.concatenate([np.zeros_like(SIGMOID), SIGMOID], 1)
    expected = float(loss(BINARY, both))
    probability = type(loss).from_config({**loss.get_config(), "from_logits": False})
    for y in (BINARY, BINARY[:, None], BINARY.astype("f")):
        assert float(loss(y, SIGMOID)) == pytest.approx(expected, rel=1e-5)
        assert float(probability(y, 1 / (1 + np.exp(-SIGMOID)))) == pytest.approx(expected, rel=1e-4)
    pixels = float(loss(BINARY.reshape(1, 2, 3), SIGMOID.reshape(1, 2, 3, 1)))
    assert pixels == pytest.approx(expected, rel=1e-5)


def test_focal_of_sigmoids_equals_keras():
    several = rng.integers(0, 2, (8, 3)).astype("f")
    expected = keras.losses.BinaryFocalCrossentropy(gamma=2.0, from_logits=True)
    ours = Focal(gamma=2.0, from_logits=True, multi_label=True)
    assert float(ours(several, LOGITS)) == pytest.approx(float(expected(several, LOGITS)), rel=1e-4)
    one = Focal(gamma=2.0, from_logits=True)(BINARY, SIGMOID)
    assert float(one) == pytest.approx(float(expected(BINARY[:, None], SIGMOID)), rel=1e-4)


def test_several_labels_weigh_and_adjust_each_label():
    several, p = np.array([[1.0, 0, 1], [0, 0, 1]]), np.array([[0.9, 0.2, 0.6], [0.1, 0.3, 0.7]])
    each = -(several * np.log(p) + (1 - several) * np.log(1 - p))
    weights = ClassBalanced(COUNTS).weights
    balanced = ClassBalanced(COUNTS, multi_label=True)(several, p)
    assert float(balanced) == pytest.approx((each * weights).mean(), rel=1e-5)
    prior = np.array(COUNTS) / 2000
    moved = 1 / (1 + (1 - p) / p * (1 - prior) / prior)
    expected = -(several * np.log(moved) + (1 - several) * np.log(1 - moved)).mean()
    adjusted = LogitAdjusted(COUNTS, multi_label=True, examples=2000)
    assert float(adjusted(several, p)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="`examples` must be the number of training examples"):
        LogitAdjusted(COUNTS, multi_label=True)


@pytest.mark.parametrize("loss", LOSSES[::2], ids=IDS[::2])
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "graph"])
def test_labels_that_mean_nothing_are_refused(loss, traced):
    call = tf.function(loss, autograph=False) if traced else loss
    p = tf.constant(softmax(LOGITS[:1]), tf.float32)
    wrong = {
        "whole numbers from 0 to 2": [3.0, -1.0, 0.5],
        "shares that sum to 1": [[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]],
    }
    for text, labels in wrong.items():
        for label in labels:
            y = tf.constant([label] if np.ndim(label) == 0 else label)
            with pytest.raises(tf.errors.InvalidArgumentError, match=text):
                call(y, p)
            compiled = tf.function(loss, jit_compile=True, autograph=False)
            assert not traced or np.isnan(compiled(y, p))  # XLA cannot raise
    with pytest.raises(tf.errors.InvalidArgumentError, match="from_logits=True"):
        call(tf.constant([0.0]), tf.constant([[3.0, -1.0, 2.0]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[0, 1\]"):
        Focal()(tf.constant([2.0]), tf.constant([[0.5]]))


@pytest.mark.parametrize("loss", LOSSES[::2], ids=IDS[::2])
def test_ignored_pixels_count_in_no_mean_as_in_keras(loss):
    p, y = softmax(LOGITS).reshape(2, 2, 2, 3), LABELS.reshape(2, 2, 2).copy()
    y[0, 0] = 255
    ignoring = type(loss).from_config({**loss.get_config(), "ignore_class": 255})
    valid = y != 255
    assert float(ignoring(y, p)) == pytest.approx(float(loss(y[valid], p[valid])), rel=1e-5)
    plain = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    without = Focal(gamma=0, ignore_class=255)
    assert float(without(y, p)) == pytest.approx(float(plain(y, p)), rel=1e-5)


def test_labels_of_another_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(4,\).*\(8, 3\)|shape \(8, 3\)"):
        Focal(multi_label=True)(np.zeros(4), softmax(LOGITS))
    with pytest.raises(ValueError, match="shares"):
        Focal()(np.zeros((8, 4)), softmax(LOGITS))

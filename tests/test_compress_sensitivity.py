"""sensitivity: each number equals what the real tools give for that layer alone."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import _batch_norm
from tfopt.compress import Pruning, quantize_aware, sensitivity

L = keras.layers
RNG = np.random.default_rng(0)
IMAGES = np.round(RNG.uniform(0, 1, (60, 16, 16, 3)) * RNG.uniform(0, 255, (60, 1, 1, 3)))
IMAGES = IMAGES.astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3), name="pixels")
    x = L.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(x)
    x = L.Conv2D(8, 3, name="first", kernel_initializer="he_normal")(x)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    x = L.Add(name="add")([x, L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = L.BatchNormalization(name="alone")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    x = L.Dense(4, name="logits", kernel_initializer=keras.initializers.RandomNormal(stddev=9.0))(x)
    model = keras.Model(inputs, L.Softmax(name="probabilities")(x))
    _batch_norm.reestimate(model, tf.data.Dataset.from_tensor_slices(IMAGES).batch(60))
    return model


@pytest.fixture(scope="module")
def labels(model):
    right = model.predict(IMAGES, verbose=0).argmax(1)
    right[:15] = (right[:15] + 1) % 4
    return right


@pytest.fixture(scope="module")
def scan(model, labels):
    before = model.get_weights()
    result = sensitivity(model, (IMAGES, labels), sparsities=[0.5, 0.9])
    assert all((old == new).all() for old, new in zip(before, model.get_weights()))
    return result


def test_int8_of_a_layer_is_quantize_aware_with_all_others_skipped(model, scan):
    names = [layer.name for layer in model.layers[1:]]
    expected = model.predict(IMAGES, verbose=0)
    rows = {row.layer: row for row in scan.rows if row.sparsity is None}
    assert set(rows) <= set(names) and {"first", "relu", "depthwise", "add", "logits"} <= set(rows)
    for name in ("relu", "depthwise", "add", "logits"):
        alone = quantize_aware(model, skip=[other for other in names if other != name])
        alone(IMAGES, training=True)
        change = np.abs(alone.predict(IMAGES, verbose=0) - expected).max(axis=1).mean()
        assert rows[name].change == pytest.approx(change, rel=0.25, abs=1e-5), (
            name
        )  # ranges differ by a rounding
    assert max(row.change for row in rows.values()) > 1e-4


def test_sparsity_of_a_layer_is_that_layer_pruned(model, labels, scan):
    kernel = model.get_layer("first").kernel
    value = kernel.numpy()
    limit = np.quantile(np.abs(value), 0.9, method="higher")
    kernel.assign(value * (np.abs(value) >= limit))
    outputs = model.predict(IMAGES, verbose=0)
    kernel.assign(value)
    (row,) = [row for row in scan.rows if row.layer == "first" and row.sparsity == 0.9]
    assert row.drop == pytest.approx(0.75 - np.mean(outputs.argmax(1) == labels)) and row.drop > 0.01
    assert scan.accuracy == 0.75 and scan.samples == 60
    assert not [row for row in scan.rows if row.layer == "depthwise" and row.sparsity]


def test_the_lists_fit_pruning_and_quantize_aware(model, scan):
    excluded = scan.exclude(0.9, most=-1.0)
    assert excluded == ["first", "logits"]
    Pruning(0.9, exclude=excluded[:1])
    everything = scan.skip(most=-1.0)
    quantize_aware(model, skip=everything)
    assert scan.skip(most=1.0) == [] and scan.exclude(0.5, most=1.0) == []
    order = [layer.name for layer in model.layers]
    assert everything == sorted(everything, key=order.index)
    with pytest.raises(ValueError, match=r"one that was measured: \[0.5, 0.9\]"):
        scan.exclude(0.7)


def test_it_prints_plots_and_writes(scan, tmp_path):
    assert "first" in str(scan) and "int8" in str(scan) and "samples" in str(scan)
    assert scan.plot(tmp_path / "new" / "scan.png").stat().st_size > 5000
    scan.to_json(tmp_path / "scan.json")
    assert len(json.loads((tmp_path / "scan.json").read_text())["rows"]) == len(scan.rows)


def test_data_without_labels_gives_the_change_of_outputs(model):
    result = sensitivity(model, IMAGES[:8], sparsities=[0.8], quantization=False)
    assert result.accuracy is None and [row.drop for row in result.rows] == [None, None]
    assert all(row.harm == row.change > 0 for row in result.rows) and "0.8 zeros" in str(result)


@pytest.mark.full
@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v2", "mobilenet_v3_small"])
def test_whole_networks(name):
    model = tfopt.models.mobilenet(name, 4, image_size=32)
    data = tf.data.Dataset.from_tensor_slices((np.tile(IMAGES[:16], (1, 2, 2, 1)), np.arange(16) % 4)).batch(
        8
    )
    scan = sensitivity(model, data, sparsities=[0.8])
    quantize_aware(model, skip=scan.skip(most=-1.0))


@pytest.mark.parametrize(
    "data, options, text",
    [
        (IMAGES, {"sparsities": [0.0]}, r"`sparsities` must be a number > 0"),
        (IMAGES, {"sparsities": [80]}, r"`sparsities` must be a number in \[0, 1\)"),
        (IMAGES, {"skip": ["nothing"]}, "`skip` must be names of layers"),
        (tf.data.Dataset.from_tensor_slices(IMAGES).batch(8).take(0), {}, "at least one batch"),
    ],
)
def test_bad_input_is_named(model, data, options, text):
    with pytest.raises(ValueError, match=text):
        sensitivity(model, data, **options)


class Net(keras.Model):
    """A subclassed model with two inputs in a dictionary and two outputs."""

    def __init__(self):
        super().__init__()
        self.encoder, self.classes, self.size = (
            L.LSTM(8, name="encoder"),
            L.Dense(3, name="classes"),
            L.Dense(1),
        )

    def call(self, inputs):
        hidden = self.encoder(inputs["steps"]) + inputs["bias"]
        return {"class": self.classes(hidden), "size": self.size(hidden)}


def test_subclassed_models_with_several_inputs_and_outputs_are_measured_and_left_as_they_were():
    random, model = np.random.default_rng(0), Net()
    x = {"steps": random.normal(size=(16, 5, 4)).astype("float32"), "bias": random.normal(size=(16, 8))}
    x["bias"] = x["bias"].astype("float32")
    before = keras.tree.map_structure(np.asarray, model(x))
    y = {"class": before["class"].argmax(-1), "size": before["size"]}
    weights = model.get_weights()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    scan = sensitivity(model, data, sparsities=[0.5, 0.9])
    rows = {(row.layer, row.sparsity): row for row in scan.rows}
    names = {"encoder/kernel", "encoder/recurrent_kernel", "classes", "dense"}
    assert {name for name, sparsity in rows if sparsity} >= names - {
        "dense"
    } and scan.accuracy == pytest.approx(1.0)
    assert 0 < rows["encoder", None].change < rows["encoder/kernel", 0.9].change
    assert "call" not in vars(model.encoder)
    for old, new in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model(x)["size"], before["size"])
    own = sensitivity(model, data, sparsities=[0.9], quantization=False, metric=lambda y, z: float(len(z)))
    assert own.accuracy == 16.0 and all(row.drop == 0.0 for row in own.rows)


def test_labels_that_do_not_fit_the_outputs_are_named(model):
    with pytest.raises(ValueError, match="an array for each of the 1 outputs"):
        sensitivity(model, (IMAGES[:8], {"a": np.ones(8), "b": np.ones(8)}))

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
    for name in ("first", "relu", "depthwise", "add", "logits"):
        alone = quantize_aware(model, skip=[other for other in names if other != name])
        alone(IMAGES, training=True)
        change = np.abs(alone.predict(IMAGES, verbose=0) - expected).max(axis=1).mean()
        assert rows[name].change == pytest.approx(change, rel=0.15, abs=1e-5), (
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


def test_models_with_several_outputs_are_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(2, name=name)(inputs) for name in ("left", "right")])
    with pytest.raises(ValueError, match="`model` must be a model with one output"):
        sensitivity(model, np.ones((8, 4), "float32"))

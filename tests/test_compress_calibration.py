"""Ranges and biases of post-training int8 files."""

import keras
import numpy as np
import pytest

from tfopt import compress
from tfopt.compress import _convert
from tfopt.compress._calibration import least_error
from tfopt.compress._file_biases import _covered

L = keras.layers
RNG = np.random.default_rng(0)


def shift(received, expected):
    """Root mean square of the shifts of the channels' means."""
    return float(np.sqrt(np.mean(np.square((received - expected).mean(axis=(0, 1, 2))))))


@pytest.fixture(scope="module")
def pictures():
    """Of different brightness and color."""
    bright = RNG.uniform(20.0, 235.0, (64, 1, 1, 6))
    return np.clip(bright + 40.0 * RNG.normal(size=(64, 10, 9, 6)), 0.0, 255.0).astype("float32")


@pytest.fixture(scope="module")
def network():
    """Every kind of kernel that has a bias, over inputs whose mean is not zero."""
    keras.utils.set_random_seed(3)
    inputs = x = keras.Input((10, 9, 6))
    for layer in (
        L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, activation="relu"),
        L.Conv2D(16, 3, dilation_rate=2, padding="same", groups=4, activation="relu"),
        L.Conv2D(24, 1, activation="relu"),
        L.Dense(12, bias_initializer="normal"),
    ):
        x = layer(x)
    return keras.Model(inputs, x)


def test_biases_take_back_what_rounded_kernels_add_to_the_means(network, pictures, tmp_path, monkeypatch):
    expected = network.predict(pictures, verbose=0)
    after = compress.export(network, tmp_path / "a.tflite", "int8", pictures).predict(pictures)
    monkeypatch.setattr(_convert, "corrected", lambda content, original, means: content)
    before = compress.export(network, tmp_path / "b.tflite", "int8", pictures).predict(pictures)
    assert shift(after, expected) < 0.5 * shift(before, expected)


def test_padding_has_no_share_in_a_mean():
    assert _covered(size=4, taps=3, places=4, step=1, width=1, padded=True).tolist() == [0.75, 1.0, 0.75]
    assert _covered(size=5, taps=3, places=3, step=1, width=1, padded=False).tolist() == [1.0, 1.0, 1.0]
    # Two steps, as TFLite pads: one place behind, none in front.
    assert _covered(size=4, taps=3, places=2, step=2, width=1, padded=True).tolist() == [1.0, 1.0, 0.5]


def test_least_error_weighs_what_is_cut_off_against_finer_steps():
    values = RNG.uniform(-1.0, 1.0, 50_000).astype("float32")
    low, high = least_error(values, -1.0, 4.0)  # of an end that hardly any value reaches
    assert low == -1.0 and 1.0 <= high < 1.1
    _, high = least_error(np.append(values, np.full(50, 4.0, "float32")), -1.0, 4.0)
    assert high > 3.8
    assert least_error(np.zeros(10, "float32"), 0.0, 0.0) == (0.0, 0.0)


def test_mse_ranges_lose_less_where_extremes_are_rare(tmp_path):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((32, 32, 8))
    x = L.Conv2D(24, 1)(inputs) * L.Conv2D(24, 1)(inputs)  # of 2.5 million values, the largest is far out
    model = keras.Model(inputs, L.Conv2D(8, 1)(x))
    data = RNG.normal(size=(100, 32, 32, 8)).astype("float32")
    expected = model.predict(data, verbose=0)
    errors = {}
    for calibration in ("minmax", "mse"):
        path = tmp_path / f"{calibration}.tflite"
        received = compress.export(model, path, "int8", data, calibration=calibration).predict(data)
        errors[calibration] = float(np.mean(np.square(received - expected)))
    assert errors["mse"] < 0.8 * errors["minmax"], errors


def test_export_names_the_ways_to_calibrate(network, pictures, tmp_path):
    with pytest.raises(ValueError, match="`calibration` must be one of .*minmax.*mse.*Received: .*entropy"):
        compress.export(network, tmp_path / "m.tflite", "int8", pictures, calibration="entropy")
    with pytest.raises(ValueError, match="`calibration` must be 'minmax' with quantization='float16'"):
        compress.export(network, tmp_path / "m.tflite", "float16", calibration="mse")

"""Bias correction: the channels of a rounded model have the means of the float model."""

import keras
import numpy as np
import pytest

from tfopt.compress import correct_biases, export, quantize_aware

L = keras.layers


def network(nested=False):
    """Depthwise convolutions over bright pixels, with and without batch normalization, and a dense head."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = L.Rescaling(1 / 255)(inputs)
    x = L.Conv2D(16, 3, 2, use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.Conv2D(16, 1, activation="relu")(x)
    body = keras.Model(inputs, L.GlobalAveragePooling2D()(x))
    outer = keras.Input((16, 16, 3))
    x = L.Dense(5)(body(outer) if nested else body.layers[-1].output)
    return keras.Model(outer if nested else inputs, L.Softmax()(x))


def pixels(count=64):
    """Images that are mostly background, as drawings are."""
    random = np.random.default_rng(0)
    images = np.full((count, 16, 16, 3), 250.0, "float32")
    images[:, 5:9, 5:9] = random.uniform(0, 255, (count, 4, 4, 3))
    return images


def coarsened(quantized):
    """Rounds the kernels further, so that the shift is large."""
    for layer in quantized.layers:
        if hasattr(layer, "kernel"):
            value = layer.kernel.numpy()
            step = np.abs(value).max() / 3
            layer.kernel.assign(np.round(value / step) * step)


@pytest.mark.parametrize("nested", [False, True])
def test_channels_get_the_means_of_the_float_model(nested):
    model, images = network(nested), pixels()
    quantized = quantize_aware(model, input_range=(0, 255), data=images)
    coarsened(quantized)
    expected = keras.Model(model.inputs, model.layers[-1].input).predict(images, verbose=0)

    def shift():
        end = next(layer for layer in quantized.layers if layer.name == model.layers[-2].name)
        found = keras.Model(quantized.inputs, end.output).predict(images, verbose=0)
        return np.abs((found - expected).mean(0)).max()

    before = shift()
    kernels = [layer.kernel.numpy() for layer in quantized.layers if hasattr(layer, "kernel")]
    calls = [layer.call for layer in quantized.layers]
    correct_biases(quantized, model, images)
    assert shift() < 0.1 * before
    assert [layer.call for layer in quantized.layers] == calls
    for old, layer in zip(kernels, (each for each in quantized.layers if hasattr(each, "kernel"))):
        np.testing.assert_array_equal(old, layer.kernel)
        assert getattr(layer, "activation", None) in (keras.activations.linear, keras.activations.relu)


def test_the_corrected_model_exports_to_a_file_that_agrees(tmp_path):
    model, images = network(), pixels()
    quantized = quantize_aware(model, input_range=(0, 255), data=images)
    correct_biases(quantized, model, images)
    file = export(quantized, tmp_path / "model.tflite", "int8")
    np.testing.assert_allclose(file.predict(images), model.predict(images, verbose=0), atol=0.02)


def test_a_model_without_ranges_or_another_model_is_refused():
    model, images = network(), pixels(4)
    with pytest.raises(ValueError, match=r"quantize_aware\(model, data="):
        correct_biases(quantize_aware(model), model, images)
    with pytest.raises(ValueError, match="`model` must be the model that `quantized` was made from"):
        other = keras.Sequential([keras.Input((16, 16, 3)), L.Flatten(), L.Dense(2, name="other")])
        correct_biases(quantize_aware(model, data=images), other, images)

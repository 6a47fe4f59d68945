"""Equalization: the same function, with channels of equal size."""

import keras
import numpy as np
import pytest

from tfopt.compress import equalize, export, quantize_aware

L = keras.layers
RNG = np.random.default_rng(0)
SHAPE = (8, 8, 6)


def uneven(model):
    """Channels of very unequal size, the function changed or not."""
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            factors = np.exp(RNG.uniform(-2.5, 2.5, layer.kernel.shape[-1]))
            depthwise = isinstance(layer, L.DepthwiseConv2D)
            factors = np.exp(RNG.uniform(-2.5, 2.5, (layer.kernel.shape[2], 1))) if depthwise else factors
            layer.kernel.assign(layer.kernel.numpy() * factors)
        for name, low, high in (("bias", -0.5, 0.5), ("beta", -0.5, 0.5), ("alpha", 0.1, 0.4)):
            weight = getattr(layer, name, None)
            if isinstance(weight, keras.Variable):
                weight.assign(RNG.uniform(low, high, weight.shape))
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign(np.exp(RNG.uniform(-2.5, 2.5, layer.gamma.shape)))
            layer.moving_mean.assign(RNG.normal(size=layer.gamma.shape))
            layer.moving_variance.assign(RNG.uniform(0.3, 2.0, layer.gamma.shape))
    return model


def residual(x):
    x = L.Conv2D(6, 1, activation="relu")(x)
    y = L.Conv2D(6, 3, padding="same")(L.ReLU()(L.DepthwiseConv2D(3, padding="same")(x)))
    return L.Conv2D(4, 1)(L.Add()([x, y]))


def branches(x):
    parts = [L.PReLU(shared_axes=[1, 2])(L.Conv2D(4, size, padding="same")(x)) for size in (1, 3)]
    x = L.MaxPooling2D()(L.Concatenate()(parts))
    return L.Dense(3)(L.Dropout(0.2)(L.Flatten()(L.ZeroPadding2D()(L.Conv2D(8, 1, groups=2)(x)))))


def with_norms(x):
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3)(x)))
    x = L.LeakyReLU()(L.BatchNormalization()(L.Dense(8)(L.GlobalAveragePooling2D()(x))))
    return L.Dense(3, activation="softmax")(L.BatchNormalization()(L.Dense(8, activation="relu")(x)))


def transposed(x):
    x = L.ReLU()(L.DepthwiseConv2D(3, depth_multiplier=2)(x))
    return L.Conv2D(2, 1)(L.Conv2DTranspose(4, 3, strides=2, activation="relu")(x))


def shared(x):
    convolution = L.Conv2D(6, 1)
    for _ in range(3):
        x = L.ReLU()(L.BatchNormalization()(convolution(x)))
    return L.Dense(4)(L.Dense(6, activation="relu")(x))


MODELS = {f.__name__: f for f in (residual, branches, with_norms, transposed, shared)}


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays(name):
    inputs = keras.Input(SHAPE)
    model = uneven(keras.Model(inputs, MODELS[name](inputs)))
    images = RNG.normal(size=(32, *SHAPE)).astype("float32")
    before, weights = model(images).numpy(), model.get_weights()
    for data in (None, images):
        even = equalize(model, data)
        np.testing.assert_allclose(even(images), before, rtol=1e-3, atol=1e-3 * np.ptp(before))
        assert not np.allclose(even.layers[1].get_weights()[0], model.layers[1].get_weights()[0])
    for old, new in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def rescaled_in_secret(model):
    """Channels of the first layer 1 to 1000 times smaller, made up for by the second; of the third alike."""
    first, depthwise, norm, last = map(model.get_layer, ("first", "depthwise", "norm", "last"))
    one, two = (np.exp(RNG.uniform(-3.5, 3.5, 16)) for _ in range(2))
    first.kernel.assign(first.kernel / one)
    depthwise.kernel.assign(depthwise.kernel * one[:, None])
    norm.gamma.assign(norm.gamma / two)
    last.kernel.assign(last.kernel * two[:, None])


def test_channels_rescaled_without_changing_the_function_cost_int8_nothing(tmp_path, caplog):
    x = inputs = keras.Input(SHAPE)
    x = L.ReLU()(L.Conv2D(16, 1, name="first")(x))
    x = L.ReLU()(L.BatchNormalization(name="norm")(L.DepthwiseConv2D(3, name="depthwise")(x)))
    model = keras.Model(inputs, L.Dense(4)(L.Conv2D(16, 1, activation="relu", name="last")(x)))
    images = RNG.normal(size=(64, *SHAPE)).astype("float32")
    exact = model(images).numpy()
    before = noise(exact, quantize_aware(model, data=images)(images))
    assert not caplog.text
    rescaled_in_secret(model)
    assert noise(exact, quantize_aware(model, data=images, freeze_batch_norm=False)(images)) > 5 * before
    assert noise(exact, quantize_aware(model, data=images)(images)) < 1.5 * before
    assert "channels of very unequal size" in caplog.text
    assert noise(exact, quantize_aware(equalize(model), data=images)(images)) < 1.5 * before
    file = export(model, tmp_path / "even.tflite", "int8", images, input_type="float32")
    assert noise(exact, file.predict(images)) < 1.5 * before


def noise(exact, rounded):
    """Root of the mean squared error, as a share of the outputs' deviation."""
    return float(np.sqrt(np.mean(np.square(exact - rounded))) / np.std(exact))


def test_what_does_not_keep_scales_is_left_alone():
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(6, 1, activation="relu6")(inputs)
    x = L.Conv2D(6, 1)(L.Activation("silu")(L.Conv2D(6, 1)(x)))
    model = uneven(keras.Model(inputs, [x, L.ReLU(6.0)(x)]))
    images = RNG.normal(size=(4, *SHAPE)).astype("float32")
    even = equalize(model, images)
    for old, new in zip(model.get_weights(), even.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_biases_that_keep_channels_above_zero_are_absorbed():
    inputs = keras.Input(SHAPE)
    first = L.Conv2D(6, 1, activation="relu", bias_initializer=keras.initializers.Constant(50.0))
    model = keras.Model(inputs, L.Conv2D(4, 1)(L.MaxPooling2D()(first(inputs))))
    images = RNG.normal(size=(32, *SHAPE)).astype("float32")
    even = equalize(model, images)
    np.testing.assert_allclose(even(images), model(images), atol=1e-2)
    ranges = [
        np.ptp(m.layers[1](images), axis=(0, 1, 2)) / np.max(m.layers[1](images), axis=(0, 1, 2))
        for m in (model, even)
    ]
    assert ranges[0].max() < 0.3 and ranges[1].min() > 0.6


def test_keras_quantized_models_are_refused_by_name(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, name="first")])
    model.quantize("int8")
    for use in (equalize, lambda m: export(m, tmp_path / "q.tflite"), quantize_aware):
        with pytest.raises(ValueError, match="quantized by Keras's `model.quantize`: {'first': 'int8'}"):
            use(model)

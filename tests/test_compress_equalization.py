"""Equalization: the same function, with channels of equal size."""

import keras
import numpy as np
import pytest

from tfopt.compress import equalize, quantize_aware

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


MODELS = {f.__name__: f for f in (residual, branches, with_norms, transposed)}


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays_and_channels_become_even(name, data):
    inputs = keras.Input(SHAPE)
    model = uneven(keras.Model(inputs, MODELS[name](inputs)))
    images = RNG.normal(size=(32, *SHAPE)).astype("float32")
    before, weights = model(images).numpy(), model.get_weights()
    even = equalize(model, images if data else None)
    np.testing.assert_allclose(even(images), before, rtol=1e-3, atol=1e-3 * np.ptp(before))
    for old, new in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("data", [False, True])
def test_channels_rescaled_without_changing_the_function_cost_int8_nothing(data):
    x = inputs = keras.Input(SHAPE)
    x = L.ReLU()(L.Conv2D(16, 1, name="first")(x))
    x = L.ReLU()(L.BatchNormalization(name="norm")(L.DepthwiseConv2D(3, name="depthwise")(x)))
    model = keras.Model(inputs, L.Dense(4)(L.Conv2D(16, 1, activation="relu", name="last")(x)))
    images = RNG.normal(size=(64, *SHAPE)).astype("float32")
    even = noise(model, images)
    one, two = (np.exp(RNG.uniform(-3.5, 3.5, 16)) for _ in range(2))
    first, depthwise, norm, last = map(model.get_layer, ("first", "depthwise", "norm", "last"))
    first.kernel.assign(first.kernel / one)
    depthwise.kernel.assign(depthwise.kernel * one[:, None])
    norm.gamma.assign(norm.gamma / two)
    last.kernel.assign(last.kernel * two[:, None])
    uneven_noise, mended = noise(model, images), noise(equalize(model, images if data else None), images)
    assert uneven_noise > 5 * even
    assert mended < 1.5 * even


def noise(model, images):
    """Root of the mean squared error of int8, as a share of the outputs' deviation."""
    exact, rounded = model(images), quantize_aware(model, data=images)(images)
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


def test_keras_quantized_models_are_refused():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4)])
    model.quantize("int8")
    with pytest.raises(ValueError, match="quantized by Keras's"):
        equalize(model)

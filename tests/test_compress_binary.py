"""Binary and ternary kernels: values and gradients against NumPy, training, saving, what the file holds."""

import io
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.compress import binarize, export, ternarize
from tfopt.compress.binarization.layers import binary_kernel, ternary_kernel

L = keras.layers
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 128)
X = RNG.uniform(0, 155, (128, 12, 12, 3)) + 100.0 * Y[:, None, None, None] * (np.arange(3) == 1)
X = X.round().astype("float32")
CONVERTED = ("middle", "point", "dense")


def small_model():
    x = inputs = keras.Input((12, 12, 3))
    x = L.Rescaling(1 / 127.5, -1.0)(x)
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(L.Conv2D(8, 3, use_bias=False, name="stem")(x)))
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(L.Conv2D(16, 3, use_bias=False, name="middle")(x)))
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(L.DepthwiseConv2D(3, name="depthwise")(x)))
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(L.Conv2D(32, 1, use_bias=False, name="point")(x)))
    x = L.Dense(16, activation="relu", name="dense")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, L.Dense(2, activation="softmax", name="head")(x))


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = small_model()
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=6, verbose=0)
    return model


def numpy_binary(w):
    return np.where(w >= 0, 1.0, -1.0) * np.abs(w).reshape(-1, w.shape[-1]).mean(0)


def numpy_ternary(w):
    flat, result = w.reshape(-1, w.shape[-1]), np.zeros_like(w).reshape(-1, w.shape[-1])
    for channel in range(w.shape[-1]):
        size = np.abs(flat[:, channel])
        large = size > 0.7 * size.mean()
        result[:, channel] = np.sign(flat[:, channel]) * large * (size[large].mean() if large.any() else 0.0)
    return result.reshape(w.shape)


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (1, 1, 16, 5), (32, 7)])
def test_kernels_equal_numpy(shape):
    w = np.random.default_rng(0).normal(size=shape)
    w[..., -1] = 0.0
    np.testing.assert_allclose(binary_kernel(tf.constant(w)), numpy_binary(w), atol=1e-12)
    np.testing.assert_allclose(ternary_kernel(tf.constant(w)), numpy_ternary(w), atol=1e-12)
    assert set(np.unique(binary_kernel(tf.constant(w), scale=False))) == {-1.0, 1.0}


def test_binary_scale_is_the_best_one():
    w = np.random.default_rng(0).normal(size=(64, 1))
    best = np.square(w - binary_kernel(tf.constant(w))).sum()
    for factor in (0.95, 1.05):
        assert np.square(w - factor * binary_kernel(tf.constant(w))).sum() > best


def test_gradients_pass_straight_through():
    w = tf.Variable(np.random.default_rng(0).normal(size=(50, 3)))
    upstream = np.random.default_rng(1).normal(size=(50, 3))
    with tf.GradientTape(persistent=True) as tape:
        plain, scaled, ternary = (
            tf.reduce_sum(upstream * kernel)
            for kernel in (binary_kernel(w, scale=False), binary_kernel(w), ternary_kernel(w))
        )
    inside = np.abs(w.numpy()) <= 1.0
    np.testing.assert_allclose(tape.gradient(plain, w), upstream * inside)
    alpha, sign = np.abs(w.numpy()).mean(0), np.sign(w.numpy())
    expected = upstream * inside * alpha + sign * (upstream * sign).mean(0)  # XNOR-Net, section 3.1
    np.testing.assert_allclose(tape.gradient(scaled, w), expected)
    np.testing.assert_allclose(tape.gradient(ternary, w), upstream)


@pytest.mark.parametrize("convert", [binarize, ternarize])
def test_clone_trains_saves_loads_and_keeps_the_original(convert, trained, tmp_path):
    before = trained.get_weights()
    clone = convert(trained, teacher=trained)
    for old, new in zip(before, clone.get_weights()):
        np.testing.assert_array_equal(old, new)
    for name in ("stem", "depthwise", "head"):
        assert type(clone.get_layer(name)) is type(trained.get_layer(name))
    clone.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = clone.evaluate(X, Y, verbose=0)[0]
    clone.fit(X, Y, epochs=5, verbose=0)
    loss, accuracy = clone.evaluate(X, Y, verbose=0)
    assert accuracy > 0.95 and loss < start
    for old, new in zip(before, trained.get_weights()):
        np.testing.assert_array_equal(old, new)
    clone.save(tmp_path / "c.keras")
    again = keras.models.load_model(tmp_path / "c.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), clone.predict(X, verbose=0))
    again.fit(X, Y, verbose=0)


@pytest.mark.parametrize("convert, values", [(binarize, 2), (ternarize, 3)])
def test_the_int8_file_holds_few_values_and_zips(convert, values, trained, tmp_path):
    file = export(convert(trained), tmp_path / "b.tflite", "int8", X)
    contents = file.inspect()
    assert not {"SIGN", "WHERE", "SELECT_V2", "GREATER_EQUAL"} & {op.name for op in contents.operations}
    for shape in ((16, 3, 3, 8), (32, 1, 1, 16), (16, 32)):
        (kernel,) = [weight for weight in contents.kernels if weight.shape == shape]
        assert kernel.dtype == "int8" and kernel.unique_values <= values
    stored = [weight for weight in file.inspect().kernels if weight.shape == (32, 1, 1, 16)]
    assert stored[0].zeros == 0.0 or values == 3


def test_int8_kernels_zip_to_bits():
    signs = np.random.default_rng(0).choice([-127, 127], 10000).astype("int8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kernel", signs.tobytes())
    assert len(buffer.getvalue()) * 8 / 10000 < 2.0  # what the docstring of `binarize` says


def test_weights_behind_the_signs_stay_in_reach(trained):
    clone = binarize(trained, scale=False)
    clone.compile(keras.optimizers.SGD(100.0), "sparse_categorical_crossentropy")
    clone.fit(X[:32], Y[:32], verbose=0)
    for name in CONVERTED:
        assert np.abs(clone.get_layer(name).kernel.numpy()).max() <= 1.0


def test_replicas_hold_the_same_weights(two_replicas, trained):
    with two_replicas.scope():
        clone = binarize(trained)
        clone.compile("adam", "sparse_categorical_crossentropy")
    clone.fit(X, Y, verbose=0)
    for layer in clone.layers:
        for weight in layer.trainable_weights:
            first, second = (value.numpy() for value in weight.value.values)
            np.testing.assert_array_equal(first, second)


def test_mixed_precision_rounds_in_half_precision(trained):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        clone = binarize(small_model())
        clone.compile("adam", "sparse_categorical_crossentropy")
        clone.fit(X[:32], Y[:32], verbose=0)
        assert clone.get_layer("middle").compute_dtype == "float16"
        assert np.isfinite(clone.predict(X[:8], verbose=0)).all()
    finally:
        keras.config.set_dtype_policy("float32")


def test_bad_input_is_named(trained):
    with pytest.raises(ValueError, match=r"names of Conv2D or Dense layers: \['stem', 'middle'.*nope"):
        binarize(trained, exclude=["nope"])
    with pytest.raises(ValueError, match="between the first and the last"):
        ternarize(trained, exclude=["middle", "p*", "dense"])
    with pytest.raises(TypeError, match="`scale` must be an instance of bool"):
        binarize(trained, scale=0.5)
    with pytest.raises(ValueError, match="built=False"):
        binarize(keras.Sequential([L.Dense(3)]))
    with pytest.raises(TypeError, match="`teacher` must be an instance of Model"):
        ternarize(trained, teacher="model")

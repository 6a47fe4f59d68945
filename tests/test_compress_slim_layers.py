"""slim passes through every usual layer: the copy is smaller, runs, and is the model if nothing is cut."""

import keras
import numpy as np
import pytest

from tfopt.compress import slim

L = keras.layers
RNG = np.random.default_rng(0)


def transposed(x):
    x = L.Conv2DTranspose(8, 3, strides=2, use_bias=False, name="cut")(L.Conv2D(8, 3)(x))
    return L.Conv2D(4, 3)(L.ReLU()(L.BatchNormalization()(x)))


def plain_transposed(x):
    return L.Conv2DTranspose(8, 3, strides=2, name="cut")(x)


def grouped(x):
    return L.ReLU()(L.Conv2D(8, 3, groups=4, padding="same", name="cut")(L.Conv2D(8, 1)(x)))


def group_norm(x):
    return L.GroupNormalization(4)(L.Conv2D(8, 3, name="cut")(x))


def one_group(x):
    return L.GroupNormalization(1)(L.Conv2D(8, 3, name="cut")(x))


def separable(x):
    return L.SeparableConv2D(8, 3, name="cut")(L.SeparableConv2D(8, 3, depth_multiplier=2)(x))


def recurrent(kind, **options):
    return lambda x: kind(8, name="cut", **options)(L.Dense(8)(L.Reshape((12, 36))(x)))


def bidirectional(x):
    hidden = L.Masking()(L.Dense(8)(L.Reshape((12, 36))(x)))
    return L.Bidirectional(L.GRU(8, return_sequences=True), name="cut")(hidden)


def attention(x):
    x = y = L.Dense(8)(L.Reshape((12, 36))(x))
    y = L.MultiHeadAttention(4, 3, name="cut")(L.LayerNormalization()(y), y)
    return L.Dense(8, activation="gelu")(L.RMSNormalization()(L.Add()([x, y])))


def cross_attention(x):
    x = L.Dense(8)(L.Reshape((12, 36))(x))
    return L.MultiHeadAttention(4, 3, name="cut")(L.Dense(6)(x), value=x)


def operators(x):
    x = L.Conv2D(8, 3, padding="same", name="cut")(x / 2.0 - 1.0)
    return keras.ops.mean(keras.ops.abs(x + L.Conv2D(8, 3, padding="same")(x)), axis=(1, 2))


def volumes(x):
    x = L.Conv3D(8, 3, padding="same", name="cut")(L.Reshape((12, 12, 3, 1))(x))
    return L.GlobalAveragePooling3D()(L.AveragePooling3D((2, 2, 1))(x))


def permuted(x):
    x = L.Permute((2, 1, 3))(L.Conv2D(8, 3, name="cut")(x))
    return L.EinsumDense("abc,cd->abd", (10, 8), bias_axes="d")(L.Reshape((10, 80))(x))


def own(x):
    return L.Dense(8, name="cut")(L.Lambda(lambda x: x * 2.0, output_shape=(12, 12, 3))(x))


CASES = [
    *(transposed, grouped, group_norm, one_group, separable, bidirectional, attention, cross_attention),
    *(operators, volumes, permuted, own),
    *(recurrent(kind) for kind in (L.LSTM, L.GRU, L.SimpleRNN)),
    *(recurrent(L.GRU, reset_after=False), recurrent(L.LSTM, use_bias=False, return_sequences=True)),
]


def model_of(make):
    entry = keras.Input((12, 12, 3))
    model = keras.Model(entry, L.Dense(3, name="last")(L.Flatten()(make(entry))))
    for weight in model.trainable_variables:
        weight.assign(RNG.normal(size=weight.shape) * 0.3)
    return model


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_layers_are_cut_and_a_copy_with_all_channels_is_the_model(make):
    model, x = model_of(make), RNG.normal(size=(2, 12, 12, 3)).astype("float32")
    small, whole = (slim(model, keep=keep, criterion="l2") for keep in (0.5, 0.999))
    assert small(x).shape == (2, 3) and small.count_params() < 0.75 * model.count_params()
    assert small.get_layer("cut").count_params() < 0.8 * model.get_layer("cut").count_params()
    np.testing.assert_allclose(whole(x), model(x), atol=1e-4)


@pytest.mark.parametrize("make", [plain_transposed, separable, recurrent(L.LSTM), recurrent(L.GRU)],
                         ids=["transposed", "separable", "lstm", "gru"])  # fmt: skip
def test_weights_of_the_channels_that_stay_are_copied(make):
    """A unit whose weights are zero is cut first, and as it did nothing, the copy is the same function."""
    model, x = model_of(make), RNG.normal(size=(2, 12, 12, 3)).astype("float32")
    for weight in model.get_layer("cut").trainable_variables:
        value = weight.numpy()
        axis = 2 if weight.path.startswith("cut/kernel") and make is plain_transposed else value.ndim - 1
        if "depthwise" not in weight.path:
            units = np.arange(value.shape[axis]) % 8 < 4  # the gates of a unit are 8 entries apart
            weight.assign(value * units.reshape([-1 if a == axis else 1 for a in range(value.ndim)]))
    others = [layer.name for layer in model.layers if layer.weights and layer.name not in ("cut", "last")]
    others = [name for name in others if "normalization" not in name]
    small = slim(model, keep=0.5, criterion="l2", exclude=others)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(small(x), model(x), atol=1e-4)


def test_embeddings_are_cut():
    layers = [L.Embedding(20, 8, mask_zero=True), L.LSTM(8), L.Dense(2)]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *layers])
    small = slim(model, keep=0.5, criterion="l2")
    assert small.layers[1].embeddings.shape == (20, 4)
    assert small(np.ones((2, 6), "int32")).shape == (2, 2)


class Unknown(L.Layer):
    """A layer of somebody's own, with a weight."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")

    def call(self, x):
        return x * self.gain


def test_an_unknown_layer_stays_whole_and_is_named(caplog):
    layers = [L.Conv2D(8, 3, name="first"), L.Conv2D(8, 3, name="second"), Unknown(name="mine"), L.Flatten()]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers, L.Dense(3)])
    small = slim(model, keep=0.5, criterion="l2")
    assert [small.get_layer(name).filters for name in ("first", "second")] == [4, 8]
    assert "stay whole: {'mine': 'Unknown'}" in caplog.text
    nothing = keras.Sequential([keras.Input((12, 12, 3)), Unknown(name="mine"), L.Dense(3)])
    with pytest.raises(ValueError, match="inputs and outputs stay. These layers .*'mine': 'Unknown'"):
        slim(nothing, keep=0.5, criterion="l2")


def test_a_model_that_keras_quantized_is_refused():
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, name="d"), L.Dense(3)])
    model.quantize("int8")
    with pytest.raises(ValueError, match="quantized by Keras.*'d': 'int8'"):
        slim(model, keep=0.5)

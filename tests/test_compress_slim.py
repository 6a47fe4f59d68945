"""slim and ChannelSparsity: dead channels vanish without a trace, through every kind of block."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from applications import application

import tfopt
from tfopt import _batch_norm
from tfopt.compress import ChannelSparsity, slim
from tfopt.compress._graph import Graph
from tfopt.compress.slimming import scores
from tfopt.compress.slimming.channels import Channels
from tfopt.compress.slimming.cost import cost

L = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (16, 64, 64, 3)) * RNG.uniform(0, 255, (16, 1, 1, 3))
IMAGES = IMAGES.astype("float32")


def residual():
    """Two stages of residual blocks with squeeze-and-excite, a concatenation and a part of one channel."""
    x = inputs = keras.Input((64, 64, 3))
    x = _block(L.Conv2D(8, 3, strides=2, padding="same")(x), 8)
    side = L.Conv2D(12, 1, strides=2)(x)
    x = L.Add()([side, _gated(_block(x, 12, strides=2), 12)])
    x = L.Concatenate()([x, L.MaxPooling2D(3, 1, padding="same")(x), _block(x, 4)])
    x = L.Multiply()([x, L.Conv2D(1, 1, activation="sigmoid")(x)])
    x = L.Dense(16, activation="relu")(L.Flatten()(L.AveragePooling2D(4)(x)))
    return keras.Model(inputs, L.Dense(5, activation="softmax")(x))


def _block(x, filters, strides=1):
    x = L.DepthwiseConv2D(3, strides, padding="same", depth_multiplier=2, use_bias=False)(x)
    x = L.Conv2D(filters, 1, use_bias=False)(L.ReLU()(L.BatchNormalization()(x)))
    return L.BatchNormalization()(x)


def _gated(x, channels):
    gate = L.Dense(4, activation="relu")(L.GlobalAveragePooling2D()(x))
    gate = L.Reshape((1, 1, channels))(L.Dense(channels, activation="sigmoid")(gate))
    return L.Multiply()([x, gate])


def nested():
    inner = keras.Input((16, 16, 8))
    block = keras.Model(inner, L.Activation("silu")(L.BatchNormalization()(L.Conv2D(8, 3)(inner))))
    inputs = keras.Input((64, 64, 3))
    x = block(L.Conv2D(8, 3, strides=4, padding="same")(inputs), training=False)
    return keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def sequential():
    layers = [
        L.Rescaling(1 / 255),
        L.Conv2D(8, 3, strides=2),
        L.PReLU(shared_axes=[1, 2]),
        L.SpatialDropout2D(0.2),
        L.SeparableConv2D(12, 3, strides=4, depth_multiplier=2, activation="relu"),
        L.BatchNormalization(),
        L.Flatten(),
        L.Dense(16, activation="gelu"),
        L.Dense(5, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((64, 64, 3)), *layers])


MODELS = {
    "residual": residual,
    "nested": nested,
    "sequential": sequential,
    "MobileNet": lambda: tfopt.models.mobilenet("mobilenet", 5, image_size=64, alpha=0.25),
    "MobileNetV2": lambda: tfopt.models.mobilenet("mobilenet_v2", 5, image_size=64, alpha=0.35),
    "MobileNetV3Small": lambda: tfopt.models.mobilenet("mobilenet_v3_small", 5, image_size=64),
    "SqueezeNet": lambda: tfopt.models.squeezenet(5, image_size=64),
}
LARGE = ("MobileNetV3Large", "ResNet50V2", "EfficientNetB0", "DenseNet121", "NASNetMobile")


def lively(model):
    """The model with random scales and statistics, so that its outputs differ from image to image."""
    for variable in model.weights:
        if "gamma" in variable.path:
            variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
        if variable.path.endswith("kernel"):
            variable.assign(1.5 * variable)
        if variable.path.endswith(("beta", "bias")):
            variable.assign(RNG.normal(0, 0.1, variable.shape))
    return model


def kill_half(model):
    """Zeroes every weight of a random half of the channels; returns how many are left."""
    channels = Channels(Graph(model))
    dead, left = np.zeros(len(channels.unit), bool), 0
    for group in channels.groups():
        count = len(group) - max(round(0.5 * len(group)), 1)
        dead[RNG.choice(group, count, replace=False)] = True
        left += len(group) - count
    for weight, units, axis in scores._makers(channels):
        value = weight.numpy()
        value[(slice(None),) * axis + (dead[units],)] = 0
        weight.assign(value)
    _batch_norm.reestimate(model, tf.data.Dataset.from_tensor_slices(IMAGES).batch(16))
    return left


def check_dead_channels_vanish(model, left, tolerance):
    before, expected = model.get_weights(), np.asarray(model(IMAGES))
    small = slim(model, keep=0.5, criterion="l2")
    assert expected.std(axis=0).max() > 1e-4, "the test shows nothing if all outputs are alike"
    np.testing.assert_allclose(small(IMAGES), expected, atol=tolerance * np.abs(expected).max())
    assert all((old == new).all() for old, new in zip(before, model.get_weights()))
    assert sum(len(group) for group in Channels(Graph(small)).groups()) == left
    assert small.count_params() < 0.6 * model.count_params()
    return small


@pytest.mark.parametrize("name", MODELS)
def test_dead_channels_vanish_without_a_trace(name):
    model = MODELS[name]()
    check_dead_channels_vanish(model, kill_half(lively(model)), 2e-5)


@pytest.mark.full
@pytest.mark.parametrize("name", LARGE)
def test_dead_channels_of_large_models(name):
    """In float64: hundreds of layers round float32 by more than a lost channel might hide behind."""
    half_dead = application(name, 64)()
    left = kill_half(lively(half_dead))
    keras.config.set_dtype_policy("float64")
    try:
        model = application(name, 64)()
        model.set_weights(half_dead.get_weights())
        check_dead_channels_vanish(model, left, 1e-12)
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_small_model_trains_saves_and_loads(tmp_path):
    model = residual()
    for layer in model.layers[:6]:
        layer.trainable = False
    small = slim(model, keep=0.5)
    assert len(small.trainable_weights) > len(model.trainable_weights)
    assert all(layer.trainable for layer in small.layers) and not model.layers[1].trainable
    small.compile("adam", "sparse_categorical_crossentropy")
    small.fit(IMAGES, np.arange(16) % 5, verbose=0)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded(IMAGES), small(IMAGES))
    tfopt.compress.export(small, tmp_path / "small.tflite")


def test_units_of_a_residual_block_by_hand():
    """8 first channels (depthwise doubles them), 12 of the sum, 4 of the gate, 4 beside, 16 dense."""
    channels = Channels(Graph(residual()))
    assert sorted(len(group) for group in channels.groups()) == [4, 4, 8, 8, 12, 16]


def test_what_is_not_known_stays():
    inputs = keras.Input((8, 6))
    x = L.LayerNormalization()(L.Conv1D(6, 3, padding="same")(inputs))
    x = L.Add()([x, L.Dense(6)(L.Dense(12, activation="gelu")(x))])
    x = keras.ops.cumsum(L.Conv1D(10, 1)(x), axis=1)
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.GlobalAveragePooling1D()(x)))
    small = slim(model, keep=0.5, criterion="l2")
    # Layer normalization loses channels with what it normalizes; in front of a running sum all stay.
    assert [layer.kernel.shape[-1] for layer in small.layers if "kernel" in dir(layer)] == [3, 6, 3, 10, 3]


def test_the_smallest_batch_norm_scales_go():
    layers = [L.Conv2D(6, 3), L.BatchNormalization(), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    model.layers[1].gamma.assign([0.5, -0.9, 0.1, 0.8, 0.2, -0.05])
    small = slim(model, keep=0.5)
    np.testing.assert_allclose(small.layers[2].gamma, [0.5, -0.9, 0.8])
    rows = model.layers[-1].kernel.numpy().reshape(36, 6, 2)[:, [0, 1, 3]]
    np.testing.assert_array_equal(small.layers[-1].kernel.numpy().reshape(36, 3, 2), rows)


def test_taylor_is_the_first_order_change_of_the_loss():
    """Against the loss with each channel scaled by 1 - e, one after the other."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(5, activation="tanh"), L.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs, labels = RNG.normal(size=(32, 4)).astype("float32"), RNG.integers(0, 3, 32)
    channels = Channels(Graph(model))
    (units,) = channels.groups()
    values = scores.taylor(channels, model, [(inputs, labels)])[units]
    first, step, start = model.layers[0], 1e-2, model.evaluate(inputs, labels, verbose=0)
    weights = first.get_weights()
    for channel, value in enumerate(values):
        changed = []
        for factor in (1 + step, 1 - step):
            kernel, bias = (weight.copy() for weight in weights)
            kernel[:, channel] *= factor
            bias[channel] *= factor
            first.set_weights([kernel, bias])
            changed.append(model.evaluate(inputs, labels, verbose=0))
        slope = (changed[0] - changed[1]) / (2 * step)
        assert value == pytest.approx(slope**2, rel=0.02, abs=1e-6 * start)
    first.set_weights(weights)
    small = slim(model, keep=0.4, criterion="taylor", data=(inputs, labels))
    best = np.sort(np.argsort(values)[-2:])
    np.testing.assert_array_equal(small.layers[1].kernel, weights[0][:, best])


def test_taylor_counts_samples_by_their_weights():
    model = keras.Sequential([keras.Input((4,)), L.Dense(5, activation="tanh"), L.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs, labels = RNG.normal(size=(32, 4)).astype("float32"), RNG.integers(0, 3, 32)
    channels, counts = Channels(Graph(model)), RNG.integers(0, 3, 32)
    repeated = np.repeat(inputs, counts, axis=0), np.repeat(labels, counts)
    weights = counts / counts.mean()
    values = scores.taylor(channels, model, [(inputs, labels, weights.astype("float32"))])
    expected = scores.taylor(channels, model, [repeated])
    np.testing.assert_allclose(values, expected, rtol=1e-3)
    by_weights = slim(model, keep=0.4, criterion="taylor", data=(inputs, labels, weights)).layers[1]
    best = np.sort(np.argsort(expected[channels.groups()[0]])[-2:])
    np.testing.assert_array_equal(by_weights.kernel, model.layers[0].kernel.numpy()[:, best])


def twins():
    """The second half of the channels of every layer does a tenth of what the first half does."""
    keras.utils.set_random_seed(3)
    layers = [
        *(L.Conv2D(8, 3, use_bias=False), L.BatchNormalization(), L.ReLU()),
        *(L.Conv2D(12, 3, strides=2, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()),
        *(L.Conv2D(16, 1), L.GlobalAveragePooling2D(), L.Dense(5)),
    ]
    model = lively(keras.Sequential([keras.Input((16, 16, 3)), *layers]))
    for layer in layers[:-1]:
        for weight in layer.weights:
            half = np.split(weight.numpy(), 2, -1)[0]
            scaled = weight.name in ("gamma", "beta") or layer is layers[6]
            weight.assign(np.concatenate([half, (0.1 if scaled else 1) * half], -1))
    return model


def test_what_is_left_makes_up_for_what_went():
    """The weak twins go: without data a part of every sum is lost, with data nothing is."""
    model, images = twins(), IMAGES[:, ::4, ::4] / 255
    expected, error = np.asarray(model(images)), {}
    for data in (None, images):
        small = slim(model, keep=0.5, criterion="l2", data=data)
        assert next(x.filters for x in small.layers if isinstance(x, L.Conv2D)) == 4
        error[data is None] = np.abs(np.asarray(small(images)) - expected).max() / np.abs(expected).max()
    assert error[True] > 0.1 and error[False] < 0.02


def test_fitting_is_least_squares():
    """Against NumPy: a convolution with strides and dilation that lost half of its inputs."""
    keras.utils.set_random_seed(4)
    layers = [L.Conv2D(8, 1), L.ReLU(), L.Conv2D(6, 3, strides=2, use_bias=False), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input((9, 9, 3)), *layers])
    model = keras.Model(model.inputs[0], model.outputs[0])
    images = RNG.normal(size=(64, 9, 9, 3)).astype("float32")
    small = slim(model, keep=0.5, criterion="l2", exclude=[layers[2].name], data=images)
    reads = [keras.Model(m.input, m.get_layer(layers[2].name).input)(images) for m in (model, small)]
    old, new = (np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2] for x in reads)
    old, new = (x.transpose(0, 1, 2, 4, 5, 3).reshape(64 * 16, -1).astype("float64") for x in (old, new))
    wanted = old @ layers[2].kernel.numpy().reshape(-1, 6)
    best = np.linalg.lstsq(new, wanted, rcond=None)[0]
    found = new @ small.get_layer(layers[2].name).kernel.numpy().reshape(-1, 6)
    lost = [np.square(wanted - x).sum() for x in (found, new @ best)]
    assert lost[1] <= lost[0] < 1.01 * lost[1]


def test_taylor_takes_the_labels_that_the_loss_takes():
    model = keras.Sequential([keras.Input((4,)), L.Dense(5, activation="tanh"), L.Dense(3)])
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    inputs, labels = RNG.normal(size=(32, 4)).astype("float32"), np.eye(3)[RNG.integers(0, 3, 32)]
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(16)
    assert slim(model, keep=0.4, criterion="taylor", data=data).layers[1].units == 2


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("budget", ["flops", "params", "bytes"])
def test_budgets_are_kept_and_used(scope, budget):
    model = lively(residual())
    whole = cost(Channels(Graph(model)), np.ones(10_000, bool))
    small = slim(model, **{budget: 0.4}, criterion="l2", scope=scope)
    channels = Channels(Graph(small))
    price = getattr(cost(channels, np.ones(len(channels.unit), bool)), budget)
    assert 0.25 * getattr(whole, budget) < price <= 0.4 * getattr(whole, budget)
    assert small.count_params() == cost(channels, np.ones(len(channels.unit), bool)).params
    absolute = slim(model, **{budget: int(0.4 * getattr(whole, budget))}, criterion="l2", scope=scope)
    assert absolute.count_params() == small.count_params()


def test_flops_of_a_network_by_hand():
    layers = [L.Conv2D(4, 3), L.DepthwiseConv2D(3), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    channels = Channels(Graph(model))
    macs = 36 * 3 * 3 * 3 * 4 + 16 * 9 * 4 + 64 * 2
    assert cost(channels, np.ones(len(channels.unit), bool)).flops == 2 * macs


def test_global_scope_ranks_over_layers_and_leaves_a_tenth():
    layers = [L.Conv2D(10, 1), L.BatchNormalization(), L.Conv2D(30, 1), L.BatchNormalization()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, L.GlobalAveragePooling2D(), L.Dense(2)])
    layers[1].gamma.assign(np.full(10, 0.01))
    small = slim(model, keep=0.5, scope="global")
    assert [small.layers[i].filters for i in (1, 3)] == [1, 20]


def test_excluded_layers_keep_their_channels():
    model = residual()
    first = next(layer.name for layer in model.layers if isinstance(layer, L.Conv2D))
    small = slim(model, keep=0.5, exclude=[first])
    assert small.get_layer(first).filters == 8
    with pytest.raises(ValueError, match="`exclude` must be names of layers"):
        slim(model, keep=0.5, exclude=["nothing_*"])


@pytest.mark.parametrize(
    "options, text",
    [
        ({}, "exactly one of keep, flops, params and bytes"),
        ({"keep": 0.5, "flops": 0.5}, "exactly one"),
        ({"keep": 1.0}, r"`keep` must be a number in \(0, 1\)"),
        ({"keep": float("nan")}, r"`keep` must be a number in \(0, 1\)"),
        ({"params": 0}, "`params` must be a number > 0"),
        ({"params": 3}, "`params` must be at least .* one channel in each layer"),
        ({"keep": 0.5, "criterion": "l1"}, "`criterion` must be one of"),
        ({"keep": 0.5, "scope": "all"}, "`scope` must be one of"),
        ({"keep": 0.5, "criterion": "taylor"}, "`data` must be labeled data .* compiled with its loss"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        slim(residual(), **options)


class Plain(keras.Model):
    """A subclassed model, as tutorials write it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = L.Conv2D(8, 3, activation="relu"), L.Dense(3)

    def call(self, x):
        return self.last(L.GlobalAveragePooling2D()(self.first(x / 255.0)))


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_subclassed_models_are_cut_through_the_layers_that_they_call(criterion):
    model = Plain()
    model(IMAGES)
    model.compile("sgd", "mse")
    small = slim(model, keep=0.5, criterion=criterion, data=(IMAGES, np.zeros((16, 3))))
    assert [layer.kernel.shape[-1] for layer in small.layers if layer.weights] == [4, 3]
    with pytest.raises(
        ValueError, match="use `keras.Model\\(inputs, model.call\\(inputs\\)\\)` in its place"
    ):
        slim(keras.Sequential([keras.Input((64, 64, 3)), model]), keep=0.5, criterion="l2")


def test_models_that_cannot_shrink_are_named():
    with pytest.raises(ValueError, match="no channels to remove by criterion='bn_scale'.*Try criterion='l2'"):
        slim(tfopt.models.squeezenet(5, image_size=64), keep=0.5)
    with pytest.raises(ValueError, match="Functional or a built Sequential"):
        slim(keras.Sequential([L.Dense(3)]), keep=0.5)
    with pytest.raises(TypeError, match="`model` must be an instance of Model"):
        slim("model.keras", keep=0.5)


def test_channel_sparsity_is_l1_on_the_scales_and_ends_with_fit():
    def train(callbacks, regularizer=None):
        keras.utils.set_random_seed(1)
        layers = [L.Conv2D(6, 3), L.BatchNormalization(gamma_regularizer=regularizer)]
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers, L.GlobalAveragePooling2D(), L.Dense(2)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        for _ in range(2):  # the second time on a model that has trained
            model.fit(images, targets, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        return model

    images, targets = RNG.normal(size=(32, 8, 8, 3)).astype("float32"), RNG.normal(size=(32, 2))
    callback = ChannelSparsity(0.05)
    ours = train([callback])
    reference = train([], keras.regularizers.L1(0.05))
    np.testing.assert_allclose(ours.layers[1].gamma, reference.layers[1].gamma, rtol=1e-5)
    both = train([callback], keras.regularizers.L2(0.1))
    reference = train([], keras.regularizers.L1L2(0.05, 0.1))
    np.testing.assert_allclose(both.layers[1].gamma, reference.layers[1].gamma, rtol=1e-5)
    assert ours.layers[1].gamma.regularizer is None and ours.losses == []
    ours.layers[1].gamma.assign([0.0, 0.005, 0.5, -0.001, 1.0, 1.0])
    ours.compile(keras.optimizers.SGD(0.0), "mse")
    assert ours.fit(images, targets, verbose=0, callbacks=[callback]).history["channel_sparsity"] == [0.5]


def test_channel_sparsity_is_added_once_after_an_interruption():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    layers = [L.Conv2D(6, 3), L.BatchNormalization(), L.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    callback, data = ChannelSparsity(0.5), (np.zeros((4, 8, 8, 3)), np.zeros((4, 6)))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data, verbose=0, callbacks=[callback, Stop()])
    loss = model.fit(*data, verbose=0, callbacks=[callback]).history["loss"][0]
    assert loss == pytest.approx(0.5 * 6) and model.losses == []


def test_channel_sparsity_names_what_is_wrong():
    with pytest.raises(ValueError, match="`strength` must be a number > 0"):
        ChannelSparsity(0.0)
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="trainable batch-norm scales"):
        model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0, callbacks=[ChannelSparsity(0.1)])

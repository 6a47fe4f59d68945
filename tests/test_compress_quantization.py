"""QAT: every pattern of operations becomes integer kernels that agree with the Keras clone."""

import keras
import numpy as np
import pytest

import tfopt
from tfopt.compress import FakeQuantize, FreezeStatistics, export, quantize_aware

L = keras.layers
RNG = np.random.default_rng(0)
SHAPE = (12, 12, 8)


def chain(x, layers):
    for layer in layers:
        x = layer(x)
    return x


def residual(x):
    y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x))
    return L.ReLU()(L.Add()([x, y]))


def squeeze_excite(x):
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    gate = L.Conv2D(4, 1)(gate)
    gate = L.Conv2D(8, 1)(L.ReLU()(gate))
    gate = L.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)
    return L.Multiply()([x, gate])


def fire(x):
    parts = [L.Conv2D(4, size, padding="same", activation="relu")(x) for size in (1, 3)]
    return L.Concatenate()(parts)


def two_heads_of_one_convolution(x):
    x = L.Conv2D(8, 1)(x)
    return L.Add()([L.ReLU()(x), L.BatchNormalization()(x)])


PATTERNS = {
    "conv": lambda x: L.Conv2D(8, 3)(x),
    "conv-bn": lambda x: chain(x, [L.Conv2D(8, 3, use_bias=False), L.BatchNormalization()]),
    "conv-bn-relu": lambda x: chain(x, [L.Conv2D(8, 3), L.BatchNormalization(), L.ReLU()]),
    "conv-bn-relu6": lambda x: chain(x, [L.Conv2D(8, 3), L.BatchNormalization(), L.ReLU(6.0)]),
    "conv-activation": lambda x: L.Conv2D(8, 3, strides=2, activation="relu6")(x),
    "depthwise": lambda x: chain(x, [L.DepthwiseConv2D(3), L.BatchNormalization(), L.ReLU(6.0)]),
    "depthwise-multiplier": lambda x: L.DepthwiseConv2D(3, depth_multiplier=2)(x),
    "padding": lambda x: chain(x, [L.ZeroPadding2D(1), L.DepthwiseConv2D(3, strides=2), L.ReLU()]),
    "dense": lambda x: chain(x, [L.Flatten(), L.Dense(16, activation="relu"), L.Dense(5)]),
    "dense-bn-relu": lambda x: chain(x, [L.Flatten(), L.Dense(16), L.BatchNormalization(), L.ReLU()]),
    "softmax": lambda x: chain(x, [L.Flatten(), L.Dense(5, activation="softmax")]),
    "sigmoid": lambda x: chain(x, [L.Conv2D(8, 1), L.Activation("sigmoid")]),
    "tanh": lambda x: chain(x, [L.Conv2D(8, 1), L.Activation("tanh")]),
    "swish": lambda x: chain(x, [L.Conv2D(8, 1), L.BatchNormalization(), L.Activation("swish")]),
    "hard-swish": lambda x: chain(x, [L.Conv2D(8, 1), L.BatchNormalization(), L.Activation("hard_swish")]),
    "hard-sigmoid": lambda x: chain(x, [L.Conv2D(8, 1), L.Activation("hard_sigmoid")]),
    "leaky-relu": lambda x: chain(x, [L.Conv2D(8, 1), L.LeakyReLU(0.1)]),
    "batch-norm": lambda x: chain(x, [L.BatchNormalization()]),
    "batch-norm-relu": lambda x: chain(x, [L.BatchNormalization(), L.ReLU(), L.Conv2D(8, 1)]),
    "normalization": lambda x: L.Normalization(mean=[0.1] * 8, variance=[2.0] * 8)(x),
    "rescaling": lambda x: L.Conv2D(8, 1)(chain(x, [L.Conv2D(8, 1), L.Rescaling(0.3, 0.7)])),
    "max-pool": lambda x: chain(x, [L.Conv2D(8, 1), L.MaxPooling2D(), L.Conv2D(8, 1)]),
    "average-pool": lambda x: L.AveragePooling2D(2)(x),
    "mean": lambda x: L.GlobalAveragePooling2D()(x),
    "add": residual,
    "subtract": lambda x: L.Subtract()([x, L.Conv2D(8, 1)(x)]),
    "multiply": squeeze_excite,
    "concatenate": fire,
    "shared": two_heads_of_one_convolution,
}


def randomized(model):
    """Batch-norm statistics and biases that are not the trivial ones."""
    for variable in model.weights:
        shape, path = variable.shape, variable.path
        if "moving_variance" in path:
            variable.assign(RNG.uniform(0.2, 3.0, shape))
        elif "gamma" in path:
            variable.assign(RNG.uniform(0.5, 2.0, shape) * RNG.choice([-1.0, 1.0], shape))
        elif any(name in path for name in ("moving_mean", "beta", "bias")):
            variable.assign(RNG.normal(0.0, 0.3, shape))
    return model


def step_of(model):
    """The last bit of the output: the step of the last range."""
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    return float(ranges[-1].high - ranges[-1].low) / 255.0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_becomes_integer_kernels_within_one_bit(pattern, tmp_path):
    inputs = keras.Input(SHAPE)
    model = randomized(keras.Model(inputs, PATTERNS[pattern](inputs)))
    images = RNG.normal(size=(64, *SHAPE)).astype("float32")
    before = model(images).numpy()
    quantized = quantize_aware(model)
    quantized(images, training=True)
    file = export(quantized, tmp_path / "p.tflite", "int8", images, input_type="float32")
    expected, received = quantized(images).numpy(), file.predict(images)
    wrong = np.abs(expected - received) / step_of(quantized)
    contents = file.inspect()
    others = {name for name in contents.float_operations if name != "DEQUANTIZE"}
    print(pattern, [op.name for op in contents.operations], f"{np.mean(wrong > 1.01):.4f}", wrong.max())
    assert not others, others
    assert np.mean(wrong > 1.01) <= 0.01
    np.testing.assert_array_equal(model(images).numpy(), before)  # the original is not touched


def test_dead_activations_do_not_break_the_file(tmp_path):
    """A range of width zero makes XNNPACK refuse the file, or end the process."""
    inputs = keras.Input(SHAPE)
    gate = L.ReLU()(L.Conv2D(8, 1, name="dead")(inputs))
    model = keras.Model(inputs, L.Multiply()([inputs, gate]))
    model.get_layer("dead").bias.assign(np.full(8, -100.0))
    images = RNG.normal(size=(8, *SHAPE)).astype("float32")
    quantized = quantize_aware(model)
    quantized(images, training=True)
    ranges = [layer for layer in quantized.layers if isinstance(layer, FakeQuantize)]
    assert all(float(layer.high - layer.low) > 9e-4 for layer in ranges)
    assert np.abs(export(quantized, tmp_path / "p.tflite", "int8", images).predict(images)).max() < 1e-3


def test_layers_without_rule_are_named_with_the_ways_out(tmp_path):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, L.Conv2D(4, 1)(L.PReLU(name="odd")(inputs)))
    with pytest.raises(ValueError, match=r"odd \(PReLU\).*skip=.*scheme="):
        quantize_aware(model)
    with pytest.raises(ValueError, match="`skip` must be names of layers"):
        quantize_aware(model, skip=["nope"])
    assert any(layer.name == "odd" for layer in quantize_aware(model, skip=["odd"]).layers)


def test_nested_model_saves_loads_and_keeps_the_original(tmp_path):
    base = keras.Sequential([keras.Input(SHAPE), L.Conv2D(8, 3), L.BatchNormalization(), L.ReLU()])
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(base(inputs, training=False))))
    images = RNG.normal(size=(32, *SHAPE)).astype("float32")
    before = [value.copy() for value in model.get_weights()]
    quantized = quantize_aware(model)
    quantized.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    quantized.fit(images, RNG.integers(0, 3, 32), epochs=2, verbose=0)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    quantized.save(tmp_path / "q.keras")
    again = keras.models.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), quantized.predict(images, verbose=0))


def classifier(normalized=True):
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, use_bias=False)(inputs)
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(x) if normalized else x)
    return keras.Model(inputs, L.Dense(3, name="logits")(L.GlobalAveragePooling2D()(x)))


IMAGES = RNG.normal(size=(64, 8, 8, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 64)


def compiled(model, optimizer="sgd"):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    return model


def fit(model, *callbacks, epochs=2):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
    model.fit(IMAGES, LABELS, epochs=epochs, **options)
    return model


def test_two_replicas_learn_the_ranges_of_one_device(two_replicas):
    model = classifier(normalized=False)
    one = fit(compiled(quantize_aware(model)))
    with two_replicas.scope():
        two = compiled(quantize_aware(model))
    fit(two)
    for expected, received in zip(one.weights, two.weights):
        is_range = expected.name in ("low", "high", "batches")
        np.testing.assert_allclose(received.numpy(), expected.numpy(), atol=0 if is_range else 1e-6)


class Record(keras.callbacks.Callback):
    """The weights after every epoch."""

    def on_train_begin(self, logs=None):
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({v.path: np.array(v.numpy()) for v in self.model.weights})


@pytest.mark.parametrize(
    "optimizer", [lambda: "adam", lambda: tfopt.optimizers.Lookahead(tfopt.optimizers.Adam(), sync_period=2)]
)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_statistics_freeze_late_and_weights_train_on(optimizer, batch_norm):
    model, record = quantize_aware(classifier(), freeze_batch_norm=False), Record()
    fit(compiled(model, optimizer()), FreezeStatistics(2, batch_norm), record, epochs=4)
    moved = {
        path: [not np.array_equal(a[path], b[path]) for a, b in zip(record.epochs, record.epochs[1:])]
        for path in record.epochs[0]
    }
    for path, (before, *after) in moved.items():
        if path.endswith(("low", "high", "batches")):
            assert after == [False, False], path
        elif "batch_normalization/" in path:
            assert after == [not batch_norm] * 2, path
        else:
            assert before and all(after), path
    assert moved["logits_range/high"][0]
    assert all(layer.trainable for layer in model.layers)
    before = float(model.get_layer("logits_range").high)
    fit(model, epochs=1)
    assert float(model.get_layer("logits_range").high) != before


def test_freezing_too_early_or_nothing_is_named():
    with pytest.raises(ValueError, match=r"`epoch` must be later: ranges have seen no data.*epoch=0"):
        fit(compiled(quantize_aware(classifier())), FreezeStatistics(0))
    with pytest.raises(ValueError, match="one from `quantize_aware`"):
        fit(compiled(classifier()), FreezeStatistics(1))
    with pytest.raises(ValueError, match="epoch=-1"):
        FreezeStatistics(-1)

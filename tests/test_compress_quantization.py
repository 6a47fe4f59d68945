"""QAT: every pattern of operations becomes integer kernels that agree with the Keras clone."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfopt
from tfopt.compress import FakeQuantize, FreezeStatistics, export, quantize_aware
from tfopt.compress._agreement import decibels
from tfopt.compress.quantization.bounding import with_bounded_masks

L, ops = keras.layers, keras.ops
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


def boxes_and_scores(x):
    """The head of a detector: large numbers beside probabilities, whose scale TFLite fixes."""
    boxes = L.Rescaling(640.0)(L.Conv2D(4, 1, activation="sigmoid")(x))
    return L.Reshape((-1, 7))(L.Concatenate()([boxes, L.Conv2D(3, 1, activation="sigmoid")(x)]))


def skip_connection(x):
    """A tensor that is used elsewhere too, joined to a larger one."""
    x = L.Conv2D(4, 1, activation="relu")(x)
    y = L.Rescaling(10.0)(L.Conv2D(4, 3, padding="same", activation="relu")(x))
    return L.Concatenate()([L.Dense(4)(L.Concatenate()([y, x])), x])


def sequence(x, layers):
    """Layers on (time, channels)."""
    return chain(L.Reshape((-1, x.shape[-1]))(x), layers)


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
    "dense-at-every-place": lambda x: chain(x, [L.Dense(16, activation="relu"), L.Dense(5)]),
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
    "concatenate-sigmoid": boxes_and_scores,
    "concatenate-skip": skip_connection,
    "shared": two_heads_of_one_convolution,
    "conv-transpose": lambda x: L.Conv2DTranspose(6, 3, strides=2, padding="same")(x),
    "conv-transpose-bn-relu": lambda x: chain(
        x, [L.Conv2DTranspose(6, 3, strides=2, use_bias=False), L.BatchNormalization(), L.ReLU()]
    ),
    "separable": lambda x: chain(x, [L.SeparableConv2D(6, 3), L.BatchNormalization(), L.ReLU()]),
    "separable-multiplier": lambda x: L.SeparableConv2D(6, 3, strides=2, depth_multiplier=2)(x),
    "grouped": lambda x: chain(x, [L.Conv2D(8, 3, groups=4), L.BatchNormalization(), L.ReLU()]),
    "resizing": lambda x: L.Conv2D(8, 1)(L.Resizing(20, 20)(x)),
    "upsampling-bilinear": lambda x: L.Conv2D(8, 1)(L.UpSampling2D(2, interpolation="bilinear")(x)),
    "prelu": lambda x: chain(x, [L.Conv2D(8, 1), L.PReLU("random_uniform", shared_axes=[1, 2])]),
    "elu": lambda x: chain(x, [L.Conv2D(8, 1), L.ELU(0.7)]),
    "elu-operation": lambda x: ops.elu(L.Conv2D(8, 1)(x), alpha=0.3),
    "celu-inside": lambda x: L.Conv2D(8, 1, activation="celu")(x),
    "selu-inside": lambda x: L.Conv2D(8, 1, activation="selu")(x),
    "gelu": lambda x: chain(x, [L.Conv2D(8, 1), L.Activation("gelu")]),
    "gelu-inside": lambda x: L.Dense(8, activation="gelu")(x),
    "mish": lambda x: L.Conv2D(8, 1, activation="mish")(x),
    "softplus": lambda x: L.Activation("softplus")(L.Conv2D(8, 1)(x)),
    "exponential": lambda x: L.Activation("exponential")(L.Conv2D(8, 1, activation="tanh")(x)),
    "swish-inside": lambda x: L.DepthwiseConv2D(3, activation="swish")(x),
    "hard-swish-inside": lambda x: L.Dense(8, activation="hard_swish")(x),
    "layer-norm": lambda x: L.LayerNormalization()(x),
    "group-norm": lambda x: L.GroupNormalization(4)(x),
    "unit-norm": lambda x: L.UnitNormalization()(x),
    "rms-norm": lambda x: L.RMSNormalization()(x),
    "einsum-dense": lambda x: L.EinsumDense("abcd,de->abce", (None, 12, 6), bias_axes="e")(x),
    "depth-to-space": lambda x: ops.depth_to_space(L.Conv2D(8, 1)(x), 2),
    "minimum-maximum": lambda x: L.Maximum()([x, L.Minimum()([x * 0.5, L.Conv2D(8, 1)(x)])]),
    "average": lambda x: L.Average()([x, L.Conv2D(8, 1)(x)]),
    "add-three": lambda x: L.ReLU()(L.Add()([x, L.Conv2D(8, 1)(x), L.Conv2D(8, 3, padding="same")(x)])),
    "operators": lambda x: L.Conv2D(8, 1)(x / 2.5 - 1.0) * 0.3,
    "split-concatenate": lambda x: ops.concatenate(ops.split(L.Conv2D(8, 1)(x), 2, axis=-1)[::-1], axis=-1),
    "slice": lambda x: L.Conv2D(8, 1)(x)[:, 1:7, ::2, 2:],
    "transpose": lambda x: ops.transpose(L.Conv2D(8, 1)(x), (0, 3, 1, 2)),
    "stack": lambda x: ops.stack([L.Conv2D(8, 1)(x), x], axis=1),
    "reductions": lambda x: ops.max(x, axis=-1, keepdims=True) + ops.sum(x, axis=(1, 2), keepdims=True),
    "conv1d": lambda x: sequence(x, [L.Conv1D(6, 3, strides=2, activation="relu")]),
    "conv1d-bn-relu": lambda x: sequence(
        x, [L.Conv1D(6, 3, use_bias=False), L.BatchNormalization(), L.ReLU()]
    ),
    "conv1d-causal": lambda x: sequence(x, [L.Conv1D(6, 3, padding="causal", dilation_rate=2)]),
    "conv1d-transpose": lambda x: sequence(x, [L.Conv1DTranspose(6, 3, strides=2)]),
    "depthwise1d": lambda x: sequence(x, [L.DepthwiseConv1D(3, strides=2), L.BatchNormalization(), L.ReLU()]),
    "separable1d": lambda x: sequence(x, [L.SeparableConv1D(6, 3, activation="relu")]),
    "pooling1d": lambda x: sequence(x, [L.MaxPooling1D(2), L.Conv1D(8, 1), L.AveragePooling1D(2)]),
    "global-pooling1d": lambda x: sequence(x, [L.Conv1D(8, 1), L.GlobalAveragePooling1D()]),
    "batch-norm1d": lambda x: sequence(x, [L.BatchNormalization(), L.ReLU(), L.Conv1D(8, 1)]),
    "normalization1d": lambda x: sequence(x, [L.Normalization(mean=[0.1] * 8, variance=[2.0] * 8)]),
    "rescaling-rank5": lambda x: L.Rescaling([0.5] * 8, 0.25)(L.Reshape((3, 4, 12, 8))(x)),
    "batch-norm-rank2": lambda x: chain(x, [L.Flatten(), L.Dense(4), L.BatchNormalization()]),
    "attention": lambda x: sequence(x, [lambda y: L.MultiHeadAttention(2, 4)(y, y)]),
    "grouped-attention": lambda x: sequence(x, [lambda y: L.GroupQueryAttention(4, 4, 2)(y, y)]),
    "time-distributed": lambda x: L.TimeDistributed(L.Conv1D(6, 3))(x),
    "logsumexp": lambda x: ops.logsumexp(L.Conv2D(8, 1)(x), axis=-1),
    "matmul": lambda x: ops.matmul(x, ops.transpose(L.Conv2D(8, 1)(x), (0, 1, 3, 2))),
}
LOOSE = {"mish": 0.03}  # seven kernels one behind the other


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
    assert np.mean(wrong > 1.01) <= LOOSE.get(pattern, 0.01)
    np.testing.assert_array_equal(model(images).numpy(), before)  # the original is not touched


def test_channels_that_the_range_of_an_output_erases_are_named(tmp_path, caplog):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, boxes_and_scores(inputs))
    images = RNG.normal(size=(32, *SHAPE)).astype("float32")
    export(quantize_aware(model, data=images), tmp_path / "m.tflite", "int8", images)
    # The file agrees with the clone, which has lost them too.
    assert "without rounding of activations" in caplog.text and "channel 4, 5, 6" in caplog.text
    assert "give each its own output, `keras.Model(inputs, {'a': a, 'b': b})`" in caplog.text
    caplog.clear()
    *_, joined, _ = model.layers
    apart = keras.Model(inputs, dict(zip("ab", joined.input)))
    export(quantize_aware(apart, data=images), tmp_path / "m.tflite", "int8", images)
    assert "channel" not in caplog.text


def test_dead_channels_and_zero_gammas_keep_their_bias_in_the_file(tmp_path):
    inputs = keras.Input(SHAPE)
    x = L.BatchNormalization(name="norm")(L.Conv2D(8, 1)(inputs))
    x = L.BatchNormalization()(L.DepthwiseConv2D(3)(L.ReLU()(x)))
    model = randomized(keras.Model(inputs, L.Dense(8)(L.Conv2DTranspose(8, 3)(x))))
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            axis = 2 if isinstance(layer, L.DepthwiseConv2D | L.Conv2DTranspose) else -1
            kernel = layer.kernel.numpy()
            np.moveaxis(kernel, axis, 0)[:2] *= 0.0
            np.moveaxis(kernel, axis, 0)[2:4] *= 1e-6
            layer.kernel.assign(kernel)
            layer.bias.assign(1.0 + 0.1 * np.arange(8))
    model.get_layer("norm").gamma.assign([1.0, 1, 0, 0, 1, 1e-5, 1, 1])
    images = RNG.normal(size=(16, *SHAPE)).astype("float32")
    quantized = quantize_aware(model, data=images)
    file = export(quantized, tmp_path / "p.tflite", "int8", images, input_type="float32")
    assert not file.inspect().float_operations.keys() - {"DEQUANTIZE"}
    step = step_of(quantized)
    assert np.abs(file.predict(images) - quantized(images).numpy()).max() < 3.5 * step
    assert np.abs(file.predict(images) - model(images).numpy()).max() < 12 * step


@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
def test_biases_of_equal_values_keep_their_size_in_the_file(quantization, tmp_path):
    """The converter divides a constant of equal values by the first channel's scale."""
    inputs = keras.Input(SHAPE)
    first, last = L.Conv2D(8, 1, bias_initializer="ones"), L.Conv2D(8, 1, bias_initializer="ones")
    x = L.BatchNormalization(beta_initializer="ones")(first(inputs))
    model = keras.Model(inputs, L.Rescaling(0.1 * np.arange(1.0, 9.0), 0.7)(last(L.ReLU()(x))))
    for layer in (first, last):
        layer.kernel.assign(layer.kernel * 10.0 ** -np.arange(4).repeat(2)[::-1])
    images = RNG.normal(size=(16, *SHAPE)).astype("float32")
    source = quantize_aware(model, data=images) if quantization == "int8" else model
    before = source.get_weights()
    file = export(source, tmp_path / "p.tflite", quantization, images, input_type="float32")
    expected = source(images).numpy()
    assert np.abs(file.predict(images) - expected).max() < 0.02 * np.ptp(expected)
    for old, new in zip(before, source.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "layer", [L.Conv1D(4, 3, padding="causal", dilation_rate=2), L.DepthwiseConv1D(3, dilation_rate=2)]
)
def test_dilated_layers_train(layer):
    model = keras.Sequential([keras.Input((16, 3)), layer, L.GlobalAveragePooling1D(), L.Dense(1)])
    quantized = quantize_aware(model)
    quantized.compile("sgd", "mse")
    before = quantized.get_layer(layer.name).kernel.numpy()
    quantized.fit(RNG.normal(size=(8, 16, 3)), np.ones((8, 1)), verbose=0)
    assert np.abs(quantized.get_layer(layer.name).kernel.numpy() - before).max() > 0


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


def test_what_has_no_integer_kernel_stays_float_inside_and_is_named(tmp_path, caplog):
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(8, 1, activation="softsign", name="first")(inputs)
    x = L.Lambda(lambda value: value / (1.0 + ops.abs(value)), name="odd")(x)
    model = randomized(keras.Model(inputs, L.Conv2D(4, 1, name="last")(x)))
    images = RNG.normal(size=(16, *SHAPE)).astype("float32")
    quantized = quantize_aware(model)
    assert "first (its activation softsign), odd (Lambda)" in caplog.text
    quantized(images, training=True)
    file = export(quantized, tmp_path / "p.tflite", "int8", images, input_type="float32")
    kinds = [(op.name, op.is_float) for op in file.inspect().operations if op.name in ("CONV_2D", "DIV")]
    assert kinds == [("CONV_2D", False), ("DIV", True), ("DIV", True), ("CONV_2D", False)]
    assert np.abs(file.predict(images) - quantized(images).numpy()).max() < 2.5 * step_of(quantized)


MASKED = {
    "causal": lambda x: L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "causal-dropout": lambda x: L.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True),
    "attention": lambda x: L.Attention()([x, x], use_causal_mask=True),
}


@pytest.mark.parametrize(
    "kind", ["causal", "attention", pytest.param("causal-dropout", marks=pytest.mark.full)]
)
def test_masks_of_attention_leave_the_scores_their_int8_scale(kind, tmp_path):
    """Keras hides scores by -1e9 or -1e38: one scale for that and the scores would leave nothing of them."""
    inputs = keras.Input((10, 8))
    model = keras.Model(inputs, L.Dense(4)(MASKED[kind](inputs)))
    data = RNG.normal(size=(32, 10, 8)).astype("float32")
    expected = model.predict(data, verbose=0)
    for source in (model, quantize_aware(model, data=data)):
        file = export(source, tmp_path / "m.tflite", "int8", data)
        assert not file.inspect().float_operations
        assert np.abs(file.predict(data) - expected).max() < 0.05 * np.ptp(expected)


def test_parts_computed_in_float_join_integer_parts(tmp_path):
    """The converter refused to bring a rounded float part to the scale of its neighbors."""
    keras.utils.set_random_seed(0)
    inputs = {"image": keras.Input((8, 8, 3), name="image"), "angles": keras.Input((6,), name="angles")}
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu")(inputs["image"]))
    turned = ops.reshape(ops.cos(x), (-1, 6))
    larger = ops.where(inputs["angles"] > 0.0, turned, 5.0 * inputs["angles"])
    joined = L.Concatenate()([x, ops.sin(inputs["angles"]), inputs["angles"], L.Maximum()([turned, x])])
    stacked = ops.stack([larger, L.Minimum()([3.0 * x, turned])], axis=1)
    model = keras.Model(inputs, {"joined": L.Dense(3)(joined), "stacked": L.Dense(2)(stacked)})
    random = np.random.default_rng(0)
    data = {"image": random.normal(size=(32, 8, 8, 3)), "angles": random.normal(size=(32, 6))}
    data = {name: values.astype("float32") for name, values in data.items()}
    expected = model.predict(data, verbose=0)
    file = export(quantize_aware(model, data=data), tmp_path / "m.tflite", "int8", data)
    assert file.inspect().float_operations.keys() <= {"SIN", "COS", "DEQUANTIZE"}
    for name, values in file.predict(data).items():
        assert decibels(expected[name], values) > 25, name


def scores_of(x):
    return ops.matmul(L.Dense(8)(x), ops.transpose(L.Dense(8)(x), (0, 2, 1))) / 3.0


@keras.saving.register_keras_serializable(package="tests")
class Hiding(L.Layer):
    """What tutorials write: scores, a mask, a softmax."""

    def call(self, scores, values, mask):
        scores = scores + (1.0 - ops.cast(mask, scores.dtype))[:, None, :] * -1e9
        return ops.matmul(keras.activations.softmax(scores), values)


CAUSAL = np.triu(np.full((10, 10), -1e9, "float32"), 1)
SLOPES = np.linspace(-1, 1, 100).reshape(10, 10).astype("float32")
SUMS = {
    "constant": lambda x, mask: ops.softmax(scores_of(x) + CAUSAL) @ x,
    "layer": lambda x, mask: (
        L.Softmax()(
            L.Add()([scores_of(x) + SLOPES, L.Reshape((1, 10))((1.0 - ops.cast(mask, "float32")) * -1e9)])
        )
        @ x
    ),
    "both": lambda x, mask: (
        ops.softmax(scores_of(x) - (ops.where(mask > 0, 0.0, 3e38)[:, None, :] - CAUSAL[None])) @ x
    ),
    "rescaled": lambda x, mask: (
        L.Dropout(0.1)(
            ops.softmax(scores_of(x) + L.Rescaling(1e5, -1e5)(ops.cast(mask, "float32"))[:, None, :])
        )
        @ x
    ),
    "filled": lambda x, mask: (
        (lambda s: ops.softmax(ops.where(ops.repeat(mask[:, None], 10, 1) == 0, ops.ones_like(s) * -1e9, s)))(
            scores_of(x)
        )
        @ x
    ),
    "own layer": lambda x, mask: Hiding()(scores_of(x), x, mask),
}


@pytest.mark.parametrize(
    "kind", ["layer", *(pytest.param(kind, marks=pytest.mark.full) for kind in SUMS if kind != "layer")]
)
def test_sums_that_hide_scores_leave_them_their_int8_scale(kind, tmp_path):
    """`softmax(scores + (1 - mask) * -1e9)` in attention of the user's own, with and without calibration."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 8)), keras.Input((10,), dtype="int32")
    model = keras.Model(inputs, L.Dense(4)(SUMS[kind](*inputs)))
    data = [np.random.default_rng(0).normal(size=(32, 10, 8)).astype("float32"), np.ones((32, 10), "int32")]
    data[1][::2, 6:] = 0
    expected = model.predict(data, verbose=0)
    for source in (model, quantize_aware(model, data=data)):
        file = export(source, tmp_path / "m.tflite", "int8", data)
        assert decibels(expected, file.predict(data)) > 25


def test_a_sum_with_a_large_number_elsewhere_is_no_mask():
    """Only zeros and ones times a large number, and only in front of a softmax, hide."""
    inputs = keras.Input((4,)), keras.Input((4,))
    x, mask = inputs
    weights = ops.softmax(x + mask * -5.0) + ops.softmax(mask - 1e9)
    model = keras.Model(
        inputs, {"sum": x + mask * -1e5, "weights": weights, "logits": ops.log_softmax(x - 1e5)}
    )
    assert with_bounded_masks(model) is model


@pytest.mark.parametrize(
    "resize",
    [
        lambda x: L.UpSampling2D((2, 3), interpolation="bicubic")(x),
        pytest.param(
            lambda x: ops.image.resize(x, (6, 7), interpolation="lanczos3", antialias=True),
            marks=pytest.mark.full,
        ),
    ],
    ids=["bicubic", "lanczos"],
)
def test_resizing_by_methods_that_tflite_lacks_is_two_products(resize, tmp_path, caplog):
    inputs = keras.Input((10, 12, 4))
    model = keras.Model(inputs, L.Conv2D(3, 3)(resize(L.Conv2D(4, 1)(inputs))))
    data = RNG.normal(size=(16, 10, 12, 4)).astype("float32")
    expected = model.predict(data, verbose=0)
    np.testing.assert_allclose(export(model, tmp_path / "m.tflite").predict(data), expected, atol=1e-4)
    integers = export(model, tmp_path / "m.tflite", "int8", data)
    assert not integers.inspect().float_operations
    mixed = export(quantize_aware(model, data=data), tmp_path / "m.tflite", "int8", data)
    assert "CONV_2D" not in mixed.inspect().float_operations and " by " in caplog.text
    for file in (integers, mixed):
        assert np.abs(file.predict(data) - expected).max() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("way", ["quantize_aware", "after training"])
def test_a_large_number_outside_of_attention_is_no_mask(way):
    """In front of a softmax -1e9 hides a score; `pressure - 101325` is a quantity."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    data = (40_000 + 20_000 * random.normal(size=(64, 4))).astype("float32")
    inputs = keras.Input((4,))
    kept = keras.ops.where(inputs > 0.0, inputs, -30_000.0)
    if way == "quantize_aware":
        model = keras.Model(inputs, {"mean": L.Dense(2)(inputs - 40_000.0), "kept": kept})
        received, least = quantize_aware(model, data=data).predict(data, verbose=0), 25
    else:
        model = keras.Model(inputs, {"kept": kept})
        received, least = with_bounded_masks(model).predict(data, verbose=0), 100
    for name, expected in model.predict(data, verbose=0).items():
        assert decibels(expected, received[name]) > least, name


def test_padding_masks_reach_opened_attention(tmp_path):
    """`MultiHeadAttention` reads the mask off its input; nothing passes it as an argument."""
    inputs = keras.Input((10,), dtype="int32")
    x = L.Embedding(20, 8, mask_zero=True, embeddings_initializer="random_normal")(inputs)
    x = L.LayerNormalization()(x)
    model = keras.Model(inputs, L.Dense(4)(L.Flatten()(L.MultiHeadAttention(2, 4)(x, x))))
    data = RNG.integers(1, 20, (32, 10))
    data[:, 4:] = 0
    expected = model.predict(data, verbose=0)
    quantized = quantize_aware(model, data=data)
    np.testing.assert_allclose(quantized.predict(data, verbose=0), expected, atol=0.05 * np.ptp(expected))
    file = export(model, tmp_path / "m.tflite", "int8", data)
    np.testing.assert_allclose(file.predict(data), expected, atol=0.05 * np.ptp(expected))


def test_masking_stays_float_in_front_of_integer_layers(tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 6))
    model = keras.Model(inputs, L.Conv1D(4, 3)(L.Masking()(inputs)))
    data = np.random.default_rng(1).normal(size=(32, 12, 6)).astype("float32")
    data[:, 8:] = 0.0
    file = export(quantize_aware(model, data=data), tmp_path / "m.tflite", "int8", data)
    np.testing.assert_allclose(file.predict(data), model.predict(data, verbose=0), atol=0.05)
    assert "CONV_2D" not in file.inspect().float_operations


def test_skipped_layers_compute_in_float_between_integer_neighbors(tmp_path):
    inputs = keras.Input(SHAPE)
    x = inputs
    for name in ("first", "second", "third"):
        x = L.Conv2D(8, 1, activation="relu", name=name)(x)
    model = randomized(keras.Model(inputs, x + 1.0))
    images = RNG.normal(size=(16, *SHAPE)).astype("float32")
    with pytest.raises(ValueError, match="`skip` must be names of layers"):
        quantize_aware(model, skip=["nope"])
    quantized = quantize_aware(model, skip=["second"], data=images)
    file = export(quantized, tmp_path / "p.tflite", "int8", images, input_type="float32")
    assert [op.is_float for op in file.inspect().operations if op.name == "CONV_2D"] == [False, True, False]
    assert np.abs(file.predict(images) - quantized(images).numpy()).max() < 2.5 * step_of(quantized)


def test_skip_holds_for_inputs_and_integer_inputs_are_never_rounded():
    floats, pixels, ids = (
        keras.Input((6,)),
        keras.Input((6,), dtype="uint8"),
        keras.Input((6,), dtype="int32"),
    )
    table = L.Flatten()(L.Embedding(5000, 2)(ids))
    parts = [L.Dense(2)(floats), L.Dense(2)(L.Rescaling(1 / 255)(pixels)), L.Dense(2)(table)]
    model = keras.Model([floats, pixels, ids], L.Add()(parts))
    x = [RNG.normal(size=(64, 6)), RNG.integers(0, 256, (64, 6)), RNG.integers(0, 5000, (64, 6))]
    x = [each.astype(tensor.dtype) for each, tensor in zip(x, model.inputs)]
    quantized = quantize_aware(model, skip=[floats.name])
    quantized(x, training=True)
    names = {layer.name for layer in quantized.layers if isinstance(layer, FakeQuantize) and layer.watch}
    assert names == {f"{pixels.name}_range"}
    np.testing.assert_allclose(quantized(x), model(x), atol=0.1)


@pytest.mark.parametrize("low, high", [(-2000.0, 2000.0), (0.0, 4095.0), (0.0, 1.0), (0.0, 255.0)])
def test_the_range_of_a_rescaled_input_is_that_of_the_data(low, high):
    model = keras.Sequential([keras.Input((16,)), L.Rescaling(1 / high), L.Dense(2)])
    data = RNG.uniform(low, high, (64, 16)).astype("float32")
    data[0, :2] = low, high
    quantized = quantize_aware(model, data=data)
    (entry,) = [layer for layer in quantized.layers if isinstance(layer, FakeQuantize) and layer.watch]
    assert abs(float(entry.high) - high) <= high / 127 and abs(float(entry.low) - low) <= high / 100
    if low == 0.0:  # pixels are exactly the levels
        assert (float(entry.low), float(entry.high)) == (low, high)
    np.testing.assert_allclose(quantized(data), model(data), atol=0.06)


def test_data_outside_a_fixed_range_and_unequal_columns_are_told(caplog):
    model = keras.Sequential([keras.Input((2,), name="facts"), L.Dense(2)])
    data = RNG.uniform(0, 1, (64, 2)).astype("float32")
    quantize_aware(model, data=data, input_range=(0, 1))
    assert not caplog.text
    quantize_aware(model, data=data * 300, input_range=(0, 255))
    assert (
        "Input 'facts' has values from" in caplog.text and "outside of its range from 0 to 255" in caplog.text
    )
    caplog.clear()
    quantize_aware(model, data=data * [1.0, 100000.0])
    assert "columns [0]" in caplog.text and "skip=['facts', ...]" in caplog.text
    for wrong in ((1, 0), {"other": (0, 1)}, 5):
        with pytest.raises(ValueError, match="`input_range` must be"):
            quantize_aware(model, input_range=wrong)


@keras.saving.register_keras_serializable(package="tests")
class Block(L.Layer):
    """A residual block as users write it, with a weight of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution, self.norm = L.Conv2D(8, 3, padding="same"), L.BatchNormalization()

    def build(self, shape):
        self.convolution.build(shape)
        self.norm.build(shape)
        self.table = self.add_weight(shape=(12, 12, 8), initializer="random_normal")

    def call(self, x, training=None):
        return ops.relu(x + self.norm(self.convolution(x), training=training)) + self.table


def test_layers_made_of_keras_layers_are_opened(tmp_path):
    inputs = keras.Input(SHAPE)
    model = randomized(keras.Model(inputs, Block(name="b")(Block(name="a")(inputs))))
    images = RNG.normal(size=(16, *SHAPE)).astype("float32")
    before = model(images).numpy()
    quantized = quantize_aware(model, data=images)
    assert len(quantized.trainable_weights) == len(model.trainable_weights) - 4  # frozen scales and shifts
    file = export(quantized, tmp_path / "p.tflite", "int8", images, input_type="float32")
    assert not file.inspect().float_operations.keys() - {"DEQUANTIZE"}
    assert np.abs(file.predict(images) - before).mean() < 3 * step_of(quantized)
    quantized.save(tmp_path / "q.keras")
    again = keras.models.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(again(images), quantized(images))
    np.testing.assert_array_equal(model(images), before)


class Net(keras.Model):
    """A subclassed model whose `call` is Keras's or TensorFlow's."""

    def __init__(self, plain, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.plain = L.Dense(3), plain

    def call(self, x):
        return self.dense(x / 255.0) if self.plain else self.dense(tf.identity(x))

    def get_config(self):
        return {"plain": self.plain}


def test_subclassed_models_are_traced_and_others_refused_with_the_way_out():
    x = RNG.uniform(0, 255, (32, 6)).astype("float32")
    model, other = Net(True), Net(False)
    with pytest.raises(ValueError, match="not built on one array"):
        quantize_aware(model)
    np.testing.assert_allclose(model(x), quantize_aware(model, data=x)(x), atol=0.05)
    other(x)
    with pytest.raises(ValueError, match=r"subclassed.*keras.Model\(inputs, model\(inputs\)\)"):
        quantize_aware(other)
    inputs = keras.Input((6,))
    wrapped = quantize_aware(keras.Model(inputs, other(inputs)), data=x)
    np.testing.assert_allclose(other(x), wrapped(x), atol=0.05)


def test_every_tool_names_the_way_over_from_keras_2():
    tf_keras = pytest.importorskip("tf_keras")
    old = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    data = RNG.normal(size=(8, 3))
    for tool, *others in (
        (quantize_aware,),
        (tfopt.compress.slim, 0.5),
        (tfopt.compress.equalize, data),
        (tfopt.compress.sensitivity, data),
    ):
        with pytest.raises(TypeError, match=r"tfopt\.compress\.from_tf_keras\(model\)"):
            tool(old, *others)


def test_what_is_quantized_already_is_refused():
    model = keras.Sequential([keras.Input((6,)), L.Dense(8)])
    with pytest.raises(ValueError, match="must be a model in float.*of `quantize_aware`"):
        quantize_aware(quantize_aware(model))
    model.quantize("int8")
    with pytest.raises(ValueError, match="quantized by Keras"):
        quantize_aware(model)


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
        if path.endswith("seen"):
            assert not any(after), path
        elif path.endswith(("low", "high", "batches")):
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


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_saves_and_exports(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3))
        x = L.Conv2D(8, 3, use_bias=False)(L.Rescaling(1 / 127.5, -1.0)(inputs))
        x = L.DepthwiseConv2D(3)(L.ReLU(6.0)(L.BatchNormalization(momentum=0.8)(x)))
        x = L.GlobalAveragePooling2D()(L.ReLU()(L.BatchNormalization(momentum=0.8)(x)))
        model = keras.Model(inputs, L.Dense(3, dtype="float32")(x))
        quantized = compiled(quantize_aware(model))
        pixels = RNG.integers(0, 256, (64, 8, 8, 3)).astype("float32")
        quantized.fit(pixels, LABELS, verbose=0)
        assert quantized.layers[4].compute_dtype == policy.removeprefix("mixed_")
        file = export(quantized, tmp_path / "q.tflite", "int8")
        assert not file.inspect().float_operations
        exact = quantized.predict(pixels, verbose=0)
        assert np.abs(file.predict(pixels) - exact).mean() < 2 * step_of(quantized)
        plain = export(model, tmp_path / "f.tflite")
        assert np.abs(plain.predict(pixels) - model.predict(pixels, verbose=0)).max() < 0.05
        quantized.save(tmp_path / "q.keras")
        again = keras.models.load_model(tmp_path / "q.keras")
        np.testing.assert_array_equal(again.predict(pixels, verbose=0), exact)
    finally:
        keras.config.set_dtype_policy("float32")


def test_post_training_int8_survives_activations_that_are_always_zero(tmp_path, caplog):
    inputs = keras.Input(SHAPE)
    gate = L.ReLU()(L.Conv2D(8, 1, name="dead")(inputs))
    model = keras.Model(inputs, L.Add()([inputs, gate]))
    model.get_layer("dead").bias.assign(np.full(8, -100.0))
    images = RNG.normal(size=(32, *SHAPE)).astype("float32")
    file = export(model, tmp_path / "p.tflite", "int8", images, input_type="float32")
    assert "Always zero" in caplog.text and not file.inspect().float_operations.keys() - {"DEQUANTIZE"}
    error = file.predict(images) - model.predict(images, verbose=0)
    assert np.abs(error).mean() < 0.02


def test_what_is_not_finite_is_named_and_leaves_no_file(tmp_path):
    path = tmp_path / "n.tflite"
    model = classifier()
    quantized = quantize_aware(model)
    quantized(np.where(IMAGES > 2.0, np.nan, IMAGES), training=True)
    with pytest.raises(ValueError, match="ranges must be finite.*_range/low"):
        export(quantized, path, "int8")
    model.layers[1].kernel.assign(np.full((3, 3, 3, 8), np.inf))
    for quantization in (None, "int8", "int16x8"):
        with pytest.raises(ValueError, match=r"must be finite.*conv2d/kernel"):
            export(model, path, quantization, IMAGES)
    model.layers[1].kernel.assign(np.full((3, 3, 3, 8), 3e38))
    with pytest.raises(ValueError, match="computes NaN or infinity"):
        export(model, path, "int8", IMAGES)
    assert not path.exists() and not list(tmp_path.iterdir())


def application(name, **options):
    return getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10, **options)


WHOLE = {
    "MobileNet": lambda: application("MobileNet", alpha=0.25),
    "MobileNetV2": lambda: application("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": lambda: application("MobileNetV3Small"),
    "MobileNetV3Large": lambda: application("MobileNetV3Large"),
    "SqueezeNet": lambda: tfopt.models.squeezenet(10, image_size=96),
    "EfficientNetB0": lambda: application("EfficientNetB0"),
    "ResNet50": lambda: application("ResNet50"),
    "ResNet50V2": lambda: application("ResNet50V2"),
}
MARKS = {"MobileNet": []}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.full)) for name in WHOLE]
)
def test_whole_models_compute_in_integers(name, tmp_path):
    model = WHOLE[name]()
    for variable in model.weights:
        if "moving_mean" in variable.path:
            variable.assign(RNG.normal(0.0, 0.1, variable.shape))
    images = RNG.integers(0, 256, (8, 96, 96, 3)).astype("float32")
    quantized = quantize_aware(model)
    quantized(images, training=True)
    file = export(quantized, tmp_path / "w.tflite", "int8")
    contents = file.inspect()
    print(name, len(contents.operations), contents.float_operations)
    assert not contents.float_operations and not contents.flex_operations
    off, compared = operations_off(file, quantized, images[:1])
    assert compared >= 0.5 and max(off.values()) == 0, "every operation is within one step"
    error = np.abs(file.predict(images) - quantized.predict(images, verbose=0))
    assert error.mean() <= step_of(quantized)


def operations_off(file, quantized, image):
    """Name of a range -> share of its values more than one step off, given the file's own values before it.

    And the share of the ranges that could be compared: others share size and scale, so are not told apart.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = Interpreter(model_content=file.content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], image.astype(entry["dtype"]))
    interpreter.invoke()
    found = []
    for tensor in interpreter.get_tensor_details():
        scale, zero = tensor["quantization"]
        if scale > 0 and tensor["name"] and tensor["dtype"] in (np.int8, np.uint8):
            found.append((scale, (interpreter.get_tensor(tensor["index"]).astype("float32") - zero) * scale))

    def value(layer):
        shape, step = (1, *layer.output.shape[1:]), float(layer.high - layer.low) / 255
        fits = [v.reshape(shape) for s, v in found if v.size == np.prod(shape) and abs(s / step - 1) < 1e-4]
        return fits[0] if fits and all((other == fits[0]).all() for other in fits) else None

    ranges = [layer for layer in quantized.layers if isinstance(layer, FakeQuantize)]
    off = {}
    for layer in ranges:
        sources = ranges_before(layer)
        inputs = [value(each) if isinstance(each, FakeQuantize) else image for each in sources]
        received = value(layer)
        if received is not None and all(each is not None for each in inputs):
            part = keras.Model([each.output for each in sources], [layer.output])
            error = np.abs(np.asarray(part(inputs, training=False)[0]) - received)
            off[layer.name] = np.mean(error > 1.5 * float(layer.high - layer.low) / 255)
    return off, len(off) / len(ranges)


def ranges_before(layer):
    """The ranges, or the input, between which and a range there is no other."""
    found, ahead = {}, [layer.input]
    while ahead:
        operation, node, _ = ahead.pop()._keras_history
        if isinstance(operation, FakeQuantize | keras.layers.InputLayer):
            found[id(operation)] = operation
        else:
            ahead.extend(operation._inbound_nodes[node].input_tensors)
    return list(found.values())


def gratings(count, seed):
    """Pictures of eight kinds: four directions, two widths; learned in seconds, not by everyone."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 8, count)
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 24))
    angle = np.pi * (labels % 4) / 4 + random.normal(0, 0.1, count)
    width = np.where(labels < 4, 7.0, 13.0) * (1 + random.normal(0, 0.05, count))
    phase = random.uniform(0, 2 * np.pi, count)
    wave = np.einsum("n,hw->nhw", np.cos(angle), x) + np.einsum("n,hw->nhw", np.sin(angle), y)
    wave = np.sin(width[:, None, None] * wave + phase[:, None, None])[..., None]
    images = wave * random.uniform(0.2, 0.5, (count, 1, 1, 3)) + random.normal(0, 0.5, (count, 24, 24, 3))
    return np.clip(127.5 + 127.5 * images, 0, 255).round().astype("float32"), labels


def separable_net():
    x = inputs = keras.Input((24, 24, 3))
    x = L.Rescaling(1 / 127.5, -1.0)(x)
    x = L.Conv2D(16, 3, 2, use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization(momentum=0.8)(x))
    for filters, stride in ((32, 1), (64, 2), (64, 1)):
        x = L.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization(momentum=0.8)(x))
        x = L.Conv2D(filters, 1, use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization(momentum=0.8)(x))
    return keras.Model(inputs, L.Dense(8)(L.GlobalAveragePooling2D()(x)))


def rescale_depthwise(model):
    """Multiplies depthwise channels by e^-3.5 to e^3.5 and batch-norm statistics with them: same function."""
    for layer, norm in zip(model.layers, model.layers[1:]):
        if isinstance(layer, L.DepthwiseConv2D):
            factor = np.exp(RNG.uniform(-3.5, 3.5, layer.kernel.shape[2]))
            layer.kernel.assign(layer.kernel.numpy() * factor[:, None])
            norm.moving_mean.assign(norm.moving_mean.numpy() * factor)
            variance = norm.moving_variance.numpy() + norm.epsilon
            norm.moving_variance.assign(variance * factor**2 - norm.epsilon)


def test_uneven_depthwise_channels_cost_at_most_four_points(tmp_path):
    images, labels = gratings(1024, 0)
    test, truth = gratings(500, 1)
    model = compiled(separable_net(), "adam")
    model.fit(images, labels, batch_size=32, epochs=5, verbose=0)
    before = model.predict(test, verbose=0)
    rescale_depthwise(model)
    after = model.predict(test, verbose=0)
    assert np.mean(before.argmax(-1) == after.argmax(-1)) > 0.99
    accuracy = np.mean(after.argmax(-1) == truth)
    assert accuracy > 0.7
    quantized = compiled(quantize_aware(model), keras.optimizers.Adam(1e-4))
    quantized.fit(images, labels, batch_size=32, epochs=1, verbose=0)
    exact = np.mean(export(quantized, tmp_path / "q.tflite", "int8").predict(test).argmax(-1) == truth)
    print(f"float {accuracy:.3f}, int8 after quantization-aware training {exact:.3f}")
    assert exact > accuracy - 0.04


def test_the_loss_sees_unrounded_probabilities():
    """Rounded to 1/256, most classes would have probability zero and no gradient."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    quantized = keras.models.clone_model(tfopt.compress.quantize_aware(model))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    training, inference = (np.asarray(quantized(x, training=mode)) for mode in (True, False))
    assert np.abs(training * 256 % 1).max() > 0.1
    np.testing.assert_allclose(inference * 256 % 1, 0, atol=1e-4)
    np.testing.assert_allclose(training, inference, atol=1 / 256)


@pytest.mark.parametrize("operators", ["divided", "multiplied", "reversed"])
def test_arithmetic_on_pixels_is_rounded_like_rescaling(operators):
    """`x / 127.5 - 1` put every pixel halfway between two levels, `Rescaling` on a level."""
    arithmetic = {
        "divided": lambda x: x / 127.5 - 1,
        "multiplied": lambda x: -1 + x * (1 / 127.5),
        "reversed": lambda x: -(1.0 - x / 127.5),
    }[operators]
    models = []
    for scale in (L.Rescaling(1 / 127.5, offset=-1.0), arithmetic):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 3))
        models.append(keras.Model(inputs, L.Conv2D(4, 3)(scale(inputs))))
    images = RNG.integers(0, 256, (4, 8, 8, 3)).astype("float32")
    found = [quantize_aware(model, input_range=(0, 255)) for model in models]
    first, second = (np.asarray(model(images, training=True)) for model in found)
    np.testing.assert_allclose(first, second, atol=1e-5)

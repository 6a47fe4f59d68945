"""Kernels as their layers mean them: inputs, outputs, experts, gates and groups are asked of the layer."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt.optimizers as to
from tfopt.optimizers._kernel_table import geometries
from tfopt.optimizers._owners import owners

L = keras.layers


def of(layer, *shapes):
    """(name, kind, inputs, outputs, stacked, blocks) of every variable with two axes or more."""
    layer(*(keras.Input(shape) for shape in shapes))
    found = geometries(layer.weights)
    return {
        variable.path.split("/", 1)[1]: (axes.kind, axes.inputs, axes.outputs, axes.stacked, axes.blocks)
        for variable, axes in zip(layer.weights, found)
        if len(variable.shape) > 1 and "seed" not in variable.path
    }


def kernel(inputs, outputs, stacked=(), blocks=1):
    return ("kernel", inputs, outputs, stacked, blocks)


VECTOR, TABLE = ("vector", (0, 1), (), (), 1), ("table", (0,), (1,), (), 1)
LAYERS = {
    "dense": (L.Dense(4), (6,), {"kernel": kernel((0,), (1,))}),
    "conv with one filter": (L.Conv2D(1, 3), (8, 8, 5), {"kernel": kernel((0, 1, 2), (3,))}),
    "wide conv1d": (L.Conv1D(2, 9), (20, 3), {"kernel": kernel((0, 1), (2,))}),
    "grouped conv": (L.Conv2D(8, 3, groups=4), (8, 8, 4), {"kernel": kernel((0, 1, 2), (3,), blocks=4)}),
    "transposed conv": (L.Conv2DTranspose(7, 3), (4, 4, 5), {"kernel": kernel((0, 1, 3), (2,))}),
    "transposed conv1d": (L.Conv1DTranspose(2, 3), (9, 4), {"kernel": kernel((0, 2), (1,))}),
    "depthwise": (L.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 3), {"kernel": kernel((0, 1), (2, 3))}),
    "depthwise of one channel": (L.DepthwiseConv1D(3), (8, 1), {"kernel": kernel((0,), (1, 2))}),
    "separable": (
        L.SeparableConv2D(6, 3),
        (8, 8, 4),
        {"depthwise_kernel": kernel((0, 1), (2, 3)), "pointwise_kernel": kernel((0, 1, 2), (3,))},
    ),
    "einsum, heads first": (
        L.EinsumDense("btd,ndh->btnh", (None, 4, 16)),
        (5, 64),
        {"kernel": kernel((1,), (0, 2))},
    ),
    "einsum, experts": (
        L.EinsumDense("...eh,ehm->...em", (3, 8)),
        (3, 6),
        {"kernel": kernel((1,), (2,), (0,))},
    ),
    "einsum, scale": (L.EinsumDense("bhd,hd->bhd", (3, 8)), (3, 8), {"kernel": VECTOR}),
    "LSTM": (
        L.LSTM(3),
        (5, 2),
        {
            "lstm_cell/kernel": kernel((0,), (1,), blocks=4),
            "lstm_cell/recurrent_kernel": kernel((0,), (1,), blocks=4),
        },
    ),
    "GRU": (
        L.GRU(3),
        (5, 2),
        {
            "gru_cell/kernel": kernel((0,), (1,), blocks=3),
            "gru_cell/recurrent_kernel": kernel((0,), (1,), blocks=3),
            "gru_cell/bias": VECTOR,
        },
    ),
    "embedding": (L.Embedding(9, 4), (3,), {"embeddings": TABLE}),
    "several axes of a norm": (L.LayerNormalization(axis=(1, 2)), (4, 3), {"gamma": VECTOR, "beta": VECTOR}),
    "PReLU": (L.PReLU(), (4, 3), {"alpha": VECTOR}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_says_what_the_axes_mean(name):
    layer, shape, expected = LAYERS[name]
    assert of(layer, shape) == expected


def test_attention_projects_to_heads_and_back():
    found = of(L.MultiHeadAttention(num_heads=8, key_dim=2), (5, 6), (5, 6))
    assert {found[f"{name}/kernel"] for name in ("query", "key", "value")} == {kernel((0,), (1, 2))}
    assert found["attention_output/kernel"] == kernel((0, 1), (2,))
    assert found["query/bias"] == VECTOR


def test_adapters_and_tied_weights_have_a_geometry():
    dense, table = L.Dense(4), L.Embedding(9, 4)
    dense(keras.Input((6,))), table(keras.Input((3,)))
    dense.enable_lora(2), table.enable_lora(2)
    tied = L.Layer()
    tied.weight = table.embeddings
    weights = [*dense.weights, *table.weights]
    by_name = {weight.name: axes.kind for weight, axes in zip(weights, geometries(weights))}
    assert by_name["lora_kernel_a"] == by_name["lora_kernel_b"] == by_name["lora_embeddings_b"] == "kernel"
    assert by_name["lora_embeddings_a"] == by_name["embeddings"] == "table"


# KerasHub is not installed here: layers of the same class names, variable names and shapes.
EXPERTS = {
    ("MixtralMoeExperts", "expert_feedforward_gate_dense", (3, 4, 5)): 1,
    ("MixtralMoeExperts", "expert_feedforward_output_dense", (3, 5, 4)): 1,
    ("QwenMoeExperts", "expert_feedforward_gate_dense", (3, 4, 10)): 2,
    ("Qwen3MoeExperts", "expert_feedforward_gate_dense", (3, 4, 10)): 2,
    ("Qwen3_5MoeExperts", "expert_feedforward_output_dense", (3, 5, 4)): 1,
    ("GptOssExperts", "gate_up_proj", (3, 4, 10)): 1,
    ("Gemma4MoEBlock", "down_proj", (3, 5, 4)): 1,
}


@pytest.mark.parametrize(("kind", "name", "shape"), EXPERTS)
def test_experts_are_separate_kernels(kind, name, shape):
    layer = type(kind, (L.Layer,), {})()
    layer.bank = layer.add_weight(name=name, shape=shape)
    (axes,) = geometries(layer.weights)
    assert (axes.kind, axes.stacked, axes.inputs, axes.outputs) == ("kernel", (0,), (1,), (2,))
    assert axes.blocks == EXPERTS[kind, name, shape]


@pytest.mark.parametrize(
    "layer",
    [L.Conv2DTranspose(4, 3), L.Conv2D(8, 3, groups=2), L.DepthwiseConv2D(3)],
    ids=["transposed", "grouped", "depthwise"],
)
def test_matrices_come_back_as_they_were(layer):
    layer(keras.Input((8, 8, 4)))
    (axes, _) = geometries(layer.weights)
    x = tf.reshape(tf.range(tf.size(layer.kernel)), layer.kernel.shape)
    matrices = axes.to_matrices(x)
    assert matrices.shape == (axes.count, axes.rows, axes.columns)
    np.testing.assert_array_equal(axes.from_matrices(matrices), x)


def test_a_transposed_convolution_centers_over_what_one_output_sums():
    layer = L.Conv2DTranspose(2, 3, use_bias=False)
    layer(keras.Input((4, 4, 5)))
    before = layer.kernel.numpy()
    grad = np.random.default_rng(0).normal(size=before.shape).astype("float32")
    optimizer = to.GradientCentralization(to.SGD(1.0))
    optimizer.apply([tf.constant(grad)], layer.trainable_weights)
    step = before - layer.kernel.numpy()
    np.testing.assert_allclose(step, grad - grad.mean((0, 1, 3), keepdims=True), atol=1e-5)


def orthogonal(x):
    u, _, v = np.linalg.svd(x, full_matrices=False)
    return u @ v


@pytest.mark.parametrize("kind", ["experts", "gates", "heads first"])
def test_muon_makes_each_kernel_orthogonal_alone(kind):
    if kind == "experts":
        layer, stack = L.EinsumDense("eth,ehm->etm", (None, 4)), lambda x: x
        layer.build((3, 5, 4))
    elif kind == "gates":
        layer, stack = L.LSTM(4, use_bias=False), lambda x: np.stack(np.split(x, 4, axis=1))
        layer.build((None, 5, 4))
    else:
        layer = L.EinsumDense("btd,ndh->btnh", (None, 2, 3))
        stack = lambda x: x.transpose(1, 0, 2).reshape(1, 8, 6)  # noqa: E731
        layer.build((None, 5, 8))
    weight = layer.trainable_weights[0]
    before = weight.numpy()
    grad = np.random.default_rng(0).normal(size=before.shape).astype("float32")
    to.Muon(1.0, rms=1.0, newton_schulz_steps=10).apply([tf.constant(grad)], [weight])
    for step, expected in zip(stack(before - weight.numpy()), map(orthogonal, stack(grad))):
        size = np.sqrt(max(expected.shape))
        # The quintic of Muon brings singular values to 0.7 ... 1.2 only: the directions are exact.
        values = np.linalg.svd(step / size, compute_uv=False)
        assert values.min() > 0.6 and values.max() < 1.3
        np.testing.assert_allclose(orthogonal(step), expected, atol=2e-3)


def test_muon_leaves_embeddings_and_biases_with_two_axes_to_adamw():
    model = keras.Sequential([keras.Input((3,)), L.Embedding(9, 4), L.GRU(3), L.Dense(2)])
    muon = to.Muon(0.01)
    muon.build(model.trainable_variables)
    shapes = [tuple(slots[1].shape) for slots in muon._slots]
    assert shapes == [(9, 4), (), (), (2, 9), (), (2,)]


@pytest.mark.parametrize("make", [lambda: to.LARS(0.1), lambda: to.LAMB(0.1)], ids=["LARS", "LAMB"])
def test_each_expert_has_its_own_trust_ratio(make):
    bank = L.EinsumDense("eth,ehm->etm", (None, 4))
    bank.build((2, 5, 4))
    start = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32") * [[[1.0]], [[9.0]]]
    grad = np.random.default_rng(1).normal(size=(2, 4, 4)).astype("float32") * [[[5.0]], [[1.0]]]
    bank.kernel.assign(start)
    make().apply([tf.constant(grad, tf.float32)], bank.trainable_weights)
    for index in range(2):
        alone = keras.Variable(start[index].astype("float32"))
        make().apply([tf.constant(grad[index], tf.float32)], [alone])
        np.testing.assert_allclose(bank.kernel[index], alone, rtol=1e-5)


def test_lars_takes_a_bias_with_two_axes_for_a_bias():
    gru = L.GRU(3)
    gru.build((None, 5, 2))
    bias = gru.trainable_weights[2]
    bias.assign(tf.ones(bias.shape))
    to.LARS(0.5).apply([tf.ones(bias.shape)], [bias])
    np.testing.assert_allclose(bias, np.full(bias.shape, 0.5), rtol=1e-6)


def test_norms_with_several_axes_are_not_decayed():
    model = keras.Sequential([keras.Input((4, 3)), L.LayerNormalization(axis=(1, 2)), L.PReLU(), L.Dense(2)])
    (group,) = to.no_decay_on_norm_and_bias(model)
    assert {variable.name for variable in group.match} == {"gamma", "beta", "alpha", "bias"}


def test_layers_that_a_program_has_frozen_are_found():
    """`gc.freeze`, which servers call before they fork, hides objects from `gc.get_objects`."""
    layer = keras.layers.Conv2DTranspose(2, 3)
    layer.build((None, 4, 4, 5))
    gc.freeze()
    found = owners([layer.kernel])
    assert found == {id(layer.kernel): [layer]} and gc.get_freeze_count()

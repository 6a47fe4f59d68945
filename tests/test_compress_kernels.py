"""The table of kernels: every layer that stores numbers is found, named, chosen by default or on request."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.compress import Clustering, CubicSparsity, OneShotSparsity, Pruning, SparseTraining
from tfopt.compress._kernels import kernels
from tfopt.compress._layouts import from_matrix, layouts, to_matrix

L = keras.layers


@keras.saving.register_keras_serializable(package="kernels")
class Block(L.Layer):
    """A layer of somebody's own with a weight, a layer inside it, and a bias of rank 2."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(6, name="inner")

    def build(self, shape):
        self.inner.build(shape)
        self.table = self.add_weight(shape=(shape[1], 6), name="table")
        self.shift = self.add_weight(shape=(shape[1], 6), name="shift_bias")
        self.row = self.add_weight(shape=(1, 1, 6), name="row")

    def call(self, x):
        return self.inner(x) + self.table + self.shift + self.row


# layer, shape of an input, names of the kernels that are compressed by default, and of those that are left
ROWS = [
    (L.Dense(6, name="x"), (5,), ["x"], []),
    (L.Conv1D(6, 3, name="x"), (8, 5), ["x"], []),
    (L.Conv2D(6, 3, groups=2, name="x"), (8, 8, 4), ["x"], []),
    (L.Conv3D(6, 3, name="x"), (5, 5, 5, 3), ["x"], []),
    (L.Conv1DTranspose(6, 3, name="x"), (8, 5), ["x"], []),
    (L.Conv2DTranspose(6, 3, name="x"), (8, 8, 5), ["x"], []),
    (L.Conv3DTranspose(6, 3, name="x"), (3, 3, 3, 5), ["x"], []),
    (L.DepthwiseConv1D(3, name="x"), (8, 5), [], ["x"]),
    (L.DepthwiseConv2D(3, depth_multiplier=2, name="x"), (8, 8, 5), [], ["x"]),
    (L.SeparableConv1D(6, 3, name="x"), (8, 5), ["x/pointwise_kernel"], ["x/depthwise_kernel"]),
    (L.SeparableConv2D(6, 3, name="x"), (8, 8, 5), ["x/pointwise_kernel"], ["x/depthwise_kernel"]),
    (L.LSTM(6, name="x"), (4, 5), ["x/kernel", "x/recurrent_kernel"], []),
    (L.GRU(6, name="x"), (4, 5), ["x/kernel", "x/recurrent_kernel"], []),
    (L.SimpleRNN(6, name="x"), (4, 5), ["x/kernel", "x/recurrent_kernel"], []),
    (L.RNN([L.GRUCell(6, name="a"), L.GRUCell(6, name="b")], name="x"), (4, 5),
     ["x/a/kernel", "x/a/recurrent_kernel", "x/b/kernel", "x/b/recurrent_kernel"], []),
    (L.Bidirectional(L.LSTM(6, name="l"), name="x"), (4, 5),
     ["x/forward_l/kernel", "x/forward_l/recurrent_kernel",
      "x/backward_l/kernel", "x/backward_l/recurrent_kernel"], []),
    (L.ConvLSTM1D(6, 3, name="x"), (4, 8, 5), ["x/kernel", "x/recurrent_kernel"], []),
    (L.TimeDistributed(L.Dense(6, name="d"), name="x"), (4, 5), ["x/d"], []),
    (L.EinsumDense("abc,cde->abde", (4, 2, 6), bias_axes="de", name="x"), (4, 5), ["x"], []),
    (L.Embedding(9, 6, name="x"), (4,), ["x"], []),
    (Block(name="x"), (4, 5), ["x", "x/inner"], []),
]  # fmt: skip


@pytest.mark.parametrize("layer, shape, chosen, left", ROWS, ids=[type(row[0]).__name__ for row in ROWS])
def test_kernels_of_every_layer_are_pruned_clustered_or_named(layer, shape, chosen, left):
    entry = keras.Input(shape, dtype="int32" if isinstance(layer, L.Embedding) else "float32")
    hidden = L.Flatten()(layer(entry))
    model = keras.Model(entry, L.Dense(3, name="head")(hidden))
    found = {kernel.name: kernel for kernel in kernels(model)}
    assert sorted(found) == sorted([*chosen, *left, "head"])
    for each in found.values():
        value = each.variable.numpy()
        matrix = to_matrix(each.layout, value, np)
        np.testing.assert_array_equal(from_matrix(each.layout, matrix, value.shape, np), value)

    def zeros():
        return {name: float(np.mean(kernel.variable.numpy() == 0)) for name, kernel in found.items()}

    clustering = by_hand(model, Clustering(4))
    assert sorted(clustering.unique_values()) == sorted([*chosen, "head"])
    assert max(clustering.unique_values().values()) <= 4 and sorted(clustering.left_alone) == left
    for each in found.values():
        each.variable.assign(np.random.default_rng(0).normal(size=each.variable.shape))
    pruning = by_hand(model, Pruning(OneShotSparsity(0.5)))
    assert zeros() == pytest.approx(
        {**dict.fromkeys([*chosen, "head"], 0.5), **dict.fromkeys(left, 0)}, abs=0.05
    )
    assert sorted(pruning.left_dense) == left and all("depthwise" in x for x in pruning.left_dense.values())
    by_hand(model, Pruning(OneShotSparsity(0.5), include=left, exclude=["head"], restore_mask=False))
    assert zeros() == pytest.approx(dict.fromkeys(found, 0.5), abs=0.05)


def by_hand(model, callback):
    """Attaches and detaches a callback as a loop of one's own would."""
    callback.set_model(model)
    callback.set_params({})
    callback.on_train_begin()
    callback.on_train_end()
    return callback


def test_axes_of_channels_are_those_of_the_layer():
    transposed, einsum = L.Conv2DTranspose(6, 3), L.EinsumDense("abc,cde->abde", (None, 2, 6))
    transposed.build((None, 8, 8, 5))
    einsum.build((None, 4, 5))
    for layer, shape in ((transposed, (3, 3, 5, 6)), (einsum, (5, 12))):
        ((layout, variable),) = layouts(layer)
        assert to_matrix(layout, variable.numpy(), np).shape == shape
    kernel = transposed.kernel.numpy()
    np.testing.assert_array_equal(
        to_matrix(layouts(transposed)[0][0], kernel, np)[0, 1, 2, 3], kernel[0, 1, 3, 2]
    )


def two_branches():
    entry = keras.Input((8, 8, 4))
    x = L.Conv2D(4, 3, padding="same", name="first")(entry)
    x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    tower_input = keras.Input((8, 8, 4))
    tower = keras.Model(tower_input, L.Conv2D(4, 3, name="inside")(tower_input), name="tower")
    return keras.Model(entry, L.Dense(2, name="head")(L.Flatten()(tower(x))))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, ["first", "inside", "head"]),
        ({"exclude": ["fi*"]}, ["inside", "head"]),
        ({"exclude": ["tower"]}, ["first", "head"]),
        ({"exclude": ["Conv2D"]}, ["head"]),
        ({"exclude": [L.Conv2D]}, ["head"]),
        ({"include": ["DepthwiseConv2D"]}, ["first", "depthwise", "inside", "head"]),
        ({"include": [L.DepthwiseConv2D], "exclude": ["dep*"]}, ["first", "inside", "head"]),
        ({"include": "depthwise", "exclude": "Conv2D"}, ["depthwise", "head"]),
    ],
)
def test_layers_are_taken_in_or_out_by_name_pattern_or_class(options, expected):
    pruning = by_hand(two_branches(), Pruning(OneShotSparsity(0.5), **options))
    assert list(pruning.sparsity()) == expected
    assert set(pruning.left_dense) == {"first", "depthwise", "inside", "head"} - set(expected)


def test_what_stays_dense_is_warned_of_and_counted_in_the_logs(caplog):
    model = keras.Sequential(
        [keras.Input((8, 8, 16)), L.DepthwiseConv2D(3, name="wide"), L.Conv2D(4, 1, name="c")]
    )
    pruning = by_hand(model, Pruning(OneShotSparsity(0.5)))
    assert "69% of the weights in kernels stay as they are: wide (depthwise" in caplog.text
    logs = {}
    pruning.on_epoch_end(0, logs)
    assert logs["sparsity"] == pytest.approx(32 / (144 + 64))


def test_a_kernel_with_fewer_weights_than_clusters_is_left_and_named():
    model = keras.Sequential(
        [keras.Input((8, 1)), L.Conv1D(1, 3, name="tiny"), L.Flatten(), L.Dense(8, name="d")]
    )
    clustering = by_hand(model, Clustering(8))
    assert clustering.left_alone == {"tiny": "has 3 weights, fewer than clusters=8"}
    with pytest.raises(ValueError, match="No kernel is left to be clustered.*d: has 48 weights, fewer than"):
        by_hand(model, Clustering(64))


def test_per_channel_clusters_follow_the_axis_of_output_channels():
    model = keras.Sequential([keras.Input((4, 4, 8)), L.Conv2DTranspose(2, 3, name="up")])
    clustering = by_hand(model, Clustering(4, per_channel=True))
    kernel = model.layers[0].kernel.numpy()
    assert [len(np.unique(kernel[:, :, channel])) for channel in range(2)] == [4, 4]
    assert (
        clustering.unique_values() == {"conv2d_transpose": 4} or max(clustering.unique_values().values()) == 4
    )


def test_a_loop_of_ones_own_on_an_uncompiled_model_reaches_the_target():
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, name="hidden"), L.Dense(4)])
    optimizer = keras.optimizers.SGD(0.01)
    pruning = Pruning(CubicSparsity(0.75, end_step=6, frequency=1))
    pruning.set_model(model)
    pruning.on_train_begin()
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
    shares = []
    for _ in range(8):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(model(x, training=True) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        shares.append(pruning.sparsity()["hidden"])
    pruning.on_train_end()
    assert shares == sorted(shares) and 0 < shares[0] < 0.75 and shares[-1] == 0.75


def test_a_model_that_keras_quantized_is_refused_by_name():
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, name="hidden"), L.Dense(4)], name="mine")
    model.compile("sgd", "mse")
    model.quantize("int8")
    for callback in (Pruning(0.5), Clustering(4), SparseTraining(0.5)):
        with pytest.raises(ValueError, match="'mine', quantized by Keras.*'hidden': 'int8'.*float model"):
            by_hand(model, callback)


def test_sparse_training_needs_an_optimizer():
    model = keras.Sequential([keras.Input((8,)), L.Dense(4)])
    with pytest.raises(ValueError, match="without an optimizer. Call `compile`"):
        by_hand(model, SparseTraining(0.5))


def test_sparse_training_takes_embeddings_and_recurrent_kernels():
    model = keras.Sequential([keras.Input((6,), dtype="int32"), L.Embedding(20, 8), L.LSTM(8), L.Dense(2)])
    model.compile("adam", "mse")
    sparse = SparseTraining(0.5, distribution="uniform", every=2)
    x = np.random.default_rng(0).integers(0, 20, (32, 6))
    history = model.fit(x, np.zeros((32, 2)), batch_size=8, epochs=2, verbose=0, callbacks=[sparse])
    total = [v.numpy() for v in model.trainable_variables if v.ndim > 1]
    share = sum((v == 0).sum() for v in total) / sum(v.size for v in total)
    assert history.history["sparsity"][-1] == pytest.approx(share) and share > 0.3

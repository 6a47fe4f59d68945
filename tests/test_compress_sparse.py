"""SparseTraining: constant sparsity in every way of training, masks against NumPy references."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.compress import Pruning, SparseTraining
from tfopt.compress.sparse_training.distribution import erdos_renyi_kernel, uniform
from tfopt.compress.sparse_training.rewiring import largest, most_sensitive, rewired

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 32)).astype("float32")
Y = X @ RNG.normal(size=(32, 8)).astype("float32")
SIZES = [2048, 512]


def small_model(optimizer=None, **options):
    layers = [keras.layers.Dense(64, activation="tanh", name="hidden"), keras.layers.Dense(8, name="out")]
    model = keras.Sequential([keras.Input((32,)), *layers])
    model.compile(optimizer or keras.optimizers.Adam(1e-2), "mse", **{"jit_compile": False, **options})
    return model


def fit(model, *callbacks, epochs=4):
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks))


def kernels(model):
    return [layer.kernel.numpy() for layer in model.layers]


def places(model):
    masks = [layer.kernel.constraint.groups.numpy() > 0 for layer in model.layers]
    assert not any(kernel[~mask].any() for kernel, mask in zip(kernels(model), masks))
    return masks


class Record(keras.callbacks.Callback):
    """The places of the connections after every step."""

    def on_train_begin(self, logs=None):
        self.places = []

    def on_train_batch_end(self, batch, logs=None):
        self.places.append(places(self.model))


OPTIMIZERS = {
    "keras adam": lambda: keras.optimizers.Adam(1e-2),
    "decay": lambda: tfopt.optimizers.AdamW(1e-2, weight_decay=0.1, clipnorm=1.0),
    "lookahead": lambda: tfopt.optimizers.Lookahead(tfopt.optimizers.Adam(1e-2), sync_period=3),
    "mixing": lambda: tfopt.optimizers.GradientCentralization(tfopt.optimizers.SGD(1e-2, momentum=0.9)),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_connections_are_constant_in_number_and_move(name):
    model, sparse, record = small_model(OPTIMIZERS[name]()), SparseTraining(0.8, every=4), Record()
    counts = erdos_renyi_kernel([(32, 64), (64, 8)], 0.8)
    assert sum(counts) == round(0.2 * sum(SIZES))
    history = fit(model, sparse, record)
    for masks in record.places:
        assert [np.count_nonzero(mask) for mask in masks] == counts
    changed = [i for i in range(1, 32) if (record.places[i][0] != record.places[i - 1][0]).any()]
    assert changed == [3, 7, 11, 15, 19]  # updates 4, 8, ... in three quarters of 32; the share ends at 0
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert history.history["sparsity"] == pytest.approx([0.8] * 4, abs=1e-3)
    fit(model, epochs=1)  # without the callback
    np.testing.assert_array_equal(places(model)[0], record.places[-1][0])


WAYS = {
    "4 steps at once": (None, {"steps_per_execution": 4}, 5),
    "xla": (None, {"jit_compile": True}, 11),
    "keras accumulation": (lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=4), {}, 2),
    "accumulation": (lambda: tfopt.optimizers.GradientAccumulation(keras.optimizers.Adam(1e-2), 4), {}, 2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["rigl", "set"])
def test_ways_of_training(way, method):
    make, options, moves = WAYS[way]
    model, record = small_model(make and make(), **options), Record()
    fit(model, SparseTraining(0.8, method, every=2), record)
    counts = [np.count_nonzero(mask) for mask in places(model)]
    assert counts == erdos_renyi_kernel([(32, 64), (64, 8)], 0.8)
    assert sum((a[0] != b[0]).any() for a, b in zip(record.places, record.places[1:])) == moves


@pytest.mark.parametrize("method", ["rigl", "snip"])
def test_replicas_train_as_one_device(two_replicas, method):
    results = []
    for scope in (two_replicas.scope, tf.init_scope):
        keras.utils.set_random_seed(0)
        with scope():
            model = small_model(keras.optimizers.SGD(0.01))
        sparse = SparseTraining(0.8, method, every=2)
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[sparse])
        results.append([places(model), kernels(model)])
    for one, two in zip(*(masks for masks, _ in results)):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(*(weights for _, weights in results)):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def gradients_at_the_start(model):
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.ops.square(model(X[:16]) - Y[:16]))
    return [grad.numpy() for grad in tape.gradient(loss, [layer.kernel.value for layer in model.layers])]


@pytest.mark.parametrize("distribution", ["erk", "uniform", "global"])
def test_snip_keeps_what_the_first_batch_is_most_sensitive_to(distribution):
    model = small_model(keras.optimizers.SGD(1e-3))
    scores = [np.abs(w * g) for w, g in zip(kernels(model), gradients_at_the_start(model))]
    model.fit(X[:16], Y[:16], batch_size=16, epochs=4, callbacks=[SparseTraining(0.8, "snip", distribution)])
    if distribution == "global":
        limit = np.sort(np.concatenate([np.ravel(score) for score in scores]))[-512]
        expected = [score >= limit for score in scores]
    else:
        counts = {"erk": erdos_renyi_kernel, "uniform": uniform}[distribution]([(32, 64), (64, 8)], 0.8)
        expected = [score >= np.sort(score, None)[-count] for score, count in zip(scores, counts)]
    for mask, wanted, kernel in zip(places(model), expected, kernels(model)):
        np.testing.assert_array_equal(mask, wanted)
        np.testing.assert_array_equal(kernel != 0, wanted)


def test_rigl_drops_the_weakest_and_grows_the_steepest():
    """One rewiring against NumPy: the weights before, their dense gradient, the masks after."""
    model = small_model(keras.optimizers.SGD(1e-3))
    sparse = SparseTraining(0.8, every=1, drop=0.5, end_step=10, seed=3)
    sparse.set_model(model)
    sparse.set_params({"steps": 1, "epochs": 1})
    sparse.on_train_begin()
    before, masks, gradients = kernels(model), places(model), gradients_at_the_start(model)
    model.train_on_batch(X[:16], Y[:16])
    share = 0.25 * (1 + np.cos(np.pi * 0.1))
    for weight, mask, gradient, after in zip(before, masks, gradients, places(model)):
        moved = round(mask.sum() * share)
        kept = mask & (np.abs(weight) > np.sort(np.abs(weight[mask]))[moved - 1])
        free = np.where(kept, -1.0, np.abs(gradient))
        grown = free >= np.sort(free, None)[-moved]
        np.testing.assert_array_equal(after, kept | grown)


def test_absent_connections_reach_the_optimizer_at_no_time():
    model = small_model(keras.optimizers.SGD(1e-3, momentum=0.9))
    fit(model, SparseTraining(0.8, "snip"), epochs=1)
    for mask, momentum in zip(places(model), [v for v in model.optimizer.variables if len(v.shape) == 2]):
        assert not momentum.numpy()[~mask].any() and momentum.numpy()[mask].all()


def test_a_sparse_model_keeps_its_connections(tmp_path):
    model = small_model()
    fit(model, SparseTraining(0.8, "set", every=2))
    before = [kernel != 0 for kernel in kernels(model)]
    model.save(tmp_path / "s.keras")
    again = keras.models.load_model(tmp_path / "s.keras")
    sparse = SparseTraining(0.7, "rigl", end_step=1, every=2)
    fit(again, sparse, epochs=1)
    for old, new in zip(before, places(again)):
        assert new[old].all() and new.sum() > old.sum()
    pruned = small_model()
    fit(pruned, Pruning(0.8))
    record = Record()
    fit(pruned, SparseTraining(0.8, every=2), record)  # the mask of the pruning does not hold new places back
    assert (record.places[0][0] != record.places[-1][0]).any()
    assert np.count_nonzero(kernels(pruned)[0]) == record.places[-1][0].sum()


def test_distributions():
    shapes = [(3, 3, 3, 32), (1, 1, 32, 64), (1, 1, 512, 512), (512, 10)]
    sizes = np.array([np.prod(shape) for shape in shapes])
    for sparsity in (0.0, 0.5, 0.8, 0.95):
        counts = np.array(erdos_renyi_kernel(shapes, sparsity))
        assert (
            counts.sum() == pytest.approx(sizes.sum() * (1 - sparsity), rel=1e-4) and (counts <= sizes).all()
        )
    densities = np.array(erdos_renyi_kernel(shapes, 0.9)) / sizes
    shares = np.array([sum(shape) for shape in shapes]) / sizes
    free = densities < 1.0
    np.testing.assert_allclose(
        densities[free] / densities[free][0], shares[free] / shares[free][0], rtol=0.02
    )
    assert uniform(shapes, 0.9) == [864, 205, 26214, 512] and uniform([(10, 10)], 0.9) == [10]


def test_exact_counts_with_ties():
    scores = tf.constant([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    np.testing.assert_array_equal(largest(scores, 3), [[1, 1, 0], [0, 1, 0]])
    mask = tf.constant([1.0, 1.0, 1.0, 0.0, 0.0])
    moved = rewired(
        mask, tf.constant([3.0, 0.1, 2.0, 0.0, 0.0]), tf.constant([0.0, 0.5, 0.0, 0.1, 9.0]), 1 / 3
    )
    np.testing.assert_array_equal(moved, [1, 0, 1, 0, 1])
    again = rewired(
        mask, tf.constant([3.0, 0.1, 2.0, 0.0, 0.0]), tf.constant([0.0, 0.5, 0.0, 0.1, 0.2]), 1 / 3
    )
    np.testing.assert_array_equal(again, mask)  # what was dropped grows again if its score is largest
    masks = most_sensitive([tf.ones(3), tf.ones([2, 2])], [tf.constant([1.0, 2, 3]), tf.ones([2, 2])], 2)
    np.testing.assert_array_equal(masks[0], [0, 1, 1])


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"sparsity": 1.0}, ValueError, r"`sparsity` must be a number in \[0, 1\)"),
        ({"sparsity": 80}, ValueError, "80 % of the weights"),
        ({"sparsity": 0.8, "method": "dsr"}, ValueError, "'rigl', 'set', 'snip'"),
        ({"sparsity": 0.8, "distribution": "global"}, ValueError, "'erk', 'uniform'"),
        ({"sparsity": 0.8, "every": 0}, ValueError, "every=0"),
        ({"sparsity": 0.8, "drop": 0.0}, ValueError, "drop=0.0"),
        ({"sparsity": 0.8, "drop": float("nan")}, ValueError, "drop=nan"),
        ({"sparsity": 0.8, "end_step": 0}, ValueError, "end_step=0"),
        ({"sparsity": 0.8, "seed": 1.5}, TypeError, "seed=1.5"),
    ],
)
def test_bad_arguments_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        SparseTraining(**arguments)


def test_bad_models_and_runs_are_named():
    with pytest.raises(ValueError, match="layers that have kernels"):
        fit(small_model(), SparseTraining(0.8, exclude=["nope"]))
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda x, y: True)
    with pytest.raises(ValueError, match="`end_step` must be given when `fit` does not know its steps"):
        small_model().fit(endless, verbose=0, callbacks=[SparseTraining(0.8)])
    small_model().fit(endless, verbose=0, callbacks=[SparseTraining(0.8, end_step=10)])
    frozen = small_model()
    frozen.layers[0].trainable = False
    with pytest.raises(ValueError, match=r"Frozen ones: \['hidden'\]"):
        fit(frozen, SparseTraining(0.8))

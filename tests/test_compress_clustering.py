"""Clustering: few values per kernel in every way of training, zeros kept, k-means against references."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt._tfmot import tfmot
from tfopt.compress import Clustering, Pruning
from tfopt.compress.clustering.centroids import INITIALIZATIONS, centroids_of, nearest
from tfopt.compress.clustering.groups import KeepGroups, value_groups

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 32)).astype("float32")
Y = X @ RNG.normal(size=(32, 8)).astype("float32")


def small_model(optimizer=None, **options):
    layers = [keras.layers.Dense(64, activation="relu", name="hidden"), keras.layers.Dense(8, name="out")]
    model = keras.Sequential([keras.Input((32,)), *layers])
    model.compile(optimizer or keras.optimizers.Adam(1e-2), "mse", **{"jit_compile": False, **options})
    return model


def fit(model, *callbacks, epochs=2):
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks))


def kernels(model):
    return [layer.kernel.numpy() for layer in model.layers]


def distinct(model):
    return [len(np.unique(kernel)) for kernel in kernels(model)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps_per_execution": 4},
        {"jit_compile": True},
        {"optimizer": keras.optimizers.Adam(1e-2, gradient_accumulation_steps=4)},
        {"optimizer": tfopt.optimizers.Lookahead(tfopt.optimizers.Adam(1e-2), sync_period=3)},
    ],
    ids=["graph", "4 steps at once", "xla", "accumulation", "lookahead"],
)
def test_values_are_few_and_train(options):
    model, clustering = small_model(**options), Clustering(8)
    fit(model, epochs=1)  # a model that trained before
    history = fit(model, clustering, epochs=3)
    assert distinct(model) == [8, 8] == list(clustering.unique_values().values())
    assert history.history["loss"][-1] < history.history["loss"][0]
    fit(model, epochs=1)  # without the callback
    assert distinct(model) == [8, 8]


def test_one_update_moves_every_group_by_the_mean_of_its_updates():
    model, rate = small_model(keras.optimizers.SGD(0.05)), 0.05
    before = Clustering(8).clustered(kernels(model)[0].astype("float64"))
    model.layers[0].kernel.assign(before)
    before = kernels(model)[0]
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.ops.square(model(X[:16]) - Y[:16]))
    gradient = tape.gradient(loss, model.layers[0].kernel.value).numpy()
    model.fit(X[:16], Y[:16], batch_size=16, verbose=0, callbacks=[Clustering(8, exclude=["out"])])
    for value in np.unique(before):
        group = before == value
        expected = value - rate * gradient[group].astype("float64").mean()
        np.testing.assert_allclose(kernels(model)[0][group], expected, rtol=1e-5)


def test_replicas_train_as_one_device(two_replicas):
    results = []
    for scope in (two_replicas.scope, tf.init_scope):
        keras.utils.set_random_seed(0)
        with scope():
            model = small_model(keras.optimizers.SGD(0.01))
        model.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[Clustering(8)])
        results.append(kernels(model))
        assert distinct(model) == [8, 8]
    for one, two in zip(*results):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_zeros_stay_and_both_survive_save_load_and_fit(tmp_path):
    model = small_model()
    fit(model, Pruning(0.5), epochs=3)
    kept = [kernel != 0 for kernel in kernels(model)]
    fit(model, Clustering(8))
    model.save(tmp_path / "c.keras")
    again = keras.models.load_model(tmp_path / "c.keras")
    before = kernels(again)
    clustering = Clustering(8)
    clustering.set_model(again)
    clustering.on_train_begin()
    for old, new in zip(before, kernels(again)):
        np.testing.assert_array_equal(old, new)  # what is clustered already is not clustered anew
    fit(again, clustering)
    for mask, kernel in zip(kept, kernels(again)):
        np.testing.assert_array_equal(kernel != 0, mask)
        assert len(np.unique(kernel)) == 8
    fit(again, Clustering(8, preserve_sparsity=False))
    assert distinct(again) == [8, 8]


def test_averages_of_clustered_weights_are_clustered():
    model = small_model()
    fit(model, Clustering(8))
    fit(model, tfopt.callbacks.WeightAveraging(decay=0.9), epochs=2)
    assert distinct(model) == [8, 8]


def test_per_channel_and_excluded_layers():
    layers = [
        keras.layers.Conv2D(8, 3, name="stem"),
        keras.layers.DepthwiseConv2D(3, name="depthwise"),
        keras.layers.Conv2D(4, 1, name="point"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(8, name="head"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    model.compile("adam", "mse")
    images = RNG.normal(size=(16, 8, 8, 3)).astype("float32")
    clustering = Clustering(4, per_channel=True, exclude=["he*"])
    model.fit(images, Y[:16], batch_size=4, verbose=0, callbacks=[clustering])
    assert clustering.unique_values() == {"stem": 4, "point": 4}
    assert len(np.unique(layers[0].kernel.numpy())) == 4 * 8
    assert len(np.unique(layers[1].kernel.numpy())) == 72


def test_kmeans_finds_the_best_split_of_a_small_set():
    values = np.random.default_rng(1).normal(size=12)
    ordered = np.sort(values)
    splits = itertools.combinations(range(1, 12), 3)
    best = min(sum(p.var() * len(p) for p in np.split(ordered, split)) for split in splits)
    errors = []
    for seed in range(20):
        centroids = centroids_of(values, 4, "kmeans++", seed)
        errors.append(np.square(values - nearest(values, centroids)).sum())
    assert min(errors) == pytest.approx(best) and np.median(errors) < 2.5 * best


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_kmeans_ends_where_every_centroid_is_the_mean_of_its_weights(initialization):
    values = np.random.default_rng(0).normal(size=5000)
    centroids = centroids_of(values, 16, initialization)
    assigned = np.abs(values[:, None] - centroids).argmin(axis=1)
    np.testing.assert_array_equal(nearest(values, centroids), centroids[assigned])
    means = [values[assigned == k].mean() for k in range(16)]
    np.testing.assert_allclose(centroids, means, atol=0.01)


def test_closer_to_the_weights_than_tfmot():
    """tfmot's centroids for the same kernel, by its own code."""
    tfmot()
    module = __import__(
        "tensorflow_model_optimization.python.core.clustering.keras.clustering_centroids", fromlist=["x"]
    )
    weights = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    kinds = {
        "kmeans++": module.KmeansPlusPlusCentroidsInitialisation,
        "linear": module.LinearCentroidsInitialisation,
    }
    for name, kind in kinds.items():
        theirs = np.sort(kind(tf.constant(weights), 16).get_cluster_centroids().numpy())
        if name == "linear":
            np.testing.assert_allclose(INITIALIZATIONS[name](np.sort(weights, None), 16, 0), theirs, 1e-4)
        error = np.square(weights - nearest(weights, theirs)).mean()
        ours = np.square(weights - nearest(weights, centroids_of(weights, 16, name))).mean()
        assert ours < 0.95 * error, name


def test_groups_are_applied_twice_without_a_change():
    weights = np.round(np.random.default_rng(0).normal(size=(999, 501)), 1).astype("float32")
    groups = value_groups(weights, per_channel=False, keep_zeros=True)
    assert set(np.unique(groups[weights == 0])) == {0} and groups.max() == len(np.unique(weights)) - 1
    constraint = KeepGroups(tf.constant(groups), int(groups.max()))
    np.testing.assert_array_equal(constraint(tf.constant(weights)), weights)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"clusters": 1}, ValueError, "`clusters` must be an integer >= 2"),
        ({"clusters": 8.0}, TypeError, "clusters=8.0"),
        ({"clusters": True}, TypeError, "clusters=True"),
        ({"clusters": 8, "per_channel": 1}, TypeError, "per_channel"),
        ({"clusters": 8, "initialization": "random"}, ValueError, r"'kmeans\+\+', 'linear'"),
        ({"clusters": 8, "seed": -1}, ValueError, "seed=-1"),
    ],
)
def test_bad_arguments_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        Clustering(**arguments)


def test_bad_models_are_named():
    with pytest.raises(ValueError, match=r"hidden: has 2048 weights, fewer than clusters=3000"):
        fit(small_model(), Clustering(3000))
    with pytest.raises(ValueError, match="hidden: has 32 weights a channel, fewer than"):
        fit(small_model(), Clustering(33, per_channel=True, exclude=["out"]))
    with pytest.raises(ValueError, match="layers that have kernels"):
        fit(small_model(), Clustering(8, exclude=["nope"]))
    unbuilt = keras.Sequential([keras.layers.Dense(8)])
    unbuilt.compile("adam", "mse")
    with pytest.raises(ValueError, match="must be built"):
        fit(unbuilt, Clustering(8))
    broken = small_model()
    broken.layers[0].kernel.assign(np.full((32, 64), np.nan))
    with pytest.raises(ValueError, match=r"finite.*hidden"):
        fit(broken, Clustering(8))

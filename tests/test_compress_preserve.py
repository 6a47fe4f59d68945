"""Prune, cluster, quantize: no stage undoes the former, counted in the weights and in the int8 file."""

import keras
import numpy as np
import pytest

from tfopt.compress import Clustering, Pruning, export, quantize_aware
from tfopt.compress.quantization.preserve import kept_in

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.uniform(0, 255, (128, 12, 12, 3)).round().astype("float32")
Y = (X[:, :6, :6, 0].mean((1, 2)) > X[:, 6:, 6:, 1].mean((1, 2))).astype(int)
CLUSTERED = ("stem", "point", "head")


def small_mobilenet(signs=(1.0,)):
    x = inputs = keras.Input((12, 12, 3))
    x = L.Rescaling(1 / 127.5, -1.0)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, use_bias=False, name="stem")(x)))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, use_bias=False)(x)))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(32, 1, use_bias=False, name="point")(x)))
    x = L.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, L.Dense(2, activation="softmax", name="head")(x))
    for variable in model.weights:
        if "gamma" in variable.path:
            shape = variable.shape
            variable.assign(RNG.uniform(0.5, 2.0, shape) * RNG.choice(signs, shape))
    return model


def train(model, *callbacks, epochs=2):
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def kernels(model):
    return {name: model.get_layer(name).kernel.numpy() for name in CLUSTERED}


def in_file(model, path):
    """Zeros and distinct values of the clustered kernels, read back from the int8 file."""
    weights = export(model, path, "int8").inspect().kernels
    found = {name: weight for name in CLUSTERED for weight in weights if f"/{name}_" in weight.name}
    assert all(weight.dtype == "int8" for weight in found.values())
    return {name: (found[name].zeros, found[name].unique_values) for name in CLUSTERED}


@pytest.fixture(scope="module")
def pruned():
    keras.utils.set_random_seed(0)
    return train(small_mobilenet(), Pruning(0.5), epochs=3)


@pytest.fixture(scope="module")
def both(pruned):
    model = keras.models.clone_model(pruned)
    model.set_weights(pruned.get_weights())
    train(model, Clustering(6))
    for old, new in zip(kernels(pruned).values(), kernels(model).values()):
        np.testing.assert_array_equal(old == 0, new == 0)
        assert len(np.unique(new)) == 6
    return model


def test_zeros_stay_in_the_file(pruned, tmp_path):
    quantized = train(quantize_aware(pruned, "sparsity", freeze_batch_norm=False))
    for old, new in zip(kernels(pruned).values(), kernels(quantized).values()):
        np.testing.assert_array_equal(old == 0, new == 0)
    assert all(zeros >= 0.5 for zeros, _ in in_file(quantized, tmp_path / "q.tflite").values())
    free = train(quantize_aware(pruned))
    assert all((kernel == 0).mean() < 0.1 for kernel in kernels(free).values())


def test_zeros_and_clusters_stay_in_the_file_and_after_save_load_and_fit(both, tmp_path):
    quantized = train(quantize_aware(both, "both"))
    quantized.save(tmp_path / "q.keras")
    quantized = train(keras.models.load_model(tmp_path / "q.keras"))
    changed = [np.abs(old - new).max() for old, new in zip(*(kernels(m).values() for m in (both, quantized)))]
    assert min(changed) > 0.0
    for old, new in zip(kernels(both).values(), kernels(quantized).values()):
        np.testing.assert_array_equal(old == 0, new == 0)
        assert len(np.unique(new)) == 6
    for zeros, values in in_file(quantized, tmp_path / "q.tflite").values():
        assert zeros >= 0.5 and values <= 6


def test_clusters_alone_stay_in_the_file(both, tmp_path):
    quantized = train(quantize_aware(both, "clusters"))
    assert all(len(np.unique(kernel)) == 6 for kernel in kernels(quantized).values())
    assert all(values <= 6 for _, values in in_file(quantized, tmp_path / "q.tflite").values())


def test_negative_batch_norm_scales_mirror_the_values(tmp_path):
    model = train(small_mobilenet(signs=(-1.0, 1.0)), Clustering(6))
    counts = in_file(train(quantize_aware(model, "clusters")), tmp_path / "q.tflite")
    assert 6 < counts["stem"][1] <= 12 and counts["head"][1] <= 6


def test_clusters_of_each_channel_keep_a_scale_of_their_own(tmp_path):
    model = train(small_mobilenet(), Clustering(4, per_channel=True))
    quantized = train(quantize_aware(model, "clusters"))
    for kernel in kernels(quantized).values():
        assert max(len(np.unique(channel)) for channel in np.moveaxis(kernel, -1, 0)) == 4
    assert not quantized.get_layer("stem").one_scale
    assert in_file(quantized, tmp_path / "q.tflite")["stem"][1] > 8


def test_replicas_keep_zeros_and_clusters(both, two_replicas):
    with two_replicas.scope():
        quantized = quantize_aware(both, "both")
        quantized.compile("adam", "sparse_categorical_crossentropy")
    quantized.fit(X, Y, verbose=0)
    for old, new in zip(kernels(both).values(), kernels(quantized).values()):
        np.testing.assert_array_equal(old == 0, new == 0)
        assert len(np.unique(new)) == 6


def test_what_is_kept_is_read_from_the_kernel():
    random = np.random.default_rng(0)
    free = random.normal(size=(3, 3, 4, 8)).astype("float32")
    assert kept_in(free, "both") is None and kept_in(free, None) is None
    sparse = np.where(np.abs(free) > 1.0, free, 0.0)
    assert kept_in(sparse, "clusters") is None
    assert kept_in(sparse, "both").options == {"clusters": 0}
    np.testing.assert_array_equal(kept_in(sparse, "sparsity").groups > 0, sparse != 0)
    shared = random.choice([-0.5, 0.0, 0.25, 1.0], size=(3, 3, 4, 8))
    assert kept_in(shared, "both").options == {"clusters": 3, "one_scale": True}
    assert kept_in(shared, "clusters").options == {"clusters": 4, "one_scale": True}
    own = shared * np.arange(1.0, 9.0) ** 3.1
    assert kept_in(own, "both").options == {"clusters": 24, "one_scale": False}


def test_nothing_to_keep_is_named():
    model = small_mobilenet()
    with pytest.raises(ValueError, match=r"`preserve` must be None for a model without.*'both'"):
        quantize_aware(model, "both")
    with pytest.raises(ValueError, match="one of None, 'sparsity', 'clusters', 'both'"):
        quantize_aware(model, "zeros")

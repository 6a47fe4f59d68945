"""PCA against scikit-learn's, as a stream, wide, whitened, saved; maps to the plane."""

import keras
import numpy as np
import pytest
import sklearn.decomposition
import tensorflow as tf

from tfopt import compress
from tfopt.data import PCA, embed_2d, reduce

rng = np.random.default_rng(0)
X = (rng.normal(size=(300, 20)) * 0.7 ** np.arange(20)) @ rng.normal(size=(20, 20)) + 50


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("whiten", [False, True])
def test_equals_scikit_learn(wide, whiten, monkeypatch):
    if wide:
        monkeypatch.setattr(reduce, "_WIDE", 10)
    other = sklearn.decomposition.PCA(5, whiten=whiten, svd_solver="full").fit(X)
    pca = PCA(5, whiten=whiten)
    pca.adapt(tf.data.Dataset.from_tensor_slices((X, np.zeros(300))).batch(64))
    for ours, theirs in (
        (pca.explained_variance_ratio, other.explained_variance_ratio_),
        (np.abs(pca.components), np.abs(other.components_)),
        (np.abs(pca(X)), np.abs(other.transform(X))),
        (pca.inverse(pca(X)), other.inverse_transform(other.transform(X))),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_is_saved_in_a_model(tmp_path):
    pca = PCA(3, whiten=True)
    pca.adapt(X)
    model = keras.Sequential([keras.Input((20,)), pca])
    model.save(tmp_path / "pca.keras")
    again = keras.models.load_model(tmp_path / "pca.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert not again.trainable_weights
    np.testing.assert_allclose(np.std(again.predict(X, verbose=0), 0, ddof=1), 1, rtol=1e-3)


def test_works_inside_an_exported_file(tmp_path):
    images = rng.integers(0, 255, (48, 4, 4, 3)).astype("float32")
    inputs = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    pca = PCA(6, whiten=True)
    pca.adapt(keras.Model(inputs, flat).predict(images, verbose=0))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(pca(flat)))
    expected = model.predict(images, verbose=0)
    plain = compress.export(model, tmp_path / "plain.tflite", input_type="float32")
    np.testing.assert_allclose(plain.predict(images), expected, atol=1e-5)
    small = compress.export(model, tmp_path / "int8.tflite", quantization="int8", representative_data=images)
    assert np.mean(small.predict(images).argmax(-1) == expected.argmax(-1)) > 0.9


def test_refuses_what_it_cannot_learn_from():
    for data in (X[:3], X[:, :3], X[None], np.where(X > 50, np.nan, X)):
        with pytest.raises(ValueError, match="`n_components`|`data`"):
            PCA(5).adapt(data)
    for empty in (np.zeros((0, 4)), tf.data.Dataset.from_tensor_slices(np.zeros((9, 4))).batch(3).take(0)):
        with pytest.raises(ValueError, match="`data` must be with examples"):
            PCA(2).adapt(empty)
    for value in (0, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="n_components"):
            PCA(value)


def test_maps_to_the_plane_keep_clusters_apart(caplog, monkeypatch):
    points = np.concatenate([rng.normal(size=(10, 8)) + 20 * i for i in range(3)])
    monkeypatch.setattr(reduce, "_MANY", 25)
    for method in ("pca", "tsne"):
        plane = embed_2d(points, method)
        assert plane.shape == (30, 2)
        inner = max(np.ptp(plane[i : i + 10], 0).max() for i in (0, 10, 20))
        centres = [plane[i : i + 10].mean(0) for i in (0, 10, 20)]
        assert min(np.linalg.norm(centres[0] - centre) for centre in centres[1:]) > inner / 2
    assert "t-SNE of 30" in caplog.text
    with pytest.raises(ValueError, match="features"):
        embed_2d(points[0])


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_features_of_a_dead_model_are_one_point(method):
    assert embed_2d(np.ones((9, 4)), method).tolist() == [[0, 0]] * 9  # scikit-learn's t-SNE crashed
    few = embed_2d(np.repeat(np.eye(4), 3, 0), method)  # and not where some are equal
    assert few.shape == (12, 2) and np.isfinite(few).all()

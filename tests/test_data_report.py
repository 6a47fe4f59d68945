"""What the data tells the report: the classes in the plane, the counts before and after balancing."""

import keras
import numpy as np
import pytest

from tfopt.data import load
from tfopt.report import Report, embed, write

LABELS = np.repeat([0, 1, 2], [30, 20, 4])
IMAGES = np.zeros((54, 4, 4, 3), np.uint8)
IMAGES[np.arange(54), LABELS] = np.random.default_rng(0).integers(100, 255, (54, 4, 3))


def model():
    layers = [keras.layers.Flatten(), keras.layers.Rescaling(1 / 255, name="features")]
    return keras.Sequential([keras.Input((4, 4, 3)), *layers, keras.layers.Dense(3, "softmax")])


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_classes_that_differ_lie_apart_in_the_plane(method):
    found = embed(model(), IMAGES, LABELS, method)
    assert found.points.shape == (54, 2) and np.array_equal(found.labels, LABELS)
    centres = np.stack([found.points[label == LABELS].mean(0) for label in range(3)])
    distances = np.linalg.norm(found.points[:, None] - centres, axis=-1)
    assert np.mean(distances.argmin(1) == LABELS) > 0.95


def test_a_sample_is_named_and_stands_in_the_report(tmp_path):
    found = embed(model(), IMAGES, LABELS, "pca", most=20, seed=1)
    assert len(found.points) == 20 and "PCA of 20 of 54 images" in found.method
    again = embed(model(), IMAGES, LABELS, "pca", most=20, seed=1)
    np.testing.assert_array_equal(found.labels, again.labels)
    page = write(tmp_path / "r.html", Report("R", ["a", "b", "c"], embedding=found)).read_text()
    assert "Map of the images" in page and "20 of 54" in page and page.count("<circle") == 20
    for options in ({"labels": LABELS[:3]}, {"most": 2}, {"method": "umap"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            embed(**({"model": model(), "images": IMAGES, "labels": LABELS} | options))


def test_a_loaded_model_is_understood(tmp_path):
    model().save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    expected = embed(model(), IMAGES, LABELS, "pca").points
    np.testing.assert_allclose(embed(loaded, IMAGES, LABELS, "pca").points, expected, atol=1e-5)


def test_the_report_shows_counts_before_and_after(tmp_path):
    data = load((IMAGES, LABELS), validation_split=0, test_split=0)
    balanced = data.balanced("oversample").class_counts["train"]
    report = Report("R", data.class_names, class_counts=data.class_counts, balanced_counts=balanced)
    page = write(tmp_path / "r.html", report).read_text()
    assert "an epoch has 90 images" in page and "4 → 30" in page and "30 → 30" in page
    with pytest.raises(ValueError, match="balanced_counts"):
        Report("R", ["a", "b"], balanced_counts=[1])

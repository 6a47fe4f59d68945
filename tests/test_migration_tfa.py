"""The page for users of TensorFlow Addons: its names exist, its losses are those of the definitions."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest

import tfopt

PAGE = (pathlib.Path(tfopt.__file__).parent.parent / "docs" / "migration_tfa.md").read_text(encoding="utf-8")
# Names that the oldest supported Keras does not have, which the page says.
NEWER = ("Adaptive",)


def losses():
    found = {}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/migration_tfa.md", "exec"), found)
    return found


def test_every_home_exists():
    names = set(re.findall(r"`((?:keras|tfopt)(?:\.\w+)+)", PAGE))
    assert len(names) > 30
    for name in names:
        if not any(word in name for word in NEWER):
            package, *parts = name.split(".")
            functools.reduce(getattr, parts, {"keras": keras, "tfopt": tfopt}[package])


def test_pairs_and_quantiles():
    found = losses()
    same, distances = np.array([1, 0, 0]), np.array([0.5, 0.25, 2.0], "float32")
    np.testing.assert_allclose(found["contrastive_loss"](same, distances), [0.25, 0.5625, 0.0])
    truth, predicted = np.array([[1.0, 3.0]]), np.array([[2.0, 1.0]], "float32")
    np.testing.assert_allclose(found["pinball_loss"](truth, predicted, 0.9), [(0.1 + 1.8) / 2], rtol=1e-6)


def reference(labels, embeddings, margin):
    """Semi-hard triplets one by one: Schroff et al., FaceNet, arXiv:1503.03832."""
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    total, count = 0.0, 0
    for anchor, row in enumerate(distances):
        negatives = row[labels != labels[anchor]]
        for positive in np.flatnonzero(labels == labels[anchor]):
            if positive != anchor:
                farther = negatives[negatives > row[positive]]
                negative = farther.min() if len(farther) else negatives.max()
                total, count = total + max(0.0, margin + row[positive] - negative), count + 1
    return total / count


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_semi_hard_triplets(margin):
    rng = np.random.default_rng(0)
    labels, embeddings = rng.integers(0, 4, 24), rng.normal(size=(24, 5))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = losses()["triplet_semihard_loss"](labels, embeddings.astype("float32"), margin)
    np.testing.assert_allclose(found, reference(labels, embeddings, margin), rtol=1e-5)


def test_embeddings_learn_by_the_triplet_loss():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)
    inputs = (rng.normal(size=(96, 8)) + 2 * np.eye(8)[labels]).astype("float32")
    layers = [keras.layers.Dense(8), keras.layers.UnitNormalization()]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(keras.optimizers.Adam(0.05), losses()["triplet_semihard_loss"])
    history = model.fit(inputs, labels, epochs=12, batch_size=32, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < 0.8 * history[0]

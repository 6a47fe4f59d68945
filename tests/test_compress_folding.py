"""`folded`: batch normalization disappears in convolutions, results stay, and so does the model."""

import keras
import numpy as np

from tfopt.compress._folding import folded

L = keras.layers


def network():
    """Every kind of convolution that a normalization can disappear in, and three in which it cannot."""
    x = inputs = keras.Input((9, 9, 3))
    x = L.BatchNormalization(name="alone")(x)
    x = L.BatchNormalization(name="a")(L.Conv2D(4, 3, name="free")(x))
    x = L.ReLU(6.0)(L.BatchNormalization(scale=False)(L.DepthwiseConv2D(3, depth_multiplier=2)(x)))
    inner = keras.Sequential([keras.Input((5, 5, 8)), L.Conv2D(6, 1, use_bias=False), L.BatchNormalization()])
    x = inner(x)
    x = L.BatchNormalization(name="late")(L.Conv2D(6, 1, activation="relu")(x))
    y = L.Conv2D(6, 3, padding="same", name="shared")(x)
    x = L.Add()([y, L.BatchNormalization(name="other", center=False)(y)])
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def test_the_copy_predicts_the_same_without_normalizations_behind_convolutions():
    model, random = network(), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.2, 1.5, weight.shape) * (1 if "variance" in weight.path else 0.3))
    before = model.get_weights()
    copy = folded(model)
    images = random.normal(size=(4, 9, 9, 3)).astype("float32")
    np.testing.assert_allclose(copy(images), model(images, training=False), rtol=1e-5, atol=1e-5)
    left = [layer.name for layer in copy.layers if isinstance(layer, L.BatchNormalization)]
    assert left == ["alone", "late", "other"]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    assert model.get_layer("a").output is not None, "its layers have not been called once more"

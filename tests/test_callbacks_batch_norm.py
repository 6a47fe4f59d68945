"""Re-estimated batch-norm statistics against NumPy, and what must not change."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt._batch_norm import Reestimation, reestimate


def build(inputs=(6, 6, 3)):
    model = keras.Sequential(
        [
            keras.Input(inputs),
            keras.layers.BatchNormalization(name="first"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.Sequential([keras.layers.BatchNormalization(name="second", momentum=0.7)]),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.get_layer("first").trainable = False
    return model


def reference(model, batches):
    """Float64: pooled moments of each layer's inputs, layers normalized by their batch."""
    first, conv, _, nested, *_ = model.layers
    second = nested.layers[0]
    kernel, bias = (w.numpy().astype("f8") for w in conv.weights)
    inputs = {"first": [], "second": []}
    for x in batches:
        x = x.astype("f8")
        inputs["first"].append(x)
        x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + first.epsilon)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
        inputs["second"].append(np.maximum(np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias, 0))
    pooled = {name: np.concatenate(parts) for name, parts in inputs.items()}
    return {
        layer: (pooled[name].mean((0, 1, 2)), pooled[name].var((0, 1, 2)))
        for layer, name in ((first, "first"), (second, "second"))
    }


def test_equals_pooled_moments_and_touches_nothing_else():
    model = build()
    data = (np.random.default_rng(0).normal(size=(22, 6, 6, 3)) * [1, 5, 0.1] + [0, 9, -3]).astype("f")
    dataset = tf.data.Dataset.from_tensor_slices((data, np.zeros(22))).batch(8)
    before = {v.path: v.numpy() for v in model.variables}
    reestimate(model, dataset)
    for layer, (mean, variance) in reference(model, [data[:8], data[8:16], data[16:]]).items():
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
        assert "call" not in vars(layer) and layer.momentum in (0.99, 0.7)
    changed = {v.path for v in model.variables if not np.array_equal(v.numpy(), before[v.path])}
    assert all("moving" in path for path in changed) and len(changed) == 4
    assert not model.get_layer("first").trainable


def test_steps_layers_and_plain_iterables():
    model = build()
    rng = np.random.default_rng(1)
    batches = [rng.normal(size=(n, 6, 6, 3)).astype("f") for n in (5, 5, 3)]
    second = model.layers[3].layers[0]
    reestimate(model, batches, steps=2, layers=[model.get_layer("first")])
    assert not np.any(second.moving_mean)
    reestimate(model, batches, steps=2)
    for layer, (mean, _) in reference(model, batches[:2]).items():
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4, atol=1e-6)


def test_a_shared_layer_pools_its_calls_and_masks_count():
    shared = keras.layers.BatchNormalization()
    a, b = keras.Input((4, 2)), keras.Input((4, 2))
    model = keras.Model([a, b], [shared(keras.layers.Masking(0.0)(a)), shared(b)])
    x = np.random.default_rng(2).normal(size=(3, 4, 2)).astype("f")
    x[:, 2:] = 0.0
    y = x + 5
    reestimate(model, [((x, y),)])
    pooled = np.concatenate([x[:, :2].reshape(-1, 2), y.reshape(-1, 2)]).astype("f8")
    np.testing.assert_allclose(shared.moving_mean, pooled.mean(0), rtol=1e-5)
    np.testing.assert_allclose(shared.moving_variance, pooled.var(0), rtol=1e-5)


def test_a_second_time_the_graph_is_there_and_the_weights_are_new():
    model, traces = build(), []
    conv = model.layers[1]
    inner = conv.call
    conv.call = lambda *arguments, **options: traces.append(1) or inner(*arguments, **options)
    batches = [np.random.default_rng(4).normal(size=(6, 6, 6, 3)).astype("f")]
    again = Reestimation(model)
    again(batches)
    conv.kernel.assign(3 * conv.kernel)
    again(batches)
    for layer, (mean, variance) in reference(model, batches).items():
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
    assert len(traces) == 1


def test_under_a_strategy(two_replicas):
    data = np.random.default_rng(3).normal(size=(8, 6, 6, 3)).astype("f")
    with two_replicas.scope():
        model = build()
    reestimate(model, [data])
    np.testing.assert_allclose(
        model.get_layer("first").moving_mean, data.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
    )


def test_empty_data_and_models_without_batch_norm():
    with pytest.raises(ValueError, match="at least one batch"):
        reestimate(build(), [])
    with pytest.raises(ValueError, match="steps"):
        reestimate(build(), [], steps=0)
    reestimate(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), [])

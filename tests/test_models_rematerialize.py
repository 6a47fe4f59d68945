"""Gradient checkpointing: the same training with fewer activations in memory."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tfopt.models import rematerialize

L = keras.layers
X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 2)).astype("float32")


def residual(inputs_count=1):
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((8,), name=f"in_{i}") for i in range(inputs_count)]
    x = L.Add(name="joined")(inputs) if inputs_count > 1 else inputs[0]
    for block in range(4):
        y = L.Dense(8, "relu", name=f"dense_{block}")(x)
        y = L.Dropout(0.3, seed=block)(L.BatchNormalization(momentum=0.5)(y))
        x = L.Add(name=f"add_{block}")([x, y])
    return keras.Model(
        inputs if inputs_count > 1 else inputs[0], L.Dense(2, kernel_regularizer="l2", name="head")(x)
    )


def train(model, x=X, **options):
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    return model.fit(x, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]


@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": False},
        pytest.param({"run_eagerly": True}, marks=pytest.mark.full),
        {"jit_compile": True},
    ],
)
def test_training_is_equal_with_dropout_and_batch_normalization(options):
    plain, original = residual(), residual()
    saving = rematerialize(original)
    np.testing.assert_allclose(train(saving, **options), train(plain, **options), rtol=1e-5)
    for mine, other in zip(original.weights, plain.weights, strict=True):  # the given model is trained
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6, err_msg=mine.path)


def test_parts_are_cut_between_blocks_and_by_name():
    model = residual()
    names = [[layer.name for layer in part.part.layers] for part in rematerialize(model, 2).layers[1:]]
    assert len(names) == 2 and names[0][-1].startswith("add_")
    cut = rematerialize(model, ["add_0", "add_2"]).layers[1:]
    assert [part.part.layers[-1].name for part in cut][:2] == ["add_0", "add_2"]
    with pytest.raises(ValueError, match="Possible are: .*add_0"):
        rematerialize(model, ["dense_1"])


def test_several_inputs_keep_what_is_before_the_first_cut():
    plain, original = residual(2), residual(2)
    saving = rematerialize(original, ["joined", "add_1"])
    loss = train(saving, [X, X], jit_compile=False)
    np.testing.assert_allclose(loss, train(plain, [X, X], jit_compile=False), rtol=1e-5)


def test_a_saved_one_loads_and_predicts_alike(tmp_path):
    saving = rematerialize(residual())
    saving.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(X), saving(X), rtol=1e-6)


def test_subclassed_models_are_refused_with_the_way_out():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="Rematerialized"):
        rematerialize(Own())


MEASURE = """
import resource, sys, keras, numpy as np
from tfopt.models import rematerialize
x = inputs = keras.Input((512,))
for _ in range(40):
    x = keras.layers.Dense(512, "gelu")(x)
model = keras.Model(inputs, x)
model = rematerialize(model) if sys.argv[1] == "saving" else model
model.compile("sgd", "mse", jit_compile=False)
data = np.ones((8192, 512), "float32")
model.train_on_batch(data[:8], data[:8])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.train_on_batch(data, data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_the_peak_of_memory_is_less_than_half():
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEASURE, kind], capture_output=True, check=True, text=True
            ).stdout
        )
        for kind in ("plain", "saving")
    ]
    print(peaks)
    assert peaks[1] < 0.5 * peaks[0]

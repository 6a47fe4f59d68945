"""Pruning: exact sparsity in every way of training, masks that survive, masks equal to tfmot's."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt._tfmot import tfmot
from tfopt.compress import CubicSparsity, OneShotSparsity, Pruning, SparseTraining
from tfopt.compress.pruning.masks import block_mask, magnitude_mask, two_of_four_mask

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 32)).astype("float32")
Y = X @ RNG.normal(size=(32, 8)).astype("float32")
EXACT = [round(2048 * 0.8) / 2048, round(512 * 0.8) / 512]


def small_model(optimizer=None, **options):
    layers = [keras.layers.Dense(64, activation="relu", name="hidden"), keras.layers.Dense(8, name="out")]
    model = keras.Sequential([keras.Input((32,)), *layers])
    model.compile(optimizer or keras.optimizers.Adam(1e-2), "mse", **{"jit_compile": False, **options})
    return model


def fit(model, *callbacks, epochs=4):
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks))


def zeros(model):
    return [float(np.mean(layer.kernel.numpy() == 0)) for layer in model.layers]


@pytest.mark.parametrize(
    "options",
    [{}, {"steps_per_execution": 4}],
    ids=["graph", "4 steps at once"],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_target_is_reached_exactly(options, scope):
    model, pruning = small_model(**options), Pruning(0.8, scope=scope)
    history = fit(model, pruning)
    assert history.history["sparsity"][-1] == pytest.approx(0.8, abs=1e-3)
    assert list(pruning.sparsity().values()) == zeros(model)
    if scope == "layer":
        assert zeros(model) == EXACT
    else:
        hidden, out = (np.abs(layer.kernel.numpy()) for layer in model.layers)
        assert zeros(model) != EXACT
        # Weights train on after the last mask, but the smallest survivors are of one size in both layers.
        assert 0.2 < np.min(hidden[hidden > 0]) / np.min(out[out > 0]) < 5


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=4),
        lambda: tfopt.optimizers.GradientAccumulation(tfopt.optimizers.Adam(1e-2), steps=4),
        lambda: tfopt.optimizers.GradientAccumulation(
            keras.optimizers.Adam(1e-2), tfopt.schedules.Steps({0: 16, 128: 64}), micro_batch_size=16
        ),
    ],
    ids=["keras", "wrapper", "wrapper with a schedule"],
)
def test_gradient_accumulation_reaches_the_target(optimizer):
    model = small_model(optimizer())
    fit(model, Pruning(0.8))
    assert zeros(model) == EXACT


def test_zeros_survive_an_outer_lookahead_averaging_save_load_and_fit(tmp_path):
    """Everything that writes weights at once: slow weights, averages, another run."""
    make = lambda: tfopt.optimizers.Lookahead(tfopt.optimizers.AdamW(1e-2), sync_period=3)  # noqa: E731
    model = small_model(make())
    fit(model, Pruning(0.8))
    assert zeros(model) == EXACT
    kept = [layer.kernel.numpy() != 0 for layer in model.layers]
    fit(model, tfopt.callbacks.WeightAveraging(decay=0.9), epochs=2)
    assert zeros(model) == EXACT
    model.save(tmp_path / "pruned.keras")
    again = keras.models.load_model(tmp_path / "pruned.keras")
    fit(again, Pruning(0.8), tfopt.callbacks.WeightAveraging("swa"), epochs=2)
    fit(again, epochs=1)
    for mask, layer in zip(kept, again.layers):
        np.testing.assert_array_equal(layer.kernel.numpy() != 0, mask)


class Interruption(keras.callbacks.Callback):
    """Ends the run in the middle of its third epoch."""

    armed = False

    def on_train_batch_end(self, batch, logs=None):
        if Interruption.armed and self.model.optimizer.iterations == 20:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "make", [lambda: Pruning(0.8), lambda: SparseTraining(0.8, "set", every=5)], ids=["pruning", "set"]
)
def test_an_interrupted_run_goes_on_with_the_same_masks(make, tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    results = []
    for attempts in ([False], [True, False]):
        for Interruption.armed in attempts:
            keras.utils.set_random_seed(0)
            model = small_model()
            resume = tfopt.callbacks.Resume(tmp_path / str(len(attempts)), every_seconds=0)
            callbacks = [resume, make(), Interruption()]
            with contextlib.suppress(KeyboardInterrupt):
                model.fit(data, epochs=4, verbose=0, callbacks=callbacks)
        assert model.optimizer.iterations == 32
        results.append(model.get_weights())
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def test_frozen_layers_are_named(caplog):
    model = small_model()
    model.layers[0].trainable = False
    fit(model, Pruning(0.8, exclude=["hidden"]), epochs=1)
    assert not caplog.records
    fit(model, Pruning(0.8))
    assert "['hidden']" in caplog.text and zeros(model) == [0.0, EXACT[1]]
    fit(model, Pruning(0.8, scope="global"))
    assert zeros(model)[0] == 0.0 and zeros(model)[1] > 0.7


def test_averaging_during_pruning_ends_with_the_last_mask():
    """An average over masks is not sparse; the constraint prunes it again."""
    model = small_model()
    fit(model, Pruning(0.8), tfopt.callbacks.WeightAveraging(decay=0.99))
    assert zeros(model) == EXACT


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_replicas_hold_the_same_pruned_weights(two_replicas, scope):
    with two_replicas.scope():
        model = small_model()
    fit(model, Pruning(0.8, scope=scope))
    first, second = (value.numpy() for value in model.layers[0].kernel.value.values)
    np.testing.assert_array_equal(first, second)
    zero = sum(np.count_nonzero(layer.kernel.numpy() == 0) for layer in model.layers)
    assert zero / 2560 == pytest.approx(0.8, abs=1e-3)


def test_pruning_a_model_that_trained_before():
    model = small_model()
    fit(model, epochs=1)
    fit(model, Pruning(0.8))
    assert zeros(model) == EXACT


def test_zeros_survive_save_load_and_further_training(tmp_path):
    model = small_model()
    fit(model, Pruning(0.8))
    kept = [layer.kernel.numpy() != 0 for layer in model.layers]
    fit(model, epochs=1)  # without the callback
    model.compile("adam", "mse")
    fit(model, epochs=1)  # and with another optimizer
    model.save(tmp_path / "pruned.keras")
    again = keras.models.load_model(tmp_path / "pruned.keras")
    fit(again, Pruning(0.5))  # a lower target does not bring weights back
    for mask, before, after in zip(kept, model.layers, again.layers):
        np.testing.assert_array_equal(before.kernel.numpy() != 0, mask)
        np.testing.assert_array_equal(after.kernel.numpy() != 0, mask)
    free = keras.models.load_model(tmp_path / "pruned.keras")
    fit(free, Pruning(0.5, restore_mask=False))
    assert zeros(free) == [0.5, 0.5]


def test_own_constraint_of_a_layer_still_holds():
    layer = keras.layers.Dense(8, kernel_constraint=keras.constraints.NonNeg())
    model = keras.Sequential([keras.Input((32,)), layer])
    model.compile("adam", "mse")
    fit(model, Pruning(0.5))
    assert zeros(model) == [0.5] and layer.kernel.numpy().min() == 0.0


def test_depthwise_and_excluded_layers_stay_dense():
    layers = [
        keras.layers.Conv2D(8, 3, name="stem"),
        keras.layers.DepthwiseConv2D(3, name="depthwise"),
        keras.layers.Conv2D(8, 1, name="point"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(8, name="head"),
    ]
    base = keras.Sequential([keras.Input((8, 8, 3)), *layers], name="base")
    model = keras.Sequential([keras.Input((8, 8, 3)), base])
    model.compile("adam", "mse")
    images = RNG.normal(size=(16, 8, 8, 3)).astype("float32")
    pruning = Pruning(0.5, exclude=["st*", layers[-1]])
    model.fit(images, Y[:16], batch_size=4, verbose=0, callbacks=[pruning])
    assert list(pruning.sparsity()) == ["point"]
    assert np.count_nonzero(layers[1].kernel.numpy() == 0) == 0


def test_layers_of_equal_names_in_nested_models_are_all_pruned():
    parts = [
        keras.Sequential([keras.Input((32,)), keras.layers.Dense(32, name="dense")], name=name)
        for name in ("first", "second")
    ]
    model = keras.Sequential([keras.Input((32,)), *parts, keras.layers.Dense(8, name="out")])
    model.compile("sgd", "mse")
    pruning = Pruning(0.5, exclude=[parts[0].layers[0]])
    fit(model, pruning)
    assert pruning.sparsity() == {"second_dense": 0.5, "out": 0.5}
    fit(model, Pruning(0.5))
    assert zeros(parts[0]) == zeros(parts[1]) == [0.5]


def test_schedules_and_one_shot():
    schedule = CubicSparsity(0.8, end_step=103, begin_step=3, initial_sparsity=0.2, frequency=30)
    due = [step for step in range(200) if bool(schedule(step)[0])]
    assert due == [3, 33, 63, 93, 103]
    assert float(schedule(53)[1]) == pytest.approx(0.8 - 0.6 * 0.5**3)
    assert float(schedule(103)[1]) == pytest.approx(0.8) and float(schedule(0)[1]) == pytest.approx(0.2)
    model = small_model()
    fit(model, Pruning(OneShotSparsity(0.5, step=4)))
    assert zeros(model) == [0.5, 0.5]


def kernel_of(shape):
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape), tf.float32)


def tfmot_mask(weights, sparsity, block=(1, 1), m_by_n=None):
    module = __import__(
        "tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl", fromlist=["Pruning"]
    )
    schedule = tfmot().sparsity.keras.ConstantSparsity(sparsity, 0)
    implementation = module.Pruning(lambda: 0, [], schedule, block, "AVG", m_by_n)
    return implementation._maybe_update_block_mask(weights)[1].numpy()


@pytest.mark.parametrize("shape", [(7, 5), (32, 10), (3, 3, 8, 16), (1, 1, 6, 9)])
def test_masks_equal_those_of_tfmot(shape):
    tfmot()
    weights = kernel_of(shape)
    for sparsity in (0.0, 0.1, 0.5, 0.77, 0.99):
        ours = magnitude_mask(weights, sparsity).numpy()
        np.testing.assert_array_equal(ours, tfmot_mask(weights, sparsity))
        if len(shape) == 2:
            ours = block_mask(weights, sparsity, (2, 4)).numpy()
            np.testing.assert_array_equal(ours, tfmot_mask(weights, sparsity, (2, 4)))
    np.testing.assert_array_equal(two_of_four_mask(weights).numpy(), tfmot_mask(weights, 0.5, m_by_n=(2, 4)))


def test_patterns_hold_in_the_trained_weights():
    model = small_model()
    fit(model, Pruning(0.5, "2:4"))
    for layer in model.layers:
        groups = layer.kernel.numpy().T.reshape(-1, 4)
        assert ((groups != 0).sum(axis=1) == 2).all()
    model = small_model()
    fit(model, Pruning(0.75, "block", block_size=(2, 4)))
    for layer in model.layers:
        rows, columns = layer.kernel.shape
        blocks = layer.kernel.numpy().reshape(rows // 2, 2, columns // 4, 4).transpose(0, 2, 1, 3)
        full = (blocks.reshape(-1, 8) != 0).sum(axis=1)
        assert set(full) == {0, 8} and np.mean(full == 0) == 0.75


def test_tfmot_schedule_gives_the_masks_of_tfmot_training():
    """The same weights, schedule and learning rate in both packages: equal weights after every step."""
    import tf_keras

    sparsity = tfmot().sparsity.keras
    schedule = sparsity.PolynomialDecay(0.1, 0.8, begin_step=2, end_step=12, frequency=2)
    ours = keras.Sequential([keras.Input((32,)), keras.layers.Dense(8)])
    ours.compile(keras.optimizers.SGD(0.01), "mse")
    theirs = tf_keras.Sequential([tf_keras.Input((32,)), tf_keras.layers.Dense(8)])
    theirs.set_weights(ours.get_weights())
    wrapped = sparsity.prune_low_magnitude(theirs, pruning_schedule=schedule)
    wrapped.compile(tf_keras.optimizers.SGD(0.01), "mse")
    callbacks = [sparsity.UpdatePruningStep()]
    ours.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=[Pruning(schedule)])
    wrapped.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
    stripped = sparsity.strip_pruning(wrapped)
    np.testing.assert_allclose(ours.get_weights()[0], stripped.get_weights()[0], atol=1e-5)
    assert np.mean(ours.get_weights()[0] == 0) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"target": 1.0}, ValueError, r"`target` must be a number in \[0, 1\)"),
        ({"target": 80}, ValueError, "80 % of the weights"),
        ({"target": -0.1}, ValueError, "target=-0.1"),
        ({"target": float("nan")}, ValueError, "target=nan"),
        ({"target": "0.8"}, TypeError, "pruning schedule"),
        ({"target": 0.8, "pattern": "2:4"}, ValueError, "0.5 for the pattern"),
        ({"target": 0.5, "pattern": "4:8"}, ValueError, "'unstructured', '2:4', 'block'"),
        ({"target": 0.5, "pattern": "block", "scope": "global"}, ValueError, "`scope` must be 'layer'"),
        ({"target": 0.5, "block_size": (0, 4)}, ValueError, "block_size"),
    ],
)
def test_bad_arguments_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        Pruning(**arguments)


def test_bad_models_and_runs_are_named():
    with pytest.raises(
        ValueError, match="No kernel is left to be pruned. hidden: in `exclude`; out: in `exclude`"
    ):
        fit(small_model(), Pruning(0.5, exclude=["*"]))
    with pytest.raises(ValueError, match=r"layers that have kernels: \['hidden', 'out'\].*nope"):
        fit(small_model(), Pruning(0.5, exclude=["nope"]))
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda x, y: True)
    with pytest.raises(ValueError, match="a schedule when `fit` does not know its steps"):
        small_model().fit(endless, verbose=0, callbacks=[Pruning(0.5)])


@pytest.mark.full
def test_xla():
    model = small_model(jit_compile=True)
    fit(model, Pruning(0.8, scope="global"), epochs=2)
    zero = sum(np.count_nonzero(layer.kernel.numpy() == 0) for layer in model.layers)
    assert zero / 2560 == pytest.approx(0.8, abs=1e-3)

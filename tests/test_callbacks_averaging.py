"""WeightAveraging: the average against float64, exact swaps, checkpoints, strategies."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import callbacks as C

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)).astype("f"), RNG.normal(size=(24, 1)).astype("f")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
STEPS = 6


def make(optimizer=None, norm=True, constraint=None, **options):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, kernel_constraint=constraint), keras.layers.Dense(1)]
    if norm:
        layers.insert(1, keras.layers.BatchNormalization(momentum=0.8))
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer or tfopt.optimizers.SGD(0.05), "mse", **{"jit_compile": False, **options})
    return model


class Record(keras.callbacks.Callback):
    """The weights after every batch; put it before the averaging."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append([w.astype("f8") for w in self.model.get_weights()])


def expected_ema(history, decay):
    t = len(history)
    shares = [(1 - decay) * decay ** (t - i) / (1 - decay**t) for i in range(1, t + 1)]
    return [sum(s * w for s, w in zip(shares, weights)) for weights in zip(*history)]


def close(a, b, **tolerance):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=["graph", "xla"])
def test_ema_equals_float64_and_leaves_training_alone(options):
    plain, model, record = make(**options), make(**options), Record()
    plain.fit(DATA, epochs=3, verbose=0)
    averaging = C.WeightAveraging(decay=0.9, keep=False)
    model.fit(DATA, epochs=3, validation_data=DATA, verbose=0, callbacks=[record, averaging])
    assert equal(plain.get_weights(), model.get_weights())
    with C.averaged(model):
        close(model.get_weights(), expected_ema(record.weights, 0.9))
        with C.averaged(model):
            close(model.get_weights(), expected_ema(record.weights, 0.9))
        close(model.get_weights(), expected_ema(record.weights, 0.9))
    assert equal(plain.get_weights(), model.get_weights())


def test_several_steps_per_execution_keep_the_half_life():
    model, record = make(norm=False, steps_per_execution=3), Record()
    model.fit(DATA, epochs=2, verbose=0, callbacks=[record, C.WeightAveraging(decay=0.9)])
    close(model.get_weights(), expected_ema(record.weights, 0.9**3))


def test_swa_averages_epochs_from_the_start_epoch():
    model, record = make(), Record()
    averaging = C.WeightAveraging("swa", start_epoch=2, batch_norm_data=DATA)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((model.get_weights(), logs["val_loss"]))
    )
    callbacks = [record, averaging, watch]
    model.fit(DATA, epochs=5, validation_data=DATA, verbose=0, callbacks=callbacks)
    epochs = record.weights[STEPS - 1 :: STEPS]
    mean = [np.mean(w, 0) for w in zip(*epochs[2:])]
    moving = [i for i, w in enumerate(model.weights) if "moving" in w.path]
    trained = [i for i in range(len(model.weights)) if i not in moving]
    close([model.get_weights()[i] for i in trained], [mean[i] for i in trained])
    dense = X.astype("f8") @ mean[0] + mean[1]
    close([model.get_weights()[i] for i in moving], [dense.mean(0), dense.var(0)], rtol=1e-4)
    assert equal(seen[1][0], [w.astype("f") for w in epochs[1]])
    assert seen[4][1] == pytest.approx(model.evaluate(DATA, verbose=0))


def test_checkpoints_and_early_stopping_see_the_average(tmp_path):
    model, record = make(), Record()
    callbacks = [
        record,
        C.WeightAveraging(decay=0.5),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9, restore_best_weights=True),
    ]
    model.fit(DATA, epochs=4, verbose=0, callbacks=callbacks)
    assert len(record.weights) == 2 * STEPS
    loaded = keras.models.load_model(tmp_path / "1.keras")
    close(loaded.get_weights(), expected_ema(record.weights[:STEPS], 0.5))
    assert equal(model.get_weights(), loaded.get_weights())  # the best epoch is the first


def test_constraints_hold_for_the_average():
    model = make(constraint=keras.constraints.UnitNorm(axis=0))
    averaging = C.WeightAveraging(decay=0.9)
    model.fit(DATA, epochs=2, verbose=0, callbacks=[averaging])
    np.testing.assert_allclose(np.linalg.norm(model.weights[0], axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
        lambda: tfopt.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.5),
    ],
    ids=["keras", "tfopt"],
)
def test_the_optimizers_own_average(optimizer):
    plain, model = make(optimizer()), make(optimizer())
    plain.fit(DATA, epochs=2, verbose=0)  # Keras puts the average into the model when `fit` ends
    history = model.fit(
        DATA, epochs=2, validation_data=DATA, verbose=0, callbacks=[C.WeightAveraging("optimizer")]
    ).history
    assert equal(plain.get_weights(), model.get_weights())
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(DATA, verbose=0))


def test_under_a_strategy(two_replicas):
    single, record = make(norm=False), Record()
    single.fit(DATA, epochs=2, verbose=0, callbacks=[record, C.WeightAveraging(decay=0.9)])
    with two_replicas.scope():
        model = make(norm=False)
    averaging = C.WeightAveraging(decay=0.9)
    model.fit(DATA, epochs=2, validation_data=DATA, verbose=0, callbacks=[averaging])
    close(model.get_weights(), single.get_weights(), rtol=1e-4)
    for variable in model.weights:
        replicas = [v.numpy() for v in two_replicas.experimental_local_results(variable.value)]
        assert equal(replicas[:1], replicas[1:])


def test_float16_weights_average_in_float32():
    model, record = make(norm=False), Record()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, dtype="float16")])
    model.compile(keras.optimizers.SGD(1e-2), "mse", jit_compile=False)
    averaging = C.WeightAveraging(decay=0.999)
    model.fit(DATA, epochs=3, verbose=0, callbacks=[record, averaging])
    close([a.numpy() for a in averaging._averages], expected_ema(record.weights, 0.999), rtol=1e-4)


def test_state_round_trip_and_copies():
    model, averaging, seen = make(), C.WeightAveraging(decay=0.9, keep=False), []
    copy.deepcopy(averaging)
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((model.get_weights(), averaging.get_state()))
    )
    model.fit(DATA, epochs=2, verbose=0, callbacks=[averaging, look])
    (average, state), raw = seen[-1], model.get_weights()
    assert not equal(average, raw)
    again = C.WeightAveraging(decay=0.9)
    again.set_model(model)
    again.on_train_begin()
    model.set_weights(average)
    again.set_state(state)
    again.swap_out()
    assert equal(model.get_weights(), raw)
    again.swap_in()
    assert equal(model.get_weights(), average)


def test_second_fit_starts_anew():
    model, record, averaging = make(norm=False), Record(), C.WeightAveraging(decay=0.9)
    for _ in range(2):
        model.fit(DATA, epochs=1, verbose=0, callbacks=[record, averaging])
    close(model.get_weights(), expected_ema(record.weights, 0.9))


@pytest.mark.parametrize("mode", ["ema", "swa", "optimizer"])
def test_what_is_kept_survives_evaluation_and_further_training_survives_it(mode):
    optimizer = tfopt.optimizers.ScheduleFreeSGD(0.05) if mode == "optimizer" else None
    model, averaging = make(optimizer, norm=False), C.WeightAveraging(mode, decay=0.9)
    model.fit(DATA, epochs=2, verbose=0, callbacks=[averaging])
    average = model.get_weights()
    model.evaluate(DATA, verbose=0, callbacks=[averaging])
    assert equal(model.get_weights(), average)
    model.fit(DATA, epochs=2, verbose=0)
    last = model.get_weights()
    model.evaluate(DATA, verbose=0, callbacks=[averaging])
    assert equal(model.get_weights(), last)
    if mode != "optimizer":  # whose average has gone on
        with C.averaged(model):
            assert equal(model.get_weights(), average)
        assert equal(model.get_weights(), last)


def test_bad_use():
    for arguments, word in (
        ({"mode": "mean"}, "mode"),
        ({"decay": 1.0}, "decay"),
        ({"every": 0}, "every"),
        ({"start_epoch": -1}, "start_epoch"),
    ):
        with pytest.raises(ValueError, match=word):
            C.WeightAveraging(**arguments)
    with pytest.raises(ValueError, match="WeightAveraging"), C.averaged(make()):
        pass
    with pytest.raises(ValueError, match="use_ema=True"):
        make().fit(DATA, verbose=0, callbacks=[C.WeightAveraging("optimizer")])

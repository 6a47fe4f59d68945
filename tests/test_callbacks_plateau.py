"""PlateauDecay: decisions worked out by hand, composition with schedules, second fits, restarts."""

import copy

import keras
import numpy as np
import pytest

import tfopt
from tfopt import callbacks as C

X, Y = np.ones((8, 3), "f"), np.ones((8, 1), "f")
STEPS = 2
NAN = float("nan")


def make(rate=1.0, optimizer=keras.optimizers.SGD, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer(rate), "mse", **{"jit_compile": False, **options})
    return model


class Script(keras.callbacks.Callback):
    """Puts given values into the logs; it comes first."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values = values if isinstance(values, dict) else dict(enumerate(values))
        self.name = name

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.values:
            logs[self.name] = self.values[epoch]


class Rates(keras.callbacks.Callback):
    """What the optimizer uses at each update; it comes last."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


def fit(model, values, *callbacks, first=0, name="val_loss", **options):
    rates = Rates()
    every = [Script(values, name), *callbacks, rates]
    epochs = first + len(values) if not options else options.pop("epochs")
    options = {"batch_size": 4, **options}
    history = model.fit(X, Y, epochs=epochs, initial_epoch=first, verbose=0, callbacks=every, **options)
    return rates.seen, history.history


DECISIONS = {
    # Arguments, values after each epoch, factor in each epoch and after the last.
    "patience counts epochs without progress": (
        dict(patience=2),
        [5, 5, 5, 5, 5, 4, 4, 4],
        [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125],
    ),
    "cooldown": (dict(patience=1, cooldown=2), [5, 5, 5, 5, 5], [1, 1, 0.5, 0.5, 0.5, 0.25]),
    "too small a change": (dict(patience=1, min_delta=0.5), [5, 4.6, 4.4], [1, 1, 0.5, 0.5]),
    "not below the minimum": (
        dict(patience=1, factor=0.1, minimum=0.05),
        [5, 5, 5, 5],
        [1, 1, 0.1, 0.05, 0.05],
    ),
    "progress recovers the rate": (
        dict(patience=1, recover=1.5),
        [5, 5, 5, 4, 3, 2, 1],
        [1, 1, 0.5, 0.25, 0.375, 0.5625, 0.84375, 1],
    ),
    "a restart at the minimum": (
        dict(patience=1, minimum=0.25, restart=True),
        [5, 5, 5, 5, 5],
        [1, 1, 0.5, 0.25, 1, 0.5],
    ),
    "NaN is no progress": (dict(patience=1), [NAN, 5, NAN, 4], [1, 0.5, 0.5, 0.25, 0.25]),
    "the larger the better": (dict(patience=1, mode="max"), [1, 2, 2, 3], [1, 1, 1, 0.5, 0.5]),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_decisions_worked_out_by_hand(case):
    arguments, values, factors = DECISIONS[case]
    model = make(2.0)
    seen, history = fit(model, values, C.PlateauDecay(**arguments))
    assert seen[::STEPS] == seen[1::STEPS] == pytest.approx([2 * factor for factor in factors[:-1]])
    assert history["learning_rate"] == pytest.approx(seen[::STEPS])
    assert float(model.optimizer.learning_rate) == pytest.approx(2 * factors[-1])


def test_mode_follows_the_name():
    for name, mode in (("val_loss", "min"), ("val_accuracy", "max"), ("val_auc", "max"), ("mae", "min")):
        assert C.PlateauDecay(name).mode == mode
    assert C.PlateauDecay("mae", mode="max").mode == "max"


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}], ids=["graph", "xla"])
def test_factor_multiplies_a_schedule_in_the_optimizer(options):
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.9)
    model = make(schedule, **options)
    seen, _ = fit(model, [5, 5, 5, 5], C.PlateauDecay(patience=2))
    expected = [0.9**t * (0.5 if t >= 6 else 1.0) for t in range(8)]
    assert seen == pytest.approx(expected, rel=1e-5)
    # It is the update's rate, not only what is shown: the gradient of the bias is known.
    before = model.get_weights()
    error = float(before[0].sum() + before[1][0] - 1)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[C.PlateauDecay()])
    step = before[1][0] - model.get_weights()[1][0]
    assert step == pytest.approx(2 * error * 0.9**8 * 0.5, rel=1e-3, abs=1e-7)


def test_factor_multiplies_learning_rate_decay():
    decay = C.LearningRateDecay(lambda epoch: 1.0 / (epoch + 1), unit="epoch")
    seen, _ = fit(make(), [5, 5, 5, 5], C.PlateauDecay(patience=1), decay)
    assert seen[::STEPS] == pytest.approx([1, 1 / 2, 0.5 / 3, 0.25 / 4])


def test_two_plateaus_multiply():
    callbacks = [Script([5] * 3, "loss2"), C.PlateauDecay("loss2", 0.1, 1), C.PlateauDecay(patience=1)]
    seen, _ = fit(make(), [5, 5, 5], *callbacks)
    assert seen[::STEPS] == pytest.approx([1, 1, 0.05])


@pytest.mark.parametrize("rate", [1.0, keras.optimizers.schedules.CosineDecay(1.0, 10**9)])
def test_state_lives_over_a_second_fit_and_not_over_another_optimizer(rate):
    model, plateau = make(rate), C.PlateauDecay(patience=2)
    fit(model, [5, 5], plateau)  # one epoch of patience is left
    seen, _ = fit(model, {2: 5, 3: 5}, plateau, first=2, epochs=5)
    assert seen[::STEPS] == pytest.approx([1, 0.5, 0.5])
    seen, _ = fit(model, [9, 9], C.PlateauDecay(recover=2.0), first=0)  # another one knows the full rate
    assert seen[::STEPS] == pytest.approx([0.5, 1.0])
    again = make(rate)
    seen, _ = fit(again, [9, 9, 9], copy.deepcopy(plateau))
    assert seen[::STEPS] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    "rate", [pytest.param(1.0, marks=pytest.mark.full), keras.optimizers.schedules.CosineDecay(1.0, 10**9)]
)
def test_state_survives_resume(rate, tmp_path):
    class Stop(Exception):
        pass

    def raise_stop(*_):
        raise Stop

    def run(folder, stop_at=None):
        model = make(rate)
        plateau = C.PlateauDecay(patience=2, recover=1.5)
        callbacks = [C.Resume(folder, every_seconds=0), Script([5, 5, 5, 4, 4, 4]), plateau, Rates()]
        if stop_at is not None:
            stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: e == stop_at and raise_stop())
        else:
            stop = keras.callbacks.LambdaCallback()
        model.fit(X, Y, batch_size=4, epochs=6, verbose=0, shuffle=False, callbacks=[*callbacks, stop])
        return callbacks[-1].seen, model.get_weights()

    whole, weights = run(tmp_path / "whole")
    assert whole[::STEPS] == pytest.approx([1, 1, 1, 0.5, 0.75, 0.75])
    for epoch in (2, 3, 4):
        with pytest.raises(Stop):
            run(tmp_path / str(epoch), epoch)
        seen, again = run(tmp_path / str(epoch))
        assert seen == whole  # a list of numbers is state, so this one is complete
        assert all(np.array_equal(a, b) for a, b in zip(weights, again))


def test_a_saved_model_keeps_the_scaled_schedule(tmp_path):
    model = make(keras.optimizers.schedules.CosineDecay(1.0, 10**9))
    fit(model, [5, 5], C.PlateauDecay(patience=1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.5)
    seen, _ = fit(loaded, [5, 5, 5], C.PlateauDecay(patience=1))
    assert seen[::STEPS] == pytest.approx([0.5, 0.5, 0.25])


def test_under_a_strategy_wrappers_and_loss_scale(two_replicas):
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 10**9)
    with two_replicas.scope():
        model = make(
            schedule,
            lambda rate: keras.optimizers.LossScaleOptimizer(
                tfopt.optimizers.Lookahead(tfopt.optimizers.AdamW(rate))
            ),
        )
    seen, _ = fit(model, [5, 5, 5], C.PlateauDecay(patience=1))
    assert seen[::STEPS] == pytest.approx([1, 1, 0.5])


def test_waits_for_a_value_and_says_so(caplog):
    seen, _ = fit(make(), {}, C.PlateauDecay(patience=1), epochs=3)
    assert seen == [1.0] * 6
    assert "waits for `val_loss`, the logs have: loss, learning_rate" in caplog.text
    assert caplog.text.count("waits") == 1


def test_validation_only_now_and_then():
    seen, _ = fit(make(), {1: 5, 3: 5, 5: 5}, C.PlateauDecay(patience=2), epochs=7)
    assert seen[::STEPS] == [1, 1, 1, 1, 1, 1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"factor": 1.0}, "factor"),
        ({"factor": NAN}, "factor"),
        ({"patience": 0}, "patience"),
        ({"cooldown": -1}, "cooldown"),
        ({"minimum": 0.0}, "minimum"),
        ({"recover": 1.0}, "recover"),
        ({"mode": "best"}, "mode"),
        ({"min_delta": -1.0}, "min_delta"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        C.PlateauDecay(**arguments)

"""Signals during `fit` with Resume: they save, and Python's handlers are back however `fit` is left."""

import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.callbacks import Resume

DEFAULTS = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


def handlers():
    return {number: signal.getsignal(number) for number in DEFAULTS}


@pytest.fixture(autouse=True)
def default_handlers():
    before = {number: signal.signal(number, handler) for number, handler in DEFAULTS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def make():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    return model


def data():
    images = np.random.default_rng(0).integers(0, 255, (16, 4, 4, 3)).astype("uint8")
    return tfopt.data.pipeline(tf.data.Dataset.from_tensor_slices((images, np.arange(16) % 3)), 4)


class Do(keras.callbacks.Callback):
    """Calls `action` at one event."""

    def __init__(self, event, action, after=0):
        super().__init__()
        self.calls = Calls(after)
        setattr(self, event, lambda *_, **__: self.calls.run(action))


class Calls:
    def __init__(self, after):
        self.after = after

    def run(self, action):
        self.after -= 1
        if self.after < 0:
            action()


def send(number):
    return lambda: os.kill(os.getpid(), number)


def fail(error):
    def action():
        raise error

    return action


def fit(folder, *callbacks, epochs=3, **options):
    model, batches = make(), data()
    resume = Resume(folder, batches, every_seconds=99)
    model.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[resume, *callbacks], **options)
    return model


EVENTS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_epoch_end",
    "on_train_end",
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_handlers_are_back_after_an_error_at_any_event(event, error, tmp_path):
    with pytest.raises(error):
        fit(tmp_path, Do(event, fail(error("stop"))), validation_data=data())
    assert handlers() == DEFAULTS


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
@pytest.mark.parametrize(
    ("event", "after", "batches_left"),
    [("on_train_batch_end", 5, 8), ("on_epoch_end", 1, 4), ("on_epoch_end", 2, 0)],
)
def test_a_signal_saves_and_the_run_goes_on_bit_identical(
    number, error, event, after, batches_left, tmp_path
):
    whole = fit(tmp_path / "whole")
    with pytest.raises(error):
        fit(tmp_path / "broken", Do(event, send(number), after))
    assert handlers() == DEFAULTS
    counted = Do("on_train_batch_end", lambda: None)
    again = fit(tmp_path / "broken", counted)
    assert -counted.calls.after == batches_left
    for a, b in zip(whole.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    class Twice(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            send(signal.SIGINT)()
            assert handlers() == DEFAULTS
            send(signal.SIGINT)()
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, Twice())


def test_a_kept_exception_does_not_swallow_the_next_ctrl_c(tmp_path):
    with pytest.raises(ValueError) as kept:
        fit(tmp_path, Do("on_epoch_end", fail(ValueError("stop"))))
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)()
    assert handlers() == DEFAULTS
    del kept


def test_a_signal_in_a_nested_fit_is_heard_by_both(tmp_path):
    trained = []

    def inner():
        fit(tmp_path / "inner", Do("on_train_batch_end", send(signal.SIGTERM), 2))
        trained.append("whole")

    with pytest.raises(SystemExit):
        fit(tmp_path / "outer", Do("on_epoch_end", inner))
    assert handlers() == DEFAULTS and not trained


def test_the_end_of_a_nested_fit_leaves_the_outer_one_listening(tmp_path):
    def inner():
        fit(tmp_path / "inner", epochs=1)

    with pytest.raises(SystemExit):
        fit(tmp_path / "outer", Do("on_epoch_end", inner), Do("on_epoch_end", send(signal.SIGTERM)))
    assert handlers() == DEFAULTS and list((tmp_path / "outer").glob("*.ckpt"))


def test_handlers_of_the_user_are_left_alone(tmp_path):
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    mine = handlers()
    fit(tmp_path, Do("on_train_batch_end", send(signal.SIGTERM)))
    assert len(heard) == 12 and handlers() == mine


@pytest.mark.parametrize("number", [None, 1])
def test_hooks_are_gone_after_an_error_in_a_later_callback(number):
    model = make()
    hooks = [tfopt.callbacks.TrainingMonitor(norms_every=number)]
    with pytest.raises(ValueError):
        model.fit(data(), verbose=0, callbacks=[*hooks, Do("on_epoch_end", fail(ValueError("stop")))])
    assert "make_train_function" not in vars(model)
    assert "_all_reduce_sum_gradients" not in vars(model.optimizer)


def test_norms_of_layers_of_two_float_types_are_measured_in_float32():
    layers = [keras.Input((2,)), keras.layers.Dense(3, dtype="float64"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    monitor = tfopt.callbacks.TrainingMonitor(norms_every=1)
    history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=[monitor], verbose=0).history
    norm = np.sqrt(sum((weight.astype("float64") ** 2).sum() for weight in model.get_weights()))
    np.testing.assert_allclose(history["weight_norm"][0], norm, rtol=1e-5)

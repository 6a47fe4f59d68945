"""Resume restores state, never configuration, of all optimizers; what is not finite is not saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt import optimizers
from tfopt.callbacks import Resume

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1]


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.target = (epoch,)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.target[0]:
            raise KeyboardInterrupt


def fit(folder, optimizer, *callbacks, stop=None, epochs=6, allow_changes=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    resume = Resume(folder, every_seconds=0, allow_changes=allow_changes)
    options = {"epochs": epochs, "batch_size": 8, "shuffle": False, "verbose": 0}
    try:
        model.fit(X, Y, callbacks=[resume, *callbacks, Stop(stop)], **options)
    except KeyboardInterrupt:
        assert stop is not None
    return model


def test_callbacks_keep_the_configuration_of_the_script(tmp_path):
    def callbacks(patience, name):
        path = str(tmp_path / (name + "{epoch}.weights.h5"))
        early = keras.callbacks.EarlyStopping("loss", patience=patience)
        return early, keras.callbacks.ModelCheckpoint(path, save_weights_only=True)

    fit(tmp_path / "r", optimizers.Adam(0.1), *callbacks(2, "old"), stop=3)
    early, saver = callbacks(30, "new")
    model = fit(tmp_path / "r", optimizers.Adam(0.1), early, saver)
    assert early.patience == 30 and len(model.history.history["loss"]) == 6
    written = {path.name for path in tmp_path.glob("*.h5")}
    assert written == {*(f"old{n}.weights.h5" for n in (1, 2, 3)), *(f"new{n}.weights.h5" for n in (4, 5, 6))}


@pytest.mark.parametrize(
    "other",
    [
        optimizers.RAdam,
        optimizers.Lion,
        optimizers.AdamW,
        lambda rate: optimizers.Lookahead(optimizers.Adam(rate)),
    ],
)
def test_another_optimizer_is_refused_with_both_names(other, tmp_path):
    fit(tmp_path, optimizers.Adam(0.1), stop=3)
    with pytest.raises(ValueError, match="does not fit this run"):
        fit(tmp_path, other(0.1))


def test_a_changed_rate_holds_and_is_told(tmp_path, caplog):
    fit(
        tmp_path,
        optimizers.Adam(0.5),
        keras.callbacks.ReduceLROnPlateau("loss", 0.5, 1, min_delta=99),
        stop=3,
    )
    plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.5, 99, min_delta=99)
    model = fit(tmp_path, optimizers.Adam(0.25), plateau, epochs=4)
    assert "0.5 in the checkpoint and 0.25 in this script" in caplog.text
    assert float(model.optimizer.learning_rate) in (0.125, 0.0625)  # halved before, and in proportion now


def test_changed_steps_of_accumulation_hold(tmp_path):
    fit(tmp_path, optimizers.GradientAccumulation(optimizers.Adam(0.1), 2), stop=3)
    model = fit(tmp_path, optimizers.GradientAccumulation(optimizers.Adam(0.1), 4))
    assert int(model.optimizer.current_steps) == 4


def test_changes_that_are_not_allowed_are_refused_with_both_values(tmp_path, caplog):
    fit(tmp_path, optimizers.Adam(0.1), stop=3)
    with pytest.raises(ValueError, match=r"beta_1.*0.9 in the checkpoint and 0.8"):
        fit(tmp_path, optimizers.Adam(0.1, beta_1=0.8), allow_changes=["learning_rate"])
    model = fit(tmp_path, optimizers.Adam(0.2), allow_changes=["learning_rate"])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2) and "holds" not in caplog.text


def test_what_is_not_finite_is_not_saved_and_the_next_start_says_so(tmp_path, caplog):
    class Diverge(keras.callbacks.Callback):
        def __init__(self, epoch):
            super().__init__()
            self.target = (epoch,)

        def on_epoch_end(self, epoch, logs=None):
            if epoch == self.target[0]:
                self.model.weights[0].assign(np.full((4, 1), np.nan))
                self.model.stop_training = True

    fit(tmp_path, optimizers.Adam(0.1), Diverge(2))
    caplog.clear()
    model = fit(tmp_path, optimizers.Adam(0.1), Diverge(None))
    assert "reached NaN or infinity" in caplog.text
    assert int(model.optimizer.iterations) == 24  # the third epoch was trained once more
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert not (tmp_path / "diverged.json").exists()


class TwoNetworks(keras.Model):
    """Trains two parts in turn, each by its own optimizer, as a GAN does."""

    def __init__(self, first, second):
        super().__init__()
        self.a, self.b = keras.layers.Dense(3), keras.layers.Dense(1)
        self.opts = {"a": first, "b": second}

    def call(self, x):
        return self.b(self.a(x))

    def train_step(self, data):
        x, y = data
        for part, name in ((self.a, "a"), (self.b, "b")):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x) - y) ** 2)
            self.opts[name].apply_gradients(
                zip(tape.gradient(loss, part.trainable_variables), part.trainable_variables)
            )
        return {"loss": loss}


@pytest.mark.parametrize("built", [True, False])
def test_a_model_with_two_optimizers_goes_on_bit_identical(built, tmp_path):
    def run(folder, stop=None):
        keras.utils.set_random_seed(0)
        model = TwoNetworks(optimizers.Adam(0.05), keras.optimizers.SGD(0.05, momentum=0.9))
        model(X[:1])
        if built:
            model.opts["a"].build(model.a.trainable_variables)
            model.opts["b"].build(model.b.trainable_variables)
        model.compile()
        try:
            model.fit(
                tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),
                epochs=5,
                verbose=0,
                callbacks=[Resume(folder, every_seconds=0), Stop(stop)],
            )
        except KeyboardInterrupt:
            assert stop is not None
        return model

    whole = run(tmp_path / "whole")
    run(tmp_path / "broken", stop=3)
    again = run(tmp_path / "broken")
    for a, b in zip(whole.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert [int(each.iterations) for each in again.opts.values()] == [20, 20]

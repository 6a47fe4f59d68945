"""Resume within one process: any batch, streams, callbacks, damaged and foreign checkpoints."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.callbacks import Resume
from tfopt.callbacks._checkpoint import read, write

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 255, (44, 8, 8, 3)).astype("uint8"), RNG.integers(0, 3, 44)
EPOCHS = 3


def data(kind):
    images = tf.data.Dataset.from_tensor_slices((X, Y))
    augment = tfopt.data.Augment(shift=0.2)
    if kind == "pipeline":
        return tfopt.data.pipeline(images, 8, augment=augment)
    ramp = tfopt.schedules.Steps({0: 4, 40: 8})
    return tfopt.data.pipeline(images, ramp, epochs=EPOCHS, augment=augment)


def make():
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )
    optimizer = tfopt.optimizers.Lookahead(tfopt.optimizers.AdamW(1e-2), sync_period=3)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


class Interruption(Exception):
    """Stands for a signal."""


class Countdown:
    """Not plain data, so that a resumed run has its own."""

    def __init__(self, batches):
        self.batches = batches

    def tick(self):
        self.batches -= 1
        if self.batches == 0:
            raise Interruption


class Interrupt(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.countdown = Countdown(batches)

    def on_train_batch_end(self, batch, logs=None):
        self.countdown.tick()


def run(folder, kind="pipeline", interrupt_after=-1, every_seconds=0.0):
    model, batches = make(), data(kind)
    callbacks = [
        Resume(folder, batches, every_seconds=every_seconds),
        tfopt.callbacks.WeightAveraging(decay=0.9),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=9.0),
        Interrupt(interrupt_after),
    ]
    options = {} if kind == "pipeline" else {"steps_per_epoch": batches.steps_per_epoch}
    history = model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=callbacks, **options).history
    return model.get_weights(), history


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["pipeline", "ramp"])
def test_interrupted_anywhere_ends_bit_identical(kind, tmp_path):
    weights, history = run(tmp_path / "whole", kind)
    for batches in (2, 6, 9, 16):
        folder = tmp_path / str(batches)
        with pytest.raises(Interruption):
            run(folder, kind, batches)
        again, continued = run(folder, kind)
        assert equal(again, weights), batches
        assert continued == history, batches
    again, continued = run(tmp_path / "whole", kind)  # nothing is left to do
    assert equal(again, weights) and continued == history


def test_a_damaged_checkpoint_is_skipped_and_a_foreign_one_refused(tmp_path, caplog):
    weights, _ = run(tmp_path / "whole")
    folder = tmp_path / "torn"
    with pytest.raises(Interruption):
        run(folder, interrupt_after=9)
    newest = max(folder.glob("*.ckpt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    (folder / "000000999.tmp").write_bytes(b"half")
    assert equal(run(folder)[0], weights)
    assert "damaged" in caplog.text and not list(folder.glob("*.tmp"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    arguments = {"x": np.ones((4, 2)), "y": np.ones(4), "verbose": 0}
    with pytest.raises(ValueError, match="does not fit this run"):
        model.fit(**arguments, callbacks=[Resume(folder)])
    with pytest.raises(ValueError, match="first callback"):
        model.fit(**arguments, callbacks=[keras.callbacks.TerminateOnNaN(), Resume(folder)])


def test_after_nothing_but_damaged_checkpoints_new_ones_are_kept(tmp_path):
    weights, _ = run(tmp_path)
    for file in tmp_path.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Interruption):
        run(tmp_path, interrupt_after=9)
    read(max(tmp_path.glob("*.ckpt")))
    assert equal(run(tmp_path)[0], weights)


def test_a_resumed_run_that_is_interrupted_leaves_the_model_to_other_fits(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2)), np.ones(4)
    model.fit(x, y, epochs=2, callbacks=[Resume(tmp_path), Interrupt(-1)], verbose=0)
    with pytest.raises(Interruption):
        model.fit(x, y, epochs=4, callbacks=[Resume(tmp_path), Interrupt(1)], verbose=0)
    assert model.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]


@pytest.mark.parametrize(("size", "steps"), [(16, 1), (8, 2)])
def test_a_place_inside_an_epoch_of_other_batches_is_refused(size, steps, tmp_path):
    def fit(size, steps, *others):
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse", steps_per_execution=steps)
        batches = tfopt.data.pipeline(tf.data.Dataset.from_tensor_slices((X, Y)), size)
        resume = Resume(tmp_path, batches, every_batches=1)
        return model.fit(batches, epochs=2, callbacks=[resume, *others], verbose=0, shuffle=False)

    with pytest.raises(Interruption):
        fit(8, 1, Interrupt(4))
    with pytest.raises(ValueError, match="inside an epoch of 6 batches, 1 per execution"):
        fit(size, steps, Interrupt(99))


def test_file_round_trip(tmp_path):
    bfloat16 = tf.constant([1.5, 2.0], tf.bfloat16).numpy()
    state = {"a": [1, None, float("inf")], "b": {"c": np.arange(6.0).reshape(2, 3)}, "d": bfloat16, 3: "x"}
    write(tmp_path / "x.ckpt", state)
    loaded = read(tmp_path / "x.ckpt")
    assert loaded["a"] == state["a"] and loaded[3] == "x" and loaded["d"].dtype == bfloat16.dtype
    assert equal([loaded["b"]["c"], loaded["d"]], [state["b"]["c"], bfloat16])

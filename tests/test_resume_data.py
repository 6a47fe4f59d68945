"""Resume inside an epoch of any data that `fit` takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.callbacks import Resume, TrainingMonitor, WeightAveraging

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(22, 3)).astype("float32"), RNG.normal(size=(22, 1)).astype("float32")
EPOCHS = 3


class Shuffled(keras.utils.PyDataset):
    """Batches in another order in each epoch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.order, self.random = np.arange(22), np.random.default_rng(1)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        chosen = self.order[4 * index : 4 * index + 4]
        return X[chosen], Y[chosen]

    def on_epoch_end(self):
        self.random.shuffle(self.order)


def slices():
    return tf.data.Dataset.from_tensor_slices((X, Y))


def endless():
    order = np.random.default_rng(2)
    while True:
        chosen = order.permutation(22)[:4]
        yield X[chosen], Y[chosen]


def of_unknown_length():
    return slices().shuffle(22, seed=1).batch(4).filter(lambda x, y: True)


DATA = {  # what `fit` gets, and its other arguments
    "shuffled": lambda: (slices().shuffle(22, seed=1).batch(4), {}),
    "endless": lambda: (slices().shuffle(9, seed=1).repeat().batch(4), {"steps_per_epoch": 5}),
    "finite with steps": lambda: (slices().shuffle(9, seed=1).batch(4), {"steps_per_epoch": 2}),
    "unknown length": lambda: (of_unknown_length(), {}),
    "arrays": lambda: (X, {"y": Y, "batch_size": 4}),
    "PyDataset": lambda: (Shuffled(), {}),
    "threads": lambda: (Shuffled(workers=2), {}),
    "generator": lambda: (endless(), {"steps_per_epoch": 5}),
}
FULL = ("arrays", "endless", "finite with steps", "unknown length", "threads", "generator")


class Interruption(Exception):
    """Stands for a signal."""


class Interrupt(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.batches = iter(range(batches))  # not plain data: a resumed run has its own

    def on_train_batch_end(self, batch, logs=None):
        if next(self.batches, None) is None:
            raise Interruption


def run(folder, kind, batches=999, steps=1, callbacks=(), **options):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    optimizer = keras.optimizers.Adam(0.05)
    model.compile(optimizer, "mse", metrics=["mae"], jit_compile=False, steps_per_execution=steps)
    data, arguments = DATA[kind]()
    resume = Resume(folder, data, **{"every_seconds": 0, **options})
    every = [resume, WeightAveraging(decay=0.9), *callbacks, Interrupt(batches)]
    history = model.fit(data, epochs=EPOCHS, callbacks=every, verbose=0, **arguments).history
    return model.get_weights(), history


def check(kind, folder, moments, steps=1):
    weights, history = run(folder / "whole", kind, steps=steps)
    for batches in moments:
        with pytest.raises(Interruption):
            run(folder / str(batches), kind, batches, steps)
        again, continued = run(folder / str(batches), kind, steps=steps)
        for one, two in zip(weights, again, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=str(batches))
        assert continued == history, batches


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.full) if kind in FULL else kind for kind in DATA]
)
def test_interrupted_anywhere_ends_bit_identical(kind, tmp_path):
    check(kind, tmp_path, (3,) if kind == "finite with steps" else (9,))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", ["shuffled", "unknown length"])
def test_executions_of_several_steps_of_which_the_last_has_fewer(kind, tmp_path):
    check(kind, tmp_path, (1, 3), steps=4)


def test_norms_of_an_epoch_are_those_of_an_unbroken_run(tmp_path):
    def norms(folder, batches=999):
        monitor = TrainingMonitor(norms_every=2)
        history = run(folder, "arrays", batches, callbacks=[monitor])[1]
        return {name: values for name, values in history.items() if "norm" in name}

    expected = norms(tmp_path / "whole")
    with pytest.raises(Interruption):
        norms(tmp_path / "broken", 9)
    assert norms(tmp_path / "broken") == expected


def test_data_of_other_kinds_are_refused_at_once(tmp_path):
    with pytest.raises(TypeError, match="`data` must be what `fit` gets as `x`"):
        Resume(tmp_path, "arrays")

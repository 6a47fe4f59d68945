"""`find_batch_size` and `tune_throughput`: right on work of known speed, whatever goes wrong elsewhere."""

import atexit
import json
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.tune import TrainingSetting, find_batch_size, tune_throughput
from tfopt.tune.measuring import Measurer
from tfopt.tune.subject import Subject

PIXELS = (8, 8, 3)


def tiny(loss="sparse_categorical_crossentropy"):
    layers = [keras.layers.Flatten(), keras.layers.Dense(4), keras.layers.Softmax()]
    model = keras.Sequential([keras.Input(PIXELS), *layers])
    model.compile("sgd", loss)
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, x):
        return self.dense(keras.ops.reshape(x, (-1, 192)))


def subclassed():
    model = Subclassed()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batches(batch_size, seconds=0.0, per_example=0.0, worst=10**9, deadly=False):
    """Batches that take a known time; above the size `worst` they fail."""

    def generate():
        if batch_size > worst:
            if deadly:
                os._exit(3)
            raise MemoryError("no room")
        while True:
            time.sleep(seconds + per_example * batch_size)
            yield np.zeros((batch_size, *PIXELS), "float32"), np.zeros(batch_size, "int64")

    shapes = tf.TensorSpec((batch_size, *PIXELS), tf.float32), tf.TensorSpec((batch_size,), tf.int64)
    return tf.data.Dataset.from_generator(generate, output_signature=shapes)


def limited(batch_size):
    if batch_size > 3:
        atexit.register(time.sleep, 100)  # as threads of a pipeline can hold up the end of a process
    return batches(batch_size, 0.05, worst=3)  # far above what the load of the machine adds


def limited_later(batch_size):
    return batches(batch_size, 0.005, worst=11)


def constant_time(batch_size):
    return batches(batch_size, 0.05)


def troubled(batch_size):
    if batch_size == 2:
        return batches(batch_size, seconds=100.0)
    return batches(batch_size, worst=3, deadly=batch_size == 4)


def statuses(found):
    return {one.setting.batch_size: one.status for one in found.measurements}


@pytest.mark.process
def test_find_batch_size(tmp_path):
    found = find_batch_size(tiny(), limited, max_batch_size=64)
    assert statuses(found) == {1: "ok", 2: "ok", 4: "out of memory", 3: "ok"}
    assert (found.largest, found.limited_by) == (3, "memory") and "out of memory" in str(found)
    assert found.saturating in (2, 3), "at constant time per batch, the largest are the fastest"


@pytest.mark.full
@pytest.mark.process
def test_find_batch_size_narrows_down():
    found = find_batch_size(tiny(), limited_later)
    assert found.largest == 11 and set(statuses(found)) == {1, 2, 4, 8, 16, 12, 10, 11}
    found = find_batch_size(tiny("categorical_crossentropy"), max_batch_size=5)
    assert (found.largest, found.limited_by) == (5, "max_batch_size")


@pytest.mark.full
@pytest.mark.process
def test_failures_are_results_and_the_next_setting_still_runs():
    with Subject(tiny(), troubled) as subject, Measurer(subject, limit_seconds=20) as measurer:
        found = {size: measurer.measure(TrainingSetting(size), seconds=0.1) for size in (1, 4, 5, 2, 3)}
    status = {size: one.status for size, one in found.items()}
    assert status == {1: "ok", 4: "crashed", 5: "out of memory", 2: "too slow", 3: "ok"}


@pytest.mark.process
def test_memory_has_a_limit():
    with (
        Subject(tiny(), None) as subject,
        Measurer(subject, limit_seconds=9, memory_limit=10**8) as little,
        pytest.raises(RuntimeError, match="out of memory. more than 0.1 GB"),
    ):
        little.measure(TrainingSetting(1))


@pytest.mark.full
@pytest.mark.process
def test_the_winner_is_confirmed_and_remembered(tmp_path):
    options = dict(batch_size=2, space={"batch_size": [1, 8]}, cache_dir=str(tmp_path))
    found = tune_throughput(tiny(), constant_time, **options)
    assert found.setting.batch_size == 8 and found.speedup > 3, "8 images in the time of 2"
    assert len(found.ratios) == 5 and "times the default's speed" in str(found)
    start = time.perf_counter()
    again = tune_throughput(tiny(), constant_time, **options)
    assert again.remembered and time.perf_counter() - start < 2
    assert (again.setting, again.ratios, again.measurements) == (
        found.setting,
        found.ratios,
        found.measurements,
    )
    json.dumps(found.as_dict())


@pytest.mark.full
@pytest.mark.process
def test_the_default_stays_where_nothing_is_faster():
    space = {"steps_per_execution": [1, 2], "data_threads": [1]}
    found = tune_throughput(subclassed, constant_time, batch_size=2, space=space, cache_dir=None)
    assert found.setting == found.default == TrainingSetting(2) and found.speedup == 1.0
    tried = [(one.setting.steps_per_execution, one.setting.data_threads) for one in found.measurements]
    assert tried == [(None, None), (2, None), (None, 1)], "one step per execution is the default"
    assert all(one.status == "ok" for one in found.measurements)


def test_apply_leaves_the_model_alone_and_trains_the_copy():
    model = tiny()
    before = [array.copy() for array in model.get_weights()]
    setting = TrainingSetting(precision="mixed_float16", jit_compile=False, steps_per_execution=2)
    copy = setting.apply(model)
    x, y = np.ones((8, *PIXELS), "float32"), np.zeros(8)
    for old, new in zip(before, copy.get_weights()):
        np.testing.assert_array_equal(old, new)
    copy.fit(x, y, batch_size=2, verbose=0)
    assert copy.layers[1].compute_dtype == "float16" and copy.layers[-1].compute_dtype == "float32"
    assert isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer) and copy.steps_per_execution == 2
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert model.optimizer.iterations == 0 and model.layers[1].compute_dtype == "float32"


def test_a_model_built_again_is_the_same_model():
    def signature(*arguments):
        with Subject(*arguments) as subject:
            return subject.signature

    assert signature(tiny(), None) == signature(tiny(), None)
    others = [signature(tiny("mse"), None), signature(tiny(), limited), signature(subclassed, limited)]
    assert len({signature(tiny(), None), *others}) == 4


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`model` must be compiled"):
        find_batch_size(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="`space` must be a mapping of batch_size, jit_compile"):
        tune_throughput(tiny(), space={"learning_rate": [1.0]})
    with pytest.raises(ValueError, match="`precision` must be one of"):
        tune_throughput(tiny(), space={"precision": ["float8"]})
    with pytest.raises(ValueError, match="`data` must be given"):
        tune_throughput(subclassed)
    with pytest.raises(ValueError, match="top level of a module"):
        tune_throughput(tiny(), lambda batch_size: None)
    with pytest.raises(TypeError, match="`max_batch_size` must be an integer"):
        find_batch_size(tiny(), max_batch_size=2.5)

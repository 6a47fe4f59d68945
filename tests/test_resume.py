"""Resume: a run that is killed at any moment and started again ends with the weights of one that is not."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import os, pathlib, signal, sys, threading
import keras, numpy as np, tfopt

folder, (kind, at), output = sys.argv[1], sys.argv[2].split(":"), sys.argv[3]
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 3)).astype("uint8")
batches = tfopt.data.pipeline(
    tfopt.data.load({"train": (images, np.arange(60) % 3)}, validation_split=0, test_split=0).train,
    8, augment=tfopt.data.Augment(shift=0.1),
)
layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dropout(0.3)]
model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(3, activation="softmax")])
model.compile(tfopt.optimizers.AdamW(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class Counter:
    number = 0

def at_call(function, before, kills):
    def counted(*arguments):
        Counter.number += 1
        if Counter.number == int(at):
            before(*arguments)
            kills()
        return function(*arguments)
    return counted

def tear(descriptor):  # as if only half of the bytes had been written
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)

if kind == "torn":  # within the writing of a checkpoint: each syncs a file and then its folder
    os.fsync = at_call(os.fsync, tear, kill)
if kind == "renamed":  # it has its name, the folder is not synced
    replace = pathlib.Path.replace
    pathlib.Path.replace = at_call(replace, replace, kill)

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if kind == "update" and int(self.model.optimizer.iterations) == int(at):
            kill()
        if kind == "seconds" and not threading.active_count() > before:
            timer = threading.Timer(float(at), kill)
            timer.daemon = True
            timer.start()

resume = tfopt.callbacks.Resume(folder, batches, every_batches=3)
averaging = tfopt.callbacks.WeightAveraging(decay=0.9, keep=False)
before = threading.active_count()
model.fit(batches, epochs=4, verbose=0, shuffle=False, callbacks=[resume, averaging, Kill()])
np.savez(output, *[v.numpy() for v in model.variables], iterations=model.optimizer.iterations.numpy())
"""
NEVER = "never:0"


def run(folder, name, kill):
    """The exit code of the script, which kills itself as told: KIND:WHEN."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder / name), kill, str(folder / f"{name}.npz")]
    return subprocess.run(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, timeout=300).returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a run that nobody kills: 4 epochs of 8 batches."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, "whole", NEVER) == 0
    weights = dict(np.load(folder / "whole.npz"))
    assert weights["iterations"] == 32
    return weights


def check_killed(kills, whole, folder):
    for kill in kills:
        code = run(folder, "killed", kill)
        # A clock may come too late, and a run that is nearly done writes few checkpoints.
        assert code == -signal.SIGKILL or (code == 0 and not kill.startswith("update")), kill
    assert run(folder, "killed", NEVER) == 0
    killed = np.load(folder / "killed.npz")
    assert set(whole) == set(killed)
    for name in whole:
        np.testing.assert_array_equal(whole[name], killed[name])


@pytest.mark.process
def test_a_run_killed_four_times_ends_like_an_uninterrupted_one(whole, tmp_path):
    # Inside an epoch; with half a checkpoint; after a rename; inside a later epoch.
    check_killed(["update:5", "torn:3", "renamed:2", "update:26"], whole, tmp_path)


@pytest.mark.full
@pytest.mark.process
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_five_random_moments_ends_like_an_uninterrupted_one(seed, whole, tmp_path):
    draw = random.Random(seed)
    first = draw.randint(1, 12)
    kills = [f"update:{first}", f"torn:{2 * draw.randint(1, 3) - 1}", f"renamed:{draw.randint(1, 3)}"]
    kills += [f"seconds:{draw.uniform(0.0, 0.3):.4f}" for _ in range(2)]
    draw.shuffle(kills)
    kills.remove(f"update:{first}")  # a later update may be all that is left
    check_killed([f"update:{first}", *kills], whole, tmp_path)

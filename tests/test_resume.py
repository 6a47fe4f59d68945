"""Resume: a run that is killed and started again ends with the weights of an uninterrupted one."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import os, signal, sys
import keras, numpy as np, tfopt

folder, kill_at, output = sys.argv[1], int(sys.argv[2]), sys.argv[3]
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 3)).astype("uint8")
batches = tfopt.data.pipeline(
    tfopt.data.load({"train": (images, np.arange(60) % 3)}, validation_split=0, test_split=0).train,
    8, augment=tfopt.data.Augment(shift=0.1),
)
layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dropout(0.3)]
model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(3, activation="softmax")])
model.compile(tfopt.optimizers.AdamW(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

resume = tfopt.callbacks.Resume(folder, batches, every_batches=3)
model.fit(batches, epochs=4, verbose=0, shuffle=False, callbacks=[resume, Kill()])
np.savez(output, *[v.numpy() for v in model.variables], iterations=model.optimizer.iterations.numpy())
"""


def run(tmp_path, folder, kill_at, output):
    """The exit code of the script, which kills itself at an update unless that is 0."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / folder), str(kill_at), str(tmp_path / output)]
    return subprocess.run(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, timeout=200).returncode


@pytest.mark.process
def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path):
    assert run(tmp_path, "whole", 0, "whole.npz") == 0
    whole = np.load(tmp_path / "whole.npz")
    assert whole["iterations"] == 32  # 4 epochs of 8 batches
    for kill_at in (5, 19):  # twice in the same run, inside an epoch both times
        assert run(tmp_path, "killed", kill_at, "killed.npz") == -signal.SIGKILL
    assert run(tmp_path, "killed", 0, "killed.npz") == 0
    killed = np.load(tmp_path / "killed.npz")
    assert set(whole) == set(killed)
    for name in whole:
        np.testing.assert_array_equal(whole[name], killed[name])

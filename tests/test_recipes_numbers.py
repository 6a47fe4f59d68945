"""The numbers of a whole small run, stored: a change of structure must not change what is trained."""

import keras
import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_digits

import tfopt
from tfopt.recipes.progress import ConsoleProgress

L = keras.layers
# Of version 0.1.0 on TensorFlow 2.21. In another order of summation they differ in the fourth digit.
EXPECTED = {
    "head": {"loss": [1.728038], "val_loss": [1.893735], "val_accuracy": [0.4]},
    "fine-tuning": {"loss": [1.815508, 1.808904], "val_loss": [1.959615, 1.941813]},
    "quantization": {"val_loss": [1.943248]},
}


@pytest.mark.full
def test_a_run_gives_the_stored_numbers(tmp_path):
    found = load_digits()
    images, labels = np.repeat((found.images * 15.9).astype("uint8")[..., None], 3, -1), found.target
    cuts = {"train": slice(0, 100), "validation": slice(100, 150), "test": slice(150, 200)}
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((32, 32, 3))
    x = L.Rescaling(1 / 127.5, offset=-1.0)(x)
    for filters in (16, 32):
        x = L.Conv2D(filters, 3, 2, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization(momentum=0.8)(x))
        x = L.ReLU()(L.DepthwiseConv2D(3, padding="same")(x))
    x = L.Softmax()(L.Dense(10)(L.GlobalAveragePooling2D()(x)))
    history = tfopt.finetune(
        {name: (images[cut], labels[cut]) for name, cut in cuts.items()},
        model=keras.Model(inputs, x),
        epochs=2,
        compress_epochs=1,
        batch_growth=2,
        output=str(tmp_path / "run"),
        progress=ConsoleProgress(Console(quiet=True)),
    ).history
    for stage, curves in EXPECTED.items():
        for name, values in curves.items():
            assert history[stage][name] == pytest.approx(values, rel=1e-3), f"{stage}: {name}"

"""MLPerf Tiny's reference models in int8 beside its own files: python benchmarks/mlperf_tiny.py FOLDER.

FOLDER holds `trained_models` of mlcommons/tiny (Apache-2.0): `vww_96.h5` with `vww_96_int8.tflite` (visual
wake words), `pretrainedResnet.h5` with `pretrainedResnet_quant.tflite` (image classification), `ad01.h5`
with `ad01_int8.tflite` (anomaly detection). Without `--images`, a folder of photographs, the inputs of the
first two are drawn at random, and agreement says little.

For each model: operations, bytes, the share of inputs for which the file names another class than the float
model, and the signal-to-noise ratio against it. Integers in and out, as the benchmark asks, ranges from 100
inputs, judged on the others.
"""

import argparse
import logging
import pathlib
import tempfile

import numpy as np
from rich.console import Console
from rich.table import Table

import tfopt
from tfopt import compress
from tfopt.compress._agreement import decibels

# Model, the benchmark's own file, side of the images, what one pixel value is divided by.
MODELS = (
    ("vww_96", "vww_96_int8", 96, 255.0),
    ("pretrainedResnet", "pretrainedResnet_quant", 32, 1.0),
    ("ad01", "ad01_int8", None, 1.0),
)
INPUTS, CALIBRATION = 300, 100


def photographs(folder: pathlib.Path | None, size: int) -> np.ndarray:
    """Images of the size with values 0 to 255."""
    if folder is None:
        return np.random.default_rng(0).integers(0, 256, (INPUTS, size, size, 3)).astype("float32")
    from PIL import Image

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    step = max(1, len(files) // INPUTS)
    images = [Image.open(path).convert("RGB").resize((size, size)) for path in files[::step][:INPUTS]]
    return np.stack([np.asarray(image) for image in images]).astype("float32")


def features() -> np.ndarray:
    """Five frames of 128 log-mel bands, as loud as those of the benchmark's data."""
    return (np.random.default_rng(0).normal(size=(INPUTS, 640)) * 12 - 30).astype("float32")


def changed(expected: np.ndarray, received: np.ndarray) -> str:
    """The share of inputs that get another class; none for the autoencoder."""
    if expected.shape[-1] > 100:
        return ""
    return f"{np.mean(expected.argmax(-1) != received.argmax(-1)):.1%}"


def measured(
    name: str, file: compress.TFLiteModel, data: np.ndarray, expected: np.ndarray
) -> tuple[str, ...]:
    """One row of the table."""
    received = file.predict(data).reshape(expected.shape)
    return (
        name,
        str(len(file.inspect().operations)),
        f"{len(file.content):,}",
        changed(expected, received),
        f"{decibels(expected, received):.1f} dB",
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=pathlib.Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    table = Table("file", "operations", "bytes", "other class", "against float")
    for name, theirs, size, divisor in MODELS:
        data = features() if size is None else photographs(options.images, size) / divisor
        model = tfopt.models.load(options.folder / f"{name}.h5")
        judged = data[CALIBRATION:]
        expected = model.predict(judged, verbose=0)
        reference = compress.TFLiteModel(options.folder / f"{theirs}.tflite")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"{name}.tflite")
            ours = compress.export(
                model, path, "int8", data[:CALIBRATION], input_type="int8", output_type="int8"
            )
            table.add_row(*measured(f"{name}, benchmark's", reference, judged, expected))
            table.add_row(*measured(f"{name}, tfopt", ours, judged, expected), end_section=True)
    Console().print(table)


if __name__ == "__main__":
    main()

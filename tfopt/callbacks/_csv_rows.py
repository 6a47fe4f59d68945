"""The file of a `CSVLogger`: its rows belong to the state of a run."""

import json
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


def read_rows(callback: keras.callbacks.CSVLogger) -> np.ndarray:
    """What is in the file; Keras flushes it after every row."""
    if not tf.io.gfile.exists(callback.filename):
        return np.zeros(0, np.uint8)
    with tf.io.gfile.GFile(callback.filename, "rb") as file:
        return np.frombuffer(file.read(), np.uint8)


def write_rows(callback: keras.callbacks.CSVLogger, rows: bytes) -> None:
    """Puts the rows of the checkpoint in place of what is in the file, and opens it behind them.

    Keras has emptied it when training began, or rows of epochs after the checkpoint are in it.
    """
    callback.csv_file.close()
    with tf.io.gfile.GFile(callback.filename, "wb") as file:
        file.write(rows)
    append, callback.append = callback.append, True
    keras.callbacks.CSVLogger.on_train_begin(callback)
    callback.append = append


def begin_anew(callbacks: Sequence[keras.callbacks.Callback], note: pathlib.Path) -> None:
    """Cuts off the rows of an attempt that ended before its first checkpoint.

    Args:
        callbacks: Those of a `fit` that begins with its first epoch.
        note: File that holds the length of each file when the first attempt began. The first checkpoint
            deletes it: from then on, the rows are in the checkpoint.
    """
    loggers = [each for each in callbacks if isinstance(each, keras.callbacks.CSVLogger)]
    if not loggers:
        return
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or a torn one
        found = None
    is_whole = isinstance(found, dict) and all(isinstance(length, int) for length in found.values())
    before: dict[str, int] = found if is_whole else {}
    for logger in loggers:
        rows = read_rows(logger)
        length = before.setdefault(logger.filename, len(rows))
        if logger.append and len(rows) > length:
            write_rows(logger, rows[:length].tobytes())
    note.write_text(json.dumps(before), encoding="utf-8")

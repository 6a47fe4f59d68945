"""The file of a `CSVLogger` under `Resume`."""

import contextlib

import keras
import pytest
from test_resume_data import Interruption, run


@pytest.mark.parametrize("append", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_file_of_csv_logger_is_that_of_an_unbroken_run(append, tmp_path):
    def logger(name):
        if append:
            (tmp_path / name).write_bytes(b"epoch,loss\r\n7,0.5\r\n")
        return tmp_path / name

    whole, broken = logger("whole.csv"), logger("broken.csv")
    run(tmp_path / "whole", "arrays", callbacks=[keras.callbacks.CSVLogger(str(whole), append=append)])
    for batches in (2, 7, 999, 999):  # within epoch 0, within epoch 1, to the end, and after the end
        csv = keras.callbacks.CSVLogger(str(broken), append=append)
        with contextlib.suppress(Interruption):
            run(tmp_path / "broken", "arrays", batches, callbacks=[csv], every_batches=4)
    assert broken.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("rows", [b"", b"epoch,loss\r\n7,0.5\r\n"])
def test_rows_of_attempts_without_a_checkpoint_are_cut_off(rows, tmp_path):
    """A run that is killed before its first save begins anew, and so does its file."""
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    for path in (whole, broken):
        path.write_bytes(rows)
    logger = keras.callbacks.CSVLogger(str(whole), append=True)
    run(tmp_path / "whole", "arrays", callbacks=[logger])
    for batches in (7, 9, 999):
        csv = keras.callbacks.CSVLogger(str(broken), append=True)
        with contextlib.suppress(Interruption):
            run(tmp_path / "broken", "arrays", batches, callbacks=[csv], every_batches=99)
    assert broken.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "broken" / "rows.json").exists()

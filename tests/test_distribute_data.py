"""Data workers: other processes prepare what one or several training workers read."""

import io
import json
import pathlib

import pytest
import tensorflow as tf

from tfopt.distribute import launch, prepare_remotely

SCRIPT = str(pathlib.Path(__file__).parent / "workers" / "served.py")


def served(folder: pathlib.Path, workers: int, data_workers: int) -> list[list[float]]:
    """The losses of every worker."""
    output = io.StringIO()
    code = launch([SCRIPT, str(folder)], workers, data_workers=data_workers, grace_seconds=1.0, output=output)
    assert code == 0, output.getvalue()[-4000:]
    return [json.loads((folder / f"losses-{worker}.json").read_text()) for worker in range(workers)]


@pytest.mark.process
def test_one_worker_reads_every_element_once_and_trains(tmp_path):
    ((first, last),) = served(tmp_path, workers=1, data_workers=2)
    assert sorted(json.loads((tmp_path / "arrived.json").read_text())) == list(range(64))
    assert last < first


@pytest.mark.full
@pytest.mark.process
def test_two_workers_train_on_what_others_prepare(tmp_path):
    one, other = served(tmp_path, workers=2, data_workers=1)
    assert one == other and one[1] < one[0]


def test_without_data_workers_nothing_changes(monkeypatch):
    monkeypatch.delenv("TFOPT_DATA_SERVICE", raising=False)
    dataset = tf.data.Dataset.range(3)
    assert prepare_remotely(dataset) is dataset


def test_a_dataset_that_ends_is_refused_for_several_workers(monkeypatch):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    with pytest.raises(ValueError, match="must be endless"):
        prepare_remotely(tf.data.Dataset.range(3), address="127.0.0.1:1")

"""`finetune` on four workers of which one is killed: the job starts again and ends as if nothing had been."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image
from workers import recipe

WORKERS = 4
pytestmark = [pytest.mark.full, pytest.mark.process]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Starts a fine-tuning of 96 small images in a folder, and gives the launcher's process."""
    folder = tmp_path_factory.mktemp("job")
    recipe.network().save(folder / "own.keras")
    for number, image in enumerate(recipe.blocks(96)["train"][0]):
        place = folder / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")

    def start(output, *options):
        words = ["launch", "-n", str(WORKERS), "--grace", "2", *options, "finetune", "--output", str(output)]
        words += [
            "--data",
            str(folder / "photos"),
            "--model",
            str(folder / "own.keras"),
            "--batch-size",
            "16",
        ]
        words += ["--epochs", "12", "--quantization", "dynamic"]
        log = open(f"{output}.log", "w")  # noqa: SIM115 - the process writes to it
        return subprocess.Popen([sys.executable, "-m", "tfopt", *words], stdout=log, stderr=subprocess.STDOUT)

    return start


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    process = job(output)
    assert process.wait(600) == 0, pathlib.Path(f"{output}.log").read_text()[-3000:]
    return output


def worker_process(launcher, index):
    """The process of a worker, by what the launcher has put into its environment."""
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in children:
        entries = pathlib.Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        config = dict(entry.split("=", 1) for entry in entries if "=" in entry).get("TF_CONFIG", "{}")
        if json.loads(config).get("task", {}).get("index") == index:
            return int(child)
    raise AssertionError(f"no worker {index} among {children}")


def wait_for(pattern, folder, process):
    while not list(folder.glob(pattern)):
        assert process.poll() is None, pathlib.Path(f"{folder}.log").read_text()[-3000:]
        time.sleep(0.02)


@pytest.mark.parametrize("victim", [0, 2], ids=["the chief", "another worker"])
def test_a_killed_worker_costs_nothing_but_time(victim, job, whole, tmp_path):
    output = tmp_path / "run"
    process = job(output, "--max-restarts", "1")
    wait_for("checkpoints/fine-tuning/worker-0/*.ckpt", output, process)
    os.kill(worker_process(process, victim), signal.SIGKILL)
    assert process.wait(900) == 0, pathlib.Path(f"{output}.log").read_text()[-3000:]
    assert "fine-tuning" in pathlib.Path(f"{output}.log").read_text()
    same_run(output, whole)


def rows_of(run):
    return json.loads((run / "comparison.json").read_text())["rows"]


def same_run(output, whole):
    """Bit-identical weights, the same file, the same measures, nothing left behind."""
    for value, other in zip(
        *(keras.models.load_model(run / "model.keras").get_weights() for run in (output, whole))
    ):
        np.testing.assert_array_equal(value, other)
    assert (output / "model.tflite").read_bytes() == (whole / "model.tflite").read_bytes()
    assert [row["accuracy"] for row in rows_of(output)] == [row["accuracy"] for row in rows_of(whole)]
    names = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        for run in (output, whole)
    ]
    assert names[0] == names[1]

"""docs/distribution.md: its script runs on two workers, its files parse, its table is the benchmark's."""

import io
import json
import os
import pathlib
import re
import runpy
import subprocess

import keras
import pytest

from tfopt.distribute import launch
from tfopt.distribute.cluster import read_cluster

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "distribution.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.process
@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.full)])
def test_the_script_runs(workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    pathlib.Path("train.py").write_text(code)
    output = io.StringIO()
    assert launch(["train.py"], workers, output=output) == 0, output.getvalue()[-4000:]
    assert keras.saving.load_model("model.keras").output_shape == (None, 10)


def test_the_shell_parts_are_well_formed():
    by_hand, slurm = blocks("bash")
    for code in (by_hand, slurm):
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    config = re.search(r"TF_CONFIG='(.*)'", by_hand)[1]
    assert read_cluster({"TF_CONFIG": config}).workers == tuple(json.loads(config)["cluster"]["worker"])
    assert slurm.startswith("#!") and "srun" in slurm


def test_the_table_is_that_of_the_benchmark():
    assert runpy.run_path(os.fspath(ROOT / "benchmarks" / "efficiency.py"))["table"]() in TEXT


def test_what_large_sets_need_is_what_the_benchmark_prints():
    scale = runpy.run_path(os.fspath(ROOT / "benchmarks" / "scale.py"))
    text = (ROOT / "docs" / "scale.md").read_text()
    assert scale["needs"]() in text and scale["efficiency"]() in text
    rate, cores = 8 * 2_500, 8 * 2_500 / 300
    assert f"{rate * 40e3 / 1e9:.1f} GB/s" in scale["needs"]() and f"| {cores:.0f} |" in scale["needs"]()

"""The benchmarks: ratios are kept and compared, the script for accelerators runs."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"


def test_ratios_that_fell_by_more_than_a_tenth_are_listed(tmp_path, monkeypatch):
    parts = runpy.run_path(os.fspath(FOLDER / "ratios.py"))
    kept = tmp_path / "ratios.jsonl"
    monkeypatch.setenv("TFOPT_RATIOS", os.fspath(kept))
    for name, ratio in (("a", 2.0), ("b", 1.0), ("a", 1.7), ("new", 0.1)):
        parts["record"](name, ratio)
    now = parts["collected"](kept)
    assert now == {"a": 1.7, "b": 1.0, "new": 0.1}
    assert parts["fallen"]({"a": 2.0, "b": 1.1, "gone": 9.0}, now) == ["a: 1.70, was 2.00 (-15%)"]
    monkeypatch.delenv("TFOPT_RATIOS")
    parts["record"]("c", 1.0)
    assert "c" not in parts["collected"](kept)


@pytest.mark.full
@pytest.mark.process
def test_benchmarks_are_compared_with_an_earlier_run(tmp_path):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps({"gpu: float32 over float32": 2.0}))
    options = ["gpu", "--quick", "--save", str(after), "--compare", str(before)]
    made = subprocess.run(
        [sys.executable, str(FOLDER / "run_all.py"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert made.returncode == 1, made.stderr[-2000:]
    assert "no accelerator" in made.stdout and "1 fell by more than 10%" in made.stdout
    assert "gpu: float32 over float32: 1.00, was 2.00 (-50%)" in made.stdout
    found = json.loads(after.read_text())
    assert {"gpu: AdamW against Keras", "gpu: plain step over one of quantize_aware"} <= set(found)


@pytest.mark.process
def test_a_benchmark_that_does_not_exist_is_named():
    made = subprocess.run(
        [sys.executable, str(FOLDER / "run_all.py"), "nothing"], capture_output=True, text=True
    )
    assert made.returncode == 2 and "unknown: nothing; there are batch_ramp" in made.stderr

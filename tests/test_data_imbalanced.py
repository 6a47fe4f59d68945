"""examples/imbalanced.py: the data it makes, the gain it shows, the table it prints."""

import pathlib
import runpy
import sys

import numpy as np
import pytest

import tfopt

PATH = pathlib.Path(__file__).parent.parent / "examples" / "imbalanced.py"


@pytest.fixture(scope="module")
def example():
    assert len(PATH.read_text().splitlines()) <= 120
    return runpy.run_path(str(PATH))


def test_the_training_part_has_a_long_tail_and_wrong_labels(example):
    parts, noisy = (example["long_tailed"](0, 0.02, noise) for noise in (0.0, 0.3))
    counts = np.bincount(parts["train"][1])
    assert (np.diff(counts) < 0).all() and counts[0] > 40 * counts[-1] and counts[-1] >= 2
    wrong = (parts["train"][1] != noisy["train"][1]).mean()
    assert 0.15 < wrong < 0.35 and set(noisy["train"][1]) == set(range(10))
    tested = np.bincount(parts["test"][1])
    assert tested.min() > 0.9 * tested.max()
    assert np.array_equal(parts["test"][1], noisy["test"][1])


def test_logit_adjustment_finds_rare_digits(example):
    parts = example["long_tailed"](0, 0.02, 0.0)
    data = tfopt.data.load(parts, validation_split=0, test_split=0)
    how = example["methods"](data.class_counts["train"])
    plain, adjusted = (
        example["macro_recall"](example["trained"](data, 0, 250, how[name]), parts["test"])
        for name in ("plain", "LogitAdjusted")
    )
    assert adjusted[0] > plain[0] + 0.01 and adjusted[1] > plain[1] + 0.04


def test_it_prints_a_table(example, monkeypatch, capsys):
    names, methods = ("plain", "rejection", "weights, balanced"), example["methods"]
    few = lambda counts: {name: methods(counts)[name] for name in names}  # noqa: E731
    monkeypatch.setitem(example["main"].__globals__, "methods", few)
    monkeypatch.setattr(sys, "argv", [str(PATH), "--seeds", "1", "--updates", "5"])
    example["main"]()
    output = capsys.readouterr().out
    assert all(name in output for name in names) and "Focal" not in output

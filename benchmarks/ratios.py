"""Ratios that `run_all.py` keeps and compares between two states of the code: the larger, the better."""

import json
import os
import pathlib

VARIABLE = "TFOPT_RATIOS"  # names the file, one JSON object a line; without it nothing is kept
MOST_LOST = 0.10


def record(name: str, ratio: float) -> None:
    """Keeps a ratio, if somebody collects them.

    Args:
        name: What was measured, the same in every run.
        ratio: Of two measurements of one run, so that what else the machine does hits both.
    """
    path = os.environ.get(VARIABLE)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "ratio": float(ratio)}) + "\n")


def collected(path: pathlib.Path) -> dict[str, float]:
    """All ratios of a file, the last of each name."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {row["name"]: row["ratio"] for row in rows}


def fallen(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """A line for each ratio that fell by more than a tenth."""
    both = sorted(set(before) & set(now))
    return [
        f"{name}: {now[name]:.2f}, was {before[name]:.2f} ({now[name] / before[name] - 1:+.0%})"
        for name in both
        if now[name] < (1 - MOST_LOST) * before[name]
    ]

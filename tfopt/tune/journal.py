"""The record of a search: one line per finished trial, on the disk before the next one starts.

It is what a search resumes from: the tuner is asked for its trials again, which it draws reproducibly
from the seed and the results, and those that the journal knows are not run a second time. So nothing
but this file must survive a crash, several processes may append to it, and a line cut short by a full
disk costs one trial.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, final

from tfopt._checks import message
from tfopt._locks import lock


@final
@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Args:
        values: The settings it ran with.
        epochs: How long it trained, or None where the tuner did not say.
        metrics: What it reported; empty if it failed.
        seconds: Wall time.
        error: Why it failed, empty if it did not.
    """

    values: Mapping[str, Any]
    epochs: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def key(self) -> str:
        """What makes two trials the same."""
        return json.dumps([as_json(self.values), self.epochs], sort_keys=True)


@final
class Journal:
    """Reads and appends trials.

    Args:
        path: The file, made with its folder if need be.
        header: What must be the same on resuming: space (by setting), tuner, seed, data. JSON-able.

    Raises:
        ValueError: If the file was made with another header.
    """

    def __init__(self, path: pathlib.Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._settings = set(header["space"])
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._lines()
        headers = [line["search"] for line in lines if isinstance(line.get("search"), dict)]
        if not lines:
            self._write({"search": as_json(header)})
        elif not headers:
            fix = (
                f"Its line on what is searched is damaged. Choose another `output`, or delete {str(path)!r}."
            )
            raise ValueError(message("output", "a new folder or that of the same search", str(path), fix))
        elif headers[0] != as_json(header):
            old = headers[0]
            changed = sorted(key for key in {*old, *header} if old.get(key) != as_json(header).get(key))
            was = {key: old.get(key) for key in changed}
            fix = f"It was started with other values of {', '.join(changed)}: {was}. Choose another `output`."
            raise ValueError(message("output", "a new folder or that of the same search", str(path), fix))

    def append(self, trial: Trial) -> None:
        """Adds a trial, whole and on the disk when this returns."""
        record = {**asdict(trial), "values": as_json(trial.values), "key": trial.key}
        self._write(record)

    def trials(self) -> dict[str, Trial]:
        """All trials by key, the failed ones too. Values are as JSON holds them."""
        names = {each.name for each in fields(Trial)}
        found = {}
        for line in self._lines():
            if {*names, "key"} <= set(line) and isinstance(line["values"], dict):
                trial = Trial(**{name: line[name] for name in names})
                if trial.key == line["key"] and set(trial.values) <= self._settings:  # else damaged
                    found[trial.key] = trial
        return found

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        parsed = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut short when the process or the disk gave out
            if isinstance(found, dict):
                parsed.append(found)
        return parsed

    def _write(self, record: Mapping[str, Any]) -> None:
        """One locked append; begins a new line in case the last one was cut short."""
        with open(self.path, "ab") as file:
            lock(file.fileno(), wait=True)
            fresh = file.tell() == 0
            try:
                file.write((("" if fresh else "\n") + json.dumps(record)).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise self.failed_write(error) from error

    def failed_write(self, error: OSError) -> OSError:
        """The error of a full disk with what to do about it."""
        text = f"{error.strerror}. The earlier trials are safe in {self.path}: make room, run again"
        return OSError(error.errno, text)


def short(value: Any) -> str:
    """The value as text, a float with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def in_words(values: Mapping[str, Any]) -> str:
    """Settings or metrics in one line."""
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def as_json(value: Any) -> Any:
    """The value as JSON gives it back: a dataclass as its fields; NaN and what JSON does not know as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float | str | None) else repr(value)

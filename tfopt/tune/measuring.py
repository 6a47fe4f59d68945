"""Measures settings in a process of its own, where running out of memory or crashing is a result."""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Literal, final

from tfopt._surroundings import KILL, signal_group
from tfopt.tune._child import MARK
from tfopt.tune.machine import available_memory, resident_memory
from tfopt.tune.subject import Subject
from tfopt.tune.training_setting import TrainingSetting

Status = Literal["ok", "out of memory", "too slow", "crashed"]

_COMMAND = "import sys; from tfopt.tune._child import main; main(sys.argv[1])"
_POLL_SECONDS = 0.05
_START_SECONDS = 300.0  # of TensorFlow and the model, on a machine that has much else to do
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OOM when", "MemoryError", "bad_alloc")
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Exit)\b", re.MULTILINE)  # where a traceback says what was wrong
_KILLED = -KILL  # what the system does to a process that takes the last memory
_SHARE_OF_MEMORY = 0.9


@final
@dataclasses.dataclass(frozen=True)
class Measurement:
    """What became of one setting.

    Args:
        setting: What was measured.
        status: "ok", or why there is no figure.
        samples_per_second: One value for each window of time, compilation excluded.
        compile_seconds: What the first update took more than later ones.
        effective: The setting with what None stood for; None if it failed.
        detail: The error, if there was one.
    """

    setting: TrainingSetting
    status: Status = "ok"
    samples_per_second: tuple[float, ...] = ()
    compile_seconds: float = 0.0
    effective: TrainingSetting | None = None
    detail: str = ""

    @property
    def rate(self) -> float:
        """The median of the windows; 0 if it failed."""
        return statistics.median(self.samples_per_second) if self.samples_per_second else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Measurement":
        """The inverse of `as_dict`."""
        settings = {
            name: TrainingSetting(**values[name])
            for name in ("setting", "effective")
            if values[name] is not None
        }
        return cls(**{**values, **settings, "samples_per_second": tuple(values["samples_per_second"])})


@final
class Measurer:
    """A process that trains the subject at any setting. It is started anew after every failure.

    Args:
        subject: Model and data.
        limit_seconds: Time for one measurement, compilation included.
        memory_limit: Bytes that the process may take; None: 90 % of what is free now.

    Use it in a `with` statement, which ends the process.
    """

    def __init__(self, subject: Subject, *, limit_seconds: float, memory_limit: int | None = None) -> None:
        self._subject, self._limit_seconds = subject, limit_seconds
        self._memory_limit = memory_limit or int(_SHARE_OF_MEMORY * available_memory())
        self._child: _Child | None = None

    def __enter__(self) -> "Measurer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def measure(
        self, setting: TrainingSetting, *, seconds: float = 1.0, windows: int = 3, at_least: float = 0.0
    ) -> Measurement:
        """Trains at a setting.

        Args:
            setting: Any; another number of threads costs a new process.
            seconds: Length of a window of measurement.
            windows: Number of windows.
            at_least: Examples per second below which one window is enough.

        Raises:
            RuntimeError: If not even the model and the data can be loaded; holds the error.
        """
        if self._child is not None and self._child.environment != setting.environment:
            self._end()
        if self._child is None:
            self._child = _Child(self._subject.folder, setting.environment)
            ready = self._child.answer(_START_SECONDS, self._memory_limit)
            if isinstance(ready, tuple):
                self._end()
                raise RuntimeError(f"The model and the data could not be loaded: {ready[0]}. {ready[1]}")
        self._child.ask({"seconds": seconds, "windows": windows, "at_least": at_least}, setting)
        answer = self._child.answer(self._limit_seconds, self._memory_limit)
        if isinstance(answer, tuple):
            self._end()
            return Measurement(setting, answer[0], detail=answer[1])
        rates, effective = tuple(answer["samples_per_second"]), TrainingSetting(**answer["effective"])
        return Measurement(setting, "ok", rates, answer["compile_seconds"], effective)

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """One run of `tfopt.tune._child`."""

    def __init__(self, folder: pathlib.Path, environment: dict[str, str]) -> None:
        self.environment = environment
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `end`)
        path = os.pathsep.join(filter(None, sys.path))
        growth = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # two of these processes share a GPU at times
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(folder)],
            env={**os.environ, **growth, **environment, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, request: dict[str, Any], setting: TrainingSetting) -> None:
        """Sends a question; a process that has died meanwhile shows in the answer."""
        line = json.dumps({**request, "setting": dataclasses.asdict(setting)}) + "\n"
        if self._process.stdin is not None and self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def answer(self, limit_seconds: float, memory_limit: int) -> dict[str, Any] | tuple[Status, str]:
        """The answer, or what happened instead."""
        deadline = time.monotonic() + limit_seconds
        while True:
            code = self._process.poll()  # first, so that a last answer is not missed
            try:
                return self._answers.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                pass
            if code is not None:
                return self._post_mortem(code)
            if resident_memory(self._process.pid) > memory_limit:
                return "out of memory", f"more than {memory_limit / 1e9:.1f} GB"
            if time.monotonic() > deadline:
                return "too slow", f"not done within {limit_seconds:g} s"

    def end(self) -> None:
        """Kills the process and all that it started."""
        if self._process.poll() is None:
            signal_group(self._process, KILL)
        self._process.wait()
        self._reader.join(timeout=1.0)
        for file in (self._process.stdin, self._process.stdout, self._errors):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):  # it died with a question unread
                    file.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith(MARK):
                self._answers.put(json.loads(line.removeprefix(MARK)))

    def _post_mortem(self, code: int) -> tuple[Status, str]:
        self._errors.seek(0)
        text = self._errors.read()
        errors = list(_ERROR.finditer(text))
        detail = text[errors[-1].start() :] if errors else text.strip()[-300:] or f"exit code {code}"
        starved = code == _KILLED or any(word in text for word in _OUT_OF_MEMORY)
        return ("out of memory" if starved else "crashed"), detail.strip()[:500]

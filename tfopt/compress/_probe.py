"""Runs .tflite files in a child process first: a file that ends the interpreter then ends only the child.

The interpreter trusts what it loads. A damaged file, one made for the purpose, or weights of senseless size
make it read beyond its memory, and the process ends by a signal without a word.
"""

import atexit
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from typing import Any, final

SECONDS = 300.0  # a file that takes longer to load and run once is taken for one that never ends
_SCRIPT = pathlib.Path(__file__).with_name("_probe_child.py")
_DONE = "done"


@final
class _Child:
    """A Python process that loads and runs one file after the other; started at the first need."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0
        self._harmless: set[int] = set()

    def start(self) -> None:
        """Starts the process without waiting: it imports the interpreter while the caller works."""
        with self._lock:
            self._ready()

    def check(self, path: pathlib.Path, content: bytes) -> None:
        """Runs a file once, unless the same content ran before.

        Raises:
            ValueError: If the interpreter ends its process, or does not come to an end.
        """
        with self._lock:
            known = hash(content)
            if known in self._harmless:
                return
            process = self._ready()
            if process is None:
                return
            ended = threading.Event()
            timer = threading.Timer(SECONDS, _end, (process, ended))
            timer.start()
            try:
                harmless = _ask(process, str(path.resolve()))
            except BaseException:
                self.stop()  # its answer would be taken for that to the next question
                raise
            finally:
                timer.cancel()
            if harmless:
                self._harmless.add(known)
                return
            code = process.wait()
            self._process = None
        reason = (
            f"does not come to an end within {SECONDS:g} seconds with" if ended.is_set() else "crashes at"
        )
        raise ValueError(
            f"TFLite's interpreter {reason} {path.name!r} ({_ending(code)}; tried in a process of its own): "
            "the file is damaged, or holds operations or weights that no interpreter can run."
        )

    def _ready(self) -> subprocess.Popen | None:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._process, self._owner = _started(), os.getpid()
        return self._process

    def stop(self) -> None:
        """Ends the process; it would end by itself when this one does."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._process = None


def _end(process: subprocess.Popen, ended: threading.Event) -> None:
    ended.set()
    process.kill()


def _started() -> subprocess.Popen | None:
    """The process, or None where Python cannot start another, as in a program that embeds it."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    paths = [path for path in sys.path if path]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            [sys.executable, str(_SCRIPT)],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, not for that one
        )
    except OSError:
        return None
    return process if _send(process, paths) else None


def _send(process: subprocess.Popen, value: Any) -> bool:
    stream: Any = process.stdin
    try:
        stream.write(json.dumps(value) + "\n")
        stream.flush()
    except OSError:
        return False
    return True


def _ask(process: subprocess.Popen, path: str) -> bool:
    """Whether the process lives after it ran the file."""
    if not _send(process, path):
        return False
    lines: Any = process.stdout
    return any(line.strip() == _DONE for line in lines)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


CHILD = _Child()
atexit.register(CHILD.stop)

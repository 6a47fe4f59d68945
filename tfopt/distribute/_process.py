"""Child processes that live and die together: prefixed output, logs, first failure ends all."""

import io
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from tfopt._surroundings import KILL, TERMINATE, signal_group

POLL_SECONDS = 0.05
# Python writes to a pipe in blocks, and on Windows in an encoding that lacks most letters.
_TEXT = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


class ProcessGroup:
    """Starts one process per command and watches them.

    Every child leads its own process group, so that stopping it also stops what it has started.

    Args:
        commands: Name -> command line.
        environments: Name -> variables on top of this process's own.
        output: Where the lines of all children go, each with its `[name]`. None: nowhere.
        log_dir: Directory for one file per child, or None. Files of earlier runs are appended to.
        lifeline: Give the children a standard input that ends when this process does, however it does.

    Attributes:
        failed: Name of the child that failed first, or None.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        environments: Mapping[str, Mapping[str, str]],
        *,
        output: TextIO | None = sys.stdout,
        log_dir: str | os.PathLike | None = None,
        lifeline: bool = False,
    ) -> None:
        self.failed: str | None = None
        self._output = output
        self._lock = threading.Lock()
        self._children: dict[str, subprocess.Popen] = {}
        self._pumps: list[threading.Thread] = []
        for name, command in commands.items():
            child = subprocess.Popen(
                list(command),
                env={**os.environ, **_TEXT, **environments[name]},
                stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._children[name] = child
            pump = threading.Thread(target=self._pump, args=(name, child, log_dir), daemon=True)
            pump.start()
            self._pumps.append(pump)

    def wait(self, names: Sequence[str], timeout_seconds: float | None = None) -> int:
        """Waits until the named children have ended or any child has failed.

        Returns:
            0, or the exit code of the first failure (128 + signal number if a signal killed it).

        Raises:
            TimeoutError: After `timeout_seconds`. The children still run.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            codes = {name: child.poll() for name, child in self._children.items()}
            for name, code in codes.items():
                if code:
                    self.failed = name
                    return 128 - code if code < 0 else code
            if all(codes[name] == 0 for name in names):
                return 0
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"The processes did not end within {timeout_seconds:g} s.")
            time.sleep(POLL_SECONDS)

    def terminate(self) -> None:
        """Asks every child to stop, and to save what it has (SIGTERM)."""
        self._signal(TERMINATE)

    def stop(self, grace_seconds: float) -> None:
        """Ends every child: SIGTERM, then SIGKILL after the grace (TensorFlow's workers ignore SIGTERM)."""
        self.terminate()
        deadline = time.monotonic() + grace_seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._signal(KILL)  # also to what a child that has ended leaves behind
        for child in self._children.values():
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        for pump in self._pumps:
            pump.join(timeout=1.0)  # a grandchild that left its group may keep the pipe open

    def _running(self) -> bool:
        return any(child.poll() is None for child in self._children.values())

    def _signal(self, number: int) -> None:
        for child in self._children.values():
            signal_group(child, number)

    def _pump(self, name: str, child: subprocess.Popen, log_dir: str | os.PathLike | None) -> None:
        path = os.devnull if log_dir is None else pathlib.Path(log_dir) / f"worker-{name}.log"
        with open(path, "a", buffering=1, encoding="utf-8") as log, child.stdout or io.StringIO() as lines:
            for line in lines:
                log.write(line)
                if self._output is not None:
                    with self._lock:
                        self._output.write(f"[{name}] {line.removesuffix(chr(10))}\n")
                        self._output.flush()

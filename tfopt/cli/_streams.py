"""Standard output as commands need it: tables for any terminal, and trainings that outlive their reader."""

import sys
from typing import Any

_WIDTH = 110  # characters of a table that goes to a file or another program


def show(result: Any) -> None:
    """Prints anything that rich can draw, without characters that the terminal does not have."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH
    Console(file=sys.stdout, highlight=False, width=width).print(result)


class LastingOutput:
    """Writes to a stream until that fails, as on a full disk or when `head` has ended; then nothing more.

    What is trained for an hour must not end because its progress cannot be shown.

    Args:
        stream: What is written to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._failed = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or does nothing after a failure."""
        if not self._failed:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does nothing after a failure."""
        if not self._failed:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        print(f"standard output cannot be written ({error.strerror}); the run goes on", file=sys.stderr)

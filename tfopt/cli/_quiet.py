"""Keeps what TensorFlow's C++ code says about GPUs, CPU instructions and delegates off the terminal."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator

# Information and warnings of absl and of TensorFlow; errors only if they are about GPUs that are not there.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} \d\d:\d\d:\d\d\.\d+ "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|.*(Unable to register cu|cuInit|CUDA_ERROR_NO_DEVICE|could not find cuda drivers)"
    rb"|To enable the following instructions"
    rb"|INFO: (Created TensorFlow Lite|Initialized TensorFlow Lite)",
    re.IGNORECASE,
)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Passes standard error on without noise, also that of C++ code and of child processes."""
    reading, writing = os.pipe()
    terminal = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_pass_on, args=(reading, terminal), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(terminal, 2)  # closes the pipe, unless a child process still has it
        thread.join(timeout=1.0)
        if not thread.is_alive():
            os.close(terminal)


def _pass_on(reading: int, terminal: int) -> None:
    """Lines as they come."""
    rest = b""
    while chunk := os.read(reading, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not _NOISE.match(line):
                _write(terminal, line + b"\n")
    if rest and not _NOISE.match(rest):
        _write(terminal, rest)
    os.close(reading)


def _write(terminal: int, text: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(terminal, text)

"""Exclusive locks on open files, on POSIX and on Windows. The system drops one when its file is closed."""

import os
import sys

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BYTE = 2**30  # Windows locks bytes, and nobody may read those: this one is beyond the content


def lock(handle: int, *, wait: bool) -> None:
    """Locks a file for this process.

    Args:
        handle: File descriptor, open for writing.
        wait: Whether to wait for another process that holds the lock.

    Raises:
        BlockingIOError: If another process holds it and `wait` is False.
        OSError: If the file system has no locks.
    """
    if sys.platform == "win32":
        _lock_on_windows(handle, wait)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_on_windows(handle: int, wait: bool) -> None:
    place = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, _BYTE, os.SEEK_SET)
    try:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[name-defined,attr-defined]
                return
            except OSError as error:  # LK_LOCK gives up after ten tries, one per second
                if not wait:
                    raise BlockingIOError(error.errno, "locked by another process") from error
    finally:
        os.lseek(handle, place, os.SEEK_SET)

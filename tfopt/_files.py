"""Folders that a run owns, and files that are complete or absent.

A run writes into a folder where people keep other things. So it notes the name of every file before it writes
it, deletes no other file, and holds a lock while it works.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, final

from tfopt._locks import lock

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REPOSITORIES = (".git", ".hg", ".svn")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write to; what was written there takes the place of `path` when it is complete.

    The content reaches the disk before its name does, so a kill or a power cut leaves the old file or the new
    one, never a part.

    Raises:
        OSError: If the disk is full; the message says how much room there is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        text = f"no room to write ({free:,.1f} MB free). Make room, then run the same command again"
        raise OSError(error.errno, text, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file that is complete or absent."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _sync(path: pathlib.Path) -> None:
    """Waits until a file or the names in a folder are on the disk."""
    if sys.platform == "win32":
        if path.is_dir():  # Windows opens no folders; NTFS keeps a journal of the names
            return
        handle = os.open(path, os.O_RDWR)  # where only a writer may flush
    else:
        handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_output(output: pathlib.Path, data: Any = None) -> None:
    """Refuses output folders in which results would mix with what the user keeps there.

    Args:
        output: The folder, which need not exist.
        data: Folder or file of the data. Anything else than an existing path is not looked at.

    Raises:
        ValueError: If `output` is a file, the home folder or above it, the root of a repository, or the data
            folder, above it or inside it (where the results would become a class of the next run).
    """
    folder = output.resolve()
    if folder.exists() and not folder.is_dir():
        raise _refused(output, "is a file")
    if pathlib.Path.home().resolve().is_relative_to(folder):
        raise _refused(output, "is the home folder or above it")
    found = next((name for name in _REPOSITORIES if (folder / name).exists()), None)
    if found is not None:
        raise _refused(output, f"is the root of a repository: it has a {found!r}")
    if not isinstance(data, str | os.PathLike) or not os.path.exists(os.path.expanduser(data)):
        return
    source = pathlib.Path(data).expanduser().resolve()
    if source.is_relative_to(folder):
        raise _refused(output, f"holds the data {str(data)!r}")
    if source.is_dir() and folder.is_relative_to(source):
        raise _refused(output, f"lies inside the data {str(data)!r}, where it would become a class")


def _refused(output: pathlib.Path, reason: str) -> ValueError:
    return ValueError(f"`output` {str(output)!r} {reason}. Choose a new folder, such as 'runs/first'.")


@final
class OwnedFolder:
    """A folder with a list of the files that runs wrote into it, and a lock for the process that writes.

    Args:
        path: The folder. It need not exist; `lock` and `record` make it.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._list = path / ".tfopt" / "files.json"
        self._handle: int | None = None

    def is_empty(self) -> bool:
        """Whether nothing but this class's own files is there."""
        return not self.path.exists() or all(entry.name == ".tfopt" for entry in self.path.iterdir())

    def lock(self) -> None:
        """Makes this process the only one that writes here, until `release` or its end.

        Raises:
            BlockingIOError: If another run holds the folder; the message says which.
        """
        self._list.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._list.with_name("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock(handle, wait=False)  # the system drops it if the process dies
        except BlockingIOError as error:
            holder = os.read(handle, 500).decode(errors="replace") or "another process"
            os.close(handle)
            text = f"in use by {holder}. Wait for it, or choose another `output`"
            raise BlockingIOError(errno.EAGAIN, text, str(self.path)) from error
        except OSError:  # a file system without locks
            pass
        os.ftruncate(handle, 0)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())
        self._handle = handle

    def release(self) -> None:
        """Lets other processes write here."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()

    def record(self, names: Iterable[str]) -> None:
        """Notes files that are about to be written, by path below the folder; "*" stands for any name."""
        before = self.recorded()
        after = sorted({*before, *names})
        if after != before:
            write_text(self._list, json.dumps(after, indent=1))

    def recorded(self) -> list[str]:
        """The names noted so far; none if the list is missing or damaged, and then nothing is deleted."""
        try:
            names = json.loads(self._list.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return sorted(name for name in names if isinstance(name, str)) if isinstance(names, list) else []

    def clear(self, names: Iterable[str] | None = None) -> None:
        """Deletes noted files, then folders that this leaves empty; nothing else.

        Args:
            names: Which of the noted names; None is all.
        """
        recorded = self.recorded()
        gone = recorded if names is None else [name for name in names if name in recorded]
        folders = set()
        for file in self._files(gone):
            file.unlink()
            folders.add(file.parent)
        for folder in sorted(folders, reverse=True):
            while folder != self.path:
                try:
                    folder.rmdir()
                except OSError:  # not empty
                    break
                folder = folder.parent

    def _files(self, names: Iterable[str]) -> list[pathlib.Path]:
        """Existing files of these names, without links and what lies behind links to other folders."""
        root = self.path.resolve()
        found = []
        for name in names:
            for file in sorted(self.path.glob(name)) if _is_relative(name) else []:
                within = file.parent.resolve().is_relative_to(root)
                if within and file.is_file() and not file.is_symlink():
                    found.append(file)
        return found


def _is_relative(name: str) -> bool:
    parts = pathlib.PurePath(name).parts
    return bool(parts) and not pathlib.PurePath(name).is_absolute() and ".." not in parts

"""Checkpoint files that are whole or are not there: a digest, written aside, synced, then renamed.

A file is one line with the format's name and a digest, one line of JSON, and the bytes of the arrays in
the order of the JSON. Nothing in it is code.
"""

import hashlib
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

_FORMAT = b"tfopt-resume-1"
_LOG = logging.getLogger(__name__)


def write(path: pathlib.Path, state: Any) -> None:
    """Writes numbers, strings, None, arrays, and lists and dicts of these; atomically."""
    arrays: list[np.ndarray] = []
    header = json.dumps(_without_arrays(state, arrays)).encode() + b"\n"
    parts = [header, *(np.ascontiguousarray(array).view(np.uint8).reshape(-1) for array in arrays)]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(_FORMAT + b" " + digest.hexdigest().encode() + b"\n")
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name, too, must survive a power cut
    os.fsync(folder)
    os.close(folder)


def read(path: pathlib.Path) -> Any:
    """The inverse of `write`.

    Raises:
        ValueError: If the file is not whole, or is no such file.
    """
    first, _, content = path.read_bytes().partition(b"\n")
    name, _, digest = first.partition(b" ")
    if name != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of `Resume`.")
    if hashlib.blake2b(content, digest_size=16).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged or was not written to its end.")
    header, _, data = content.partition(b"\n")
    return _with_arrays(json.loads(header), memoryview(data), [0])


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"$array": [value.dtype.name, list(value.shape)]}
    if isinstance(value, dict):
        return {"$dict": [[key, _without_arrays(item, arrays)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_without_arrays(item, arrays) for item in value]
    return value


def _with_arrays(value: Any, data: memoryview, offset: list[int]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(item, data, offset) for item in value]
    if not isinstance(value, dict):
        return value
    if "$dict" in value:
        return {key: _with_arrays(item, data, offset) for key, item in value["$dict"]}
    name, shape = value["$array"]
    dtype = np.dtype(tf.dtypes.as_dtype(name).as_numpy_dtype)  # knows bfloat16, NumPy alone does not
    begin = offset[0]
    offset[0] += dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(data[begin : offset[0]], dtype).reshape(shape).copy()


class CheckpointFolder:
    """The last few checkpoints of one worker, named by their number of saved states.

    Args:
        path: Folder, made if needed. With several workers each has a folder inside.
        keep: Number of files to keep, >= 1; several workers keep 2 at least, for one may be a save ahead.
        worker: Index of this worker and number of workers.

    Raises:
        ValueError: If the folder was written by more workers, or by one alone and now there are several.
    """

    def __init__(self, path: pathlib.Path, keep: int, worker: tuple[int, int] = (0, 1)) -> None:
        index, count = worker
        self.keep = keep if count == 1 else max(keep, 2)
        self.folders = [path] if count == 1 else [path / f"worker-{number}" for number in range(count)]
        written = {file.parent for pattern in ("*.ckpt", "worker-*/*.ckpt") for file in path.glob(pattern)}
        if not written <= set(self.folders):
            raise ValueError(
                f"The checkpoints in {path} are of another number of workers than {count}, and would be "
                "ignored. Start as many workers as before, or use another `directory`."
            )
        self.own = self.folders[index]
        self.own.mkdir(parents=True, exist_ok=True)
        for leftover in self.own.glob("*.tmp"):
            leftover.unlink()

    def save(self, number: int, state: Any) -> None:
        """Writes a checkpoint and drops those that are too old."""
        write(self._file(self.own, number), state)
        self._divergence.unlink(missing_ok=True)
        self.rows.unlink(missing_ok=True)
        for old in self._numbers(self.own)[: -self.keep]:
            self._file(self.own, old).unlink()

    def note_divergence(self, epoch: int, variable: str) -> None:
        """Notes for the next start that a state was not saved because it was not finite."""
        _LOG.warning("Resume: `%s` holds NaN or infinity. The last finite checkpoint is kept.", variable)
        note = json.dumps({"epoch": epoch, "variable": variable})
        self._divergence.write_text(note, encoding="utf-8")

    def say_divergence(self) -> None:
        """Warns if the last run ended in values that are not finite."""
        try:
            note = json.loads(self._divergence.read_text(encoding="utf-8"))
            variable, epoch = str(note["variable"]), int(note["epoch"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or a torn one: it is only a hint
            return
        _LOG.warning(
            "Resume: the last run reached NaN or infinity in `%s` by epoch %d. This one goes on from the "
            "last finite state. Lower the learning rate or clip the gradients, else it may end the same way.",
            variable,
            epoch,
        )

    @property
    def rows(self) -> pathlib.Path:
        """Note of what was in the files of `CSVLogger` before the first checkpoint."""
        return self.own / "rows.json"

    @property
    def _divergence(self) -> pathlib.Path:
        return self.own / "diverged.json"

    def latest(self) -> tuple[int, Any] | None:
        """Number and state of the newest checkpoint that is whole for every worker."""
        numbers = [set(self._numbers(folder)) for folder in self.folders]
        shared = set.intersection(*numbers)
        if any(numbers) and not shared:
            missing = ", ".join(str(f) for f, found in zip(self.folders, numbers) if not found)
            _LOG.warning("Training begins anew: no checkpoints in %s. Is the folder shared?", missing)
        for number in sorted(shared, reverse=True):
            try:
                states = {folder: read(self._file(folder, number)) for folder in self.folders}
            except ValueError as error:
                _LOG.warning("%s Trying the checkpoint before it.", error)
                continue
            return number, states[self.own]
        return None

    def unused(self) -> int:
        """A number above all that are here: below damaged ones, new files would be dropped as the oldest."""
        return 1 + max((number for folder in self.folders for number in self._numbers(folder)), default=-1)

    @staticmethod
    def _file(folder: pathlib.Path, number: int) -> pathlib.Path:
        return folder / f"{number:09d}.ckpt"

    @staticmethod
    def _numbers(folder: pathlib.Path) -> list[int]:
        return sorted(int(file.stem) for file in folder.glob("*.ckpt") if file.stem.isdigit())

"""The output folder of a run: finished stages, and the refusal to mix two runs."""

import dataclasses
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Sequence
from typing import Any

import keras

LABELS = "labels.txt"


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """What a finished stage left: the file of its model, its curves and its time."""

    name: str
    history: dict[str, list[float]]
    seconds: float


class RunFolder:
    """A folder that holds one run, and that the same run can be started in again.

    Args:
        path: The folder; it is made if it does not exist.
        identity: Plain values that tell one run from another: options, data, versions.
        overwrite: Empty the folder first if another run is in it.

    Raises:
        FileExistsError: If the folder holds another run, or files that are none of ours.
    """

    def __init__(self, path: str | pathlib.Path, identity: dict[str, Any], overwrite: bool) -> None:
        self.path = pathlib.Path(path)
        self._file = self.path / "run.json"
        identity = json.loads(json.dumps(identity, default=str))
        if overwrite and self._found() is not None:
            shutil.rmtree(self.path)
        self._check_owner(identity)
        self.path.mkdir(parents=True, exist_ok=True)
        found = self._found() or {"stages": []}
        self._state: dict[str, Any] = {"identity": identity, "stages": found["stages"]}
        self._write()

    def _check_owner(self, identity: dict[str, Any]) -> None:
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        state = self._found()
        if state is None:  # which `overwrite` would not replace either
            raise FileExistsError(
                f"`output` {str(self.path)!r} holds files of something else. Choose another `output`."
            )
        found = state["identity"]
        differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
        if differing:
            raise FileExistsError(
                f"`output` {str(self.path)!r} holds another run: {', '.join(differing)} differ. "
                "Choose another `output`, or pass overwrite=True (--overwrite) to replace it."
            )

    def _found(self) -> dict[str, Any] | None:
        """What a run has left here; None also if `run.json` is a file of something else."""
        try:
            state = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return state if isinstance(state, dict) and {"identity", "stages"} <= set(state) else None

    def finished(self, name: str) -> StageRecord | None:
        """The record of a stage if it has ended."""
        for record in self._state["stages"]:
            if record["name"] == name and self.model_path(name).is_file():
                return StageRecord(**record)
        return None

    def finish(self, record: StageRecord, model: keras.Model) -> None:
        """Keeps the model of a stage, then its record, each in one step that a kill cannot tear."""
        save_model(model, self.model_path(record.name))
        self._state["stages"].append(dataclasses.asdict(record))
        self._write()
        shutil.rmtree(self.checkpoints / record.name, ignore_errors=True)

    @property
    def checkpoints(self) -> pathlib.Path:
        """Where an unfinished stage keeps how far it is."""
        return self.path / "checkpoints"

    def model_path(self, stage: str) -> pathlib.Path:
        """Where the model of a stage is kept."""
        return self.path / "stages" / f"{stage}.keras"

    def _write(self) -> None:
        write_text(self._file, json.dumps(self._state, indent=1))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is either complete or not there."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def save_model(model: keras.Model, path: pathlib.Path, class_names: Sequence[str] = ()) -> None:
    """Saves a `.keras` file, with the names of its classes inside, that is complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    model.save(partial)
    if class_names:
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(LABELS, "\n".join(class_names))
    os.replace(partial, path)


def stored_class_names(path: pathlib.Path) -> list[str] | None:
    """The class names inside a `.keras` file, or None."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(LABELS).decode().splitlines() if LABELS in archive.namelist() else None

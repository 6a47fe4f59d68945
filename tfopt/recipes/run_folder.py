"""The output folder of a run: finished stages, and the refusal to mix two runs."""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from tfopt._files import OwnedFolder, replacing, write_text
from tfopt.recipes.stored_task import LABELS, TASK, damage_of
from tfopt.tasks import Classification, Task


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """What a finished stage left: the file of its model, its curves and its time."""

    name: str
    history: dict[str, list[float]]
    seconds: float


class RunFolder:
    """A folder that holds one run, and that the same run can be started in again.

    While the object exists, or until its `with` statement ends, no other process can use the folder.

    Args:
        path: The folder; it is made if it does not exist.
        identity: Plain values that tell one run from another: options, data, versions.
        overwrite: Delete the files of another run first. Files that no run wrote stay.
        inputs: Files that the run reads. With `overwrite`, none of them may lie in the folder.

    Attributes:
        meeting: Where all workers of the run keep their checkpoints; None if they share no folder.

    Raises:
        FileExistsError: If the folder holds another run, or files that are none of ours.
        BlockingIOError: If another process uses the folder.
        ValueError: If `overwrite` would reach behind a link, or an input.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        identity: dict[str, Any],
        overwrite: bool,
        inputs: Iterable[str | pathlib.Path] = (),
    ) -> None:
        self.path = pathlib.Path(path)
        self.meeting: pathlib.Path | None = self.path
        self._file = self.path / "run.json"
        self._owned = OwnedFolder(self.path)
        identity = json.loads(json.dumps(identity, default=str))
        self._check_owner(identity, overwrite)
        if overwrite:
            self._check_inputs(inputs)
        self._owned.lock()
        try:
            self._check_owner(identity, overwrite)  # another process may have begun a run in between
            if overwrite:
                self._owned.clear()
            found = self._found() or {"stages": []}
            self._state: dict[str, Any] = {"identity": identity, "stages": found["stages"]}
            self._write()
        except BaseException:
            self._owned.release()
            raise

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: Any) -> None:
        self._owned.release()

    def _check_owner(self, identity: dict[str, Any], overwrite: bool) -> None:
        if self._owned.is_empty():
            return
        state = self._found()
        if state is None:  # which `overwrite` would not replace either
            raise FileExistsError(self._foreign())
        found = state["identity"]
        differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
        if differing and not overwrite:
            raise FileExistsError(
                f"`output` {str(self.path)!r} holds another run: {', '.join(differing)} differ. "
                "Choose another `output`, or pass overwrite=True (--overwrite) to replace it."
            )

    def _foreign(self) -> str:
        holds = f"`output` {str(self.path)!r} holds files of something else. Choose another `output`."
        if not self._file.exists():
            return holds
        return (
            f"{str(self._file)!r} is damaged or not of a run, so that its folder seems to hold files of "
            "something else. Choose another `output`."
        )

    def _check_inputs(self, inputs: Iterable[str | pathlib.Path]) -> None:
        if self.path.is_symlink():
            target = str(self.path.resolve())
            raise ValueError(
                f"`output` {str(self.path)!r} is a link, and overwrite=True deletes nothing behind links. "
                f"Give the folder itself: {target!r}."
            )
        for file in inputs:
            if pathlib.Path(file).resolve().is_relative_to(self.path.resolve()):
                raise ValueError(
                    f"{str(file)!r} is needed and lies in `output` {str(self.path)!r}, which overwrite=True "
                    "replaces. Choose another `output`."
                )

    def _found(self) -> dict[str, Any] | None:
        """What a run has left here; None also if `run.json` is damaged or a file of something else."""
        try:
            state = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        fits = isinstance(state, dict) and isinstance(state.get("identity"), dict)
        if not fits or not isinstance(state.get("stages"), list):
            return None
        fields = {field.name for field in dataclasses.fields(StageRecord)}
        whole = all(isinstance(stage, dict) and set(stage) == fields for stage in state["stages"])
        return state if whole else None

    def finished(self, name: str) -> StageRecord | None:
        """The record of a stage if it has ended and its model can be read; else it has to run again."""
        for record in self._state["stages"]:
            if record["name"] == name and not damage_of(self.model_path(name)):
                return StageRecord(**record)
        return None

    def finish(self, record: StageRecord, model: keras.Model) -> None:
        """Keeps the model of a stage, then its record, each in one step that a kill cannot tear."""
        save_model(model, self.writing(f"stages/{record.name}.keras"))
        others = [other for other in self._state["stages"] if other["name"] != record.name]
        self._state["stages"] = [*others, dataclasses.asdict(record)]
        self._write()
        self._owned.clear(_checkpoints(record.name))

    def writing(self, name: str) -> pathlib.Path:
        """The path of a file that the run is about to write."""
        self._owned.record([name])
        return self.path / name

    def all_finished(self) -> list[StageRecord]:
        """The records of all stages that need not run again."""
        found = [self.finished(record["name"]) for record in self._state["stages"]]
        return [record for record in found if record is not None]

    def adopt(self, record: StageRecord, content: bytes) -> None:
        """Takes over a stage that another worker has finished, with the bytes of its model."""
        with replacing(self.writing(f"stages/{record.name}.keras")) as partial:
            partial.write_bytes(content)
        self._state["stages"].append(dataclasses.asdict(record))
        self._write()

    def checkpoints(self, stage: str) -> pathlib.Path | None:
        """The folder in which an unfinished stage keeps how far it is; None if the workers share none."""
        if self.meeting is None:
            return None
        self._owned.record(_checkpoints(stage))
        return self.meeting / "checkpoints" / stage

    def drop_checkpoints(self, workers: int) -> bool:
        """Deletes checkpoints if another number of workers wrote them: their parts do not fit. Says if so."""
        fitting = {f"worker-{number}" for number in range(workers)} if workers > 1 else {""}
        found: dict[str, set[str]] = {}
        for path in self.path.glob("checkpoints/**/*.ckpt"):
            stage, *worker = path.parent.relative_to(self.path / "checkpoints").parts or ("",)
            found.setdefault(stage, set()).add("".join(worker))
        unfit = [stage for stage, writers in found.items() if not writers <= fitting]
        for stage in unfit:
            self._owned.clear(_checkpoints(stage))
        return bool(unfit)

    def logs(self, stage: str) -> pathlib.Path:
        """The folder for the TensorBoard curves of a stage."""
        self._owned.record(f"logs/{stage}/{part}/events.*" for part in ("train", "validation"))
        return self.path / "logs" / stage

    def model_path(self, stage: str) -> pathlib.Path:
        """Where the model of a stage is kept."""
        return self.path / "stages" / f"{stage}.keras"

    def _write(self) -> None:
        write_text(self.writing("run.json"), json.dumps(self._state, indent=1))


def _checkpoints(stage: str) -> list[str]:
    """What `Resume` writes, on one worker or on several."""
    folders = f"checkpoints/{stage}", f"checkpoints/{stage}/worker-*"
    return [f"{folder}/*.{kind}" for folder in folders for kind in ("ckpt", "tmp")]


def save_model(
    model: keras.Model, path: pathlib.Path, class_names: Sequence[str] = (), task: Task | None = None
) -> None:
    """Saves a `.keras` file, with the names of its outputs inside, that is complete or not there."""
    with replacing(path) as partial:
        model.save(partial)
        if class_names:
            with zipfile.ZipFile(partial, "a") as archive:
                archive.writestr(LABELS, "\n".join(class_names))
        if task is not None:
            store_task(partial, task)


def store_task(path: pathlib.Path, task: Task) -> None:
    """Adds what the outputs mean to a `.keras` or `.tflite` file; a file without it is a classifier."""
    if task.name != Classification.name:
        with zipfile.ZipFile(path, "a") as archive:
            undated = zipfile.ZipInfo(TASK)  # the same model gives the same file
            archive.writestr(undated, json.dumps(task.stored()))

"""The folder of a run on several workers: the chief's own, of which the others get what they need."""

import contextlib
import json
import pathlib
import tempfile
import uuid
from collections.abc import Callable, Iterator

from tfopt._files import write_text
from tfopt.distribute.workers import Workers
from tfopt.recipes.run_folder import RunFolder, StageRecord

_MEETING = pathlib.Path(".tfopt", "meeting")  # the chief writes a word there; who reads it shares the folder


@contextlib.contextmanager
def opened(
    workers: Workers, make: Callable[[str | None], RunFolder], say: Callable[[str], None]
) -> Iterator[RunFolder]:
    """The folder that this worker writes to.

    The chief locks and writes the real one. Every other worker has a temporary one of its own, into which the
    finished stages of the chief are copied, so that all go on from the same stage and none of them touches
    what the chief writes. Only checkpoints inside a stage need the chief's folder on every worker, because
    each worker has a state of its own; where it is not shared, an interrupted stage begins again.

    Args:
        workers: Of the run.
        make: Opens the folder of this path; None stands for the one of the options.
        say: Tells the user something.

    Raises:
        ChiefFailedError: On the others, if the chief cannot have its folder.
    """
    with contextlib.ExitStack() as stack:
        folders: list[RunFolder] = []

        def begin() -> str:
            folder = stack.enter_context(make(None))
            folders.append(folder)
            if folder.drop_checkpoints(workers.count):
                say("The stage that was interrupted begins again: another number of workers trained it.")
            finished, word = [record.name for record in folder.all_finished()], uuid.uuid4().hex
            if workers.count > 1:
                write_text(folder.path / _MEETING, word)
            place = str(folder.path.resolve())
            return json.dumps({"finished": finished, "word": word, "place": place})

        found = json.loads(workers.alone(begin))
        if not workers.is_chief:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfopt-worker-"))
            folders.append(stack.enter_context(make(name)))
        if workers.count > 1:
            _copy_stages(workers, folders[0], found["finished"])
            place = pathlib.Path(found["place"])
            folders[0].meeting = place if workers.all(_reads(place / _MEETING, found["word"])) else None
        yield folders[0]


def _copy_stages(workers: Workers, folder: RunFolder, names: list[str]) -> None:
    """Gives the finished stages of the chief to the others."""
    for name in names:
        record = folder.finished(name) if workers.is_chief else None
        text = "" if record is None else json.dumps(vars(record))
        told = workers.from_chief(text.encode())
        content = workers.from_chief(folder.model_path(name).read_bytes() if workers.is_chief else b"")
        if not workers.is_chief:
            folder.adopt(StageRecord(**json.loads(told)), content)


def _reads(path: pathlib.Path, word: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == word
    except OSError:
        return False

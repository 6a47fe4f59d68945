"""What was measured before: one small file per machine and question in the user's cache folder."""

import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tfopt._surroundings import cache_folder
from tfopt.tune.machine import signature

_logger = logging.getLogger(__name__)


def recall(cache_dir: str | None, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to a question that was asked on this machine with these versions before, or None."""
    path = _path(cache_dir, question)
    try:
        found = None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or cut short
        return None
    return found if isinstance(found, dict) else None


def remember(cache_dir: str | None, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Keeps an answer; where the folder cannot be written, the next call measures again."""
    path = _path(cache_dir, question)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        _logger.warning("cannot remember the result in %s: %s", path.parent, error.strerror)


def _path(cache_dir: str | None, question: Mapping[str, Any]) -> pathlib.Path | None:
    if cache_dir is None:
        return None
    folder = cache_folder() if cache_dir == "auto" else pathlib.Path(cache_dir)
    text = json.dumps({**question, "machine": signature()}, sort_keys=True, default=str)
    return folder / f"throughput-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

"""Processors, threads, memory and folders."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Literal

from tfopt._memory import free_memory
from tfopt._surroundings import cache_folder, system_text, usable_cpus, visible_cpus
from tfopt.doctor.finding import Finding
from tfopt.doctor.frameworks import keras_home

_LOW_DISK, _NO_DISK = 2e9, 2e8  # bytes: a cached data set no longer fits; a model no longer fits
_LOW_MEMORY = 2e9


def processors() -> Iterator[Finding]:
    """TensorFlow starts a thread per core that it sees, also where a container may use fewer."""
    flags = system_text("/proc/cpuinfo").split()
    native = "native" if {"avx512_bf16", "amx_bf16"} & set(flags) else "no native"
    yield Finding("CPU", "ok", f"{os.cpu_count()} logical, {native} bfloat16")
    seen, allowed = visible_cpus(), usable_cpus()
    if allowed >= seen:
        yield Finding("threads", "ok", f"{seen} cores, all usable")
        return
    detail = f"TensorFlow starts {seen} threads, but this process may use {allowed:g} cores"
    fix = f"export TF_NUM_INTRAOP_THREADS={max(1, round(allowed))}"
    set_already = "TF_NUM_INTRAOP_THREADS" in os.environ
    yield Finding("threads", "ok" if set_already else "warning", detail, "" if set_already else fix)


def memory() -> Iterator[Finding]:
    """What this process may still use: of the machine, of its container, of `ulimit -v`."""
    available = free_memory()
    fix = "close other programs, raise the container's limit or use a smaller batch size"
    low = available < _LOW_MEMORY
    yield Finding(
        "memory", "warning" if low else "ok", f"{available / 1e9:.1f} GB available", fix if low else ""
    )


def folders() -> Iterator[Finding]:
    """Those that are written to: is it allowed, and is there room?"""
    yield from _folder("weights cache", keras_home(), "KERAS_HOME")
    yield from _folder("measurements cache", cache_folder(), "XDG_CACHE_HOME", "measurements are made again")
    yield from _folder("working folder", pathlib.Path.cwd(), "the folder you start in")
    yield from _folder("temporary folder", pathlib.Path(tempfile.gettempdir()), "TMPDIR")


def _folder(subject: str, folder: pathlib.Path, choice: str, without: str = "") -> Iterator[Finding]:
    """One finding.

    Args:
        subject: What the folder is for.
        folder: It may not exist; then the nearest existing one above it is looked at.
        choice: What to change to have another one.
        without: What happens where it cannot be written, if that is no failure.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        detail = f"{existing}: {error.strerror}{': ' if without else ''}{without}"
        fix = f"make {existing} writable, or choose another: {choice}"
        yield Finding(subject, "warning" if without else "broken", detail, fix)
        return
    status: Literal["ok", "warning", "broken"] = "ok"
    if free < _LOW_DISK:
        status = "broken" if free < _NO_DISK else "warning"
    fix = "" if status == "ok" else "free some space or choose another folder"
    yield Finding(subject, status, f"{folder}, {free / 1e9:.1f} GB free", fix)

"""`tune_throughput`: the settings at which a model trains fastest here, found by measuring them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import check_instance, check_integer, check_number, message
from tfopt.tune.contest import Contest
from tfopt.tune.faster import FasterTraining
from tfopt.tune.machine import available_cpus
from tfopt.tune.measuring import Measurer
from tfopt.tune.memory import recall, remember
from tfopt.tune.subject import Subject
from tfopt.tune.training_setting import TrainingSetting

_FIELDS = [field.name for field in dataclasses.fields(TrainingSetting)]


def tune_throughput(
    model: keras.Model | Callable[[], keras.Model],
    data: Any = None,
    *,
    batch_size: int = 32,
    space: Mapping[str, Sequence[Any]] | None = None,
    updates: int | None = None,
    limit_seconds: float = 90.0,
    memory_limit: int | None = None,
    cache_dir: str | None = "auto",
) -> FasterTraining:
    """Measures how fast a model trains with and without XLA, in other precisions, with other threads.

    Which settings are fast depends on the machine and the model: XLA and bfloat16 multiply the speed of
    one pair and divide that of another. The default is measured first; then each setting is tried in turn
    on top of the best so far; at the end the winner and the default run alternately, and the winner must
    win, or the default stays. Every measurement runs in another process with a limit of time and memory:
    a crash is a result. A second call for the same model on the same machine returns what was found.

    Args:
        model: A compiled Functional or Sequential model, or a function of a module that returns a compiled
            model of any kind.
        data: A function of a module, (batch size) -> batched `tf.data.Dataset`: its work is measured too.
            Arrays or a batched dataset: the training step alone is measured. None: random numbers.
        batch_size: Images per update, >= 1.
        space: Field of `TrainingSetting` -> values to try. None: `default_space`. A batch size other than
            yours changes what is learned, and so does a lower precision, a little: leave out of the
            space what must stay.
        updates: Length of the training that is planned: compilation is then part of the price, and a
            setting that takes a minute to compile loses for a short one, and nothing is tried for one of
            less than a minute. None: speed alone counts.
        limit_seconds: Time for one measurement, compilation included, > 0.
        memory_limit: Bytes of main memory that training may take; None: 90 % of what is free.
        cache_dir: Where results are remembered; "auto" is `tfopt/` in the user's cache folder, None forgets.

    Raises:
        ValueError: If the model is not compiled or the space has names that are no settings.
        RuntimeError: If the model does not train as it is; holds the error.

    Example:
        >>> found = tune_throughput(model, (images, labels), batch_size=32)
        >>> print(found)
        >>> model = found.setting.apply(model)
    """
    check_integer("batch_size", batch_size, minimum=1)
    check_number("limit_seconds", limit_seconds, minimum=0, open_minimum=True)
    if updates is not None:
        check_integer("updates", updates, minimum=1)
    choices = _check(default_space(data) if space is None else space)
    default = TrainingSetting(batch_size=batch_size)
    with Subject(model, data) as subject:
        key = {"model": subject.signature, "batch_size": batch_size, "space": choices, "updates": updates}
        known = recall(cache_dir, key)
        if known is not None:
            return dataclasses.replace(FasterTraining.from_dict(known), remembered=True)
        with (
            Measurer(subject, limit_seconds=limit_seconds, memory_limit=memory_limit) as measurer,
            Measurer(subject, limit_seconds=limit_seconds, memory_limit=memory_limit) as second,
        ):
            contest = Contest((measurer, second), default, updates)
            if not contest.is_short:
                for group in _groups(choices):
                    contest.try_all(group)
            ratios = contest.confirm()
    found = FasterTraining(contest.winner(ratios), default, tuple(ratios), tuple(contest.measurements))
    remember(cache_dir, key, found.as_dict())
    return found


def default_space(data: Any = None) -> dict[str, list[Any]]:
    """What is worth trying on this machine without changing the batch size.

    Args:
        data: The `data` of `tune_throughput`; only a pipeline has threads of its own.
    """
    cpus = available_cpus()
    gpus = tf.config.list_physical_devices("GPU")
    space: dict[str, list[Any]] = {
        "precision": ["float32", "mixed_bfloat16"],
        "jit_compile": [False, True],
        "steps_per_execution": [1, 8],
    }
    if not gpus and cpus > 1:
        space["threads"] = sorted({max(1, cpus // 2), cpus})
    if callable(data):
        space["data_threads"] = sorted({1, cpus})
    return space


def _check(space: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The space with its lists copied; every value is tried on `TrainingSetting`, which refuses bad ones."""
    check_instance("space", space, Mapping)
    wrong = sorted(set(space) - set(_FIELDS))
    if wrong or not space or not all(space.values()):
        expected = "a mapping of " + ", ".join(_FIELDS) + " to non-empty lists of values"
        raise ValueError(message("space", expected, dict(space)))
    for name, values in space.items():
        for value in values:
            TrainingSetting(**{name: value})
    return {name: list(values) for name, values in space.items()}


def _groups(space: dict[str, list[Any]]) -> list[list[dict[str, Any]]]:
    """What is tried together. Precision and XLA depend on each other; the rest goes one by one."""
    groups = [[{name: value} for value in space[name]] for name in _FIELDS if name in space]
    if "precision" in space and "jit_compile" in space:
        pairs = [(a, b) for a in space["precision"] for b in space["jit_compile"]]
        both = [{"precision": precision, "jit_compile": compiled} for precision, compiled in pairs]
        alone = {"precision", "jit_compile"}
        groups = [*(group for group in groups if alone.isdisjoint(group[0])), both]
    return sorted(groups, key=len, reverse=True)

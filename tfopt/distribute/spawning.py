"""`spawn`: a function on several workers, from a test or a notebook. Fresh processes, never forks."""

import inspect
import os
import pathlib
import pickle
import runpy
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from tfopt._checks import check_integer, check_number, message
from tfopt.distribute._environment import reserved_addresses, worker_environment
from tfopt.distribute._process import ProcessGroup

_TAIL_LINES = 25


def spawn(
    function: Callable[..., Any],
    workers: int = 2,
    *,
    args: Sequence[Any] = (),
    timeout_seconds: float = 600.0,
    output: TextIO | None = None,
) -> list[Any]:
    """Calls `function(*args)` on several new worker processes and returns what each returned.

    TensorFlow does not survive a fork, so the processes start afresh and import the function's module: it
    must be a function at the top level of a module or script (a script needs `if __name__ == "__main__":`
    around its call of `spawn`). In a notebook its source is sent, so it must import what it uses.

    Args:
        function: What every worker calls; `make_strategy()` in it finds the other workers.
        workers: How many processes on this machine.
        args: Arguments, the same for every worker. They and the results must pickle.
        timeout_seconds: After this time everything is killed.
        output: Where the workers' lines go, such as `sys.stdout`. None: nowhere.

    Returns:
        The results, in the order of the workers.

    Raises:
        RuntimeError: If a worker fails; holds the end of its output.
        TimeoutError: After `timeout_seconds`.

    Example:

    >>> def replicas():
    ...     import tfopt
    ...     return tfopt.distribute.make_strategy().num_replicas_in_sync
    >>> tfopt.distribute.spawn(replicas, workers=2)
    [2, 2]
    """
    check_integer("workers", workers, minimum=1)
    check_number("timeout_seconds", timeout_seconds, minimum=0.0, open_minimum=True)
    with tempfile.TemporaryDirectory() as name, reserved_addresses(workers) as addresses:
        directory = pathlib.Path(name)
        (directory / "function").write_bytes(pickle.dumps(_reference(function)))
        (directory / "arguments").write_bytes(pickle.dumps(tuple(args)))
        names = [str(index) for index in range(workers)]
        code = "import sys; from tfopt.distribute.spawning import _child; _child(*sys.argv[1:])"
        commands = {index: [sys.executable, "-c", code, str(directory), index] for index in names}
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environments = {
            str(k): {**worker_environment(addresses, k, k, workers), **path} for k in range(workers)
        }
        group = ProcessGroup(commands, environments, output=output, log_dir=directory, lifeline=True)
        try:
            status = group.wait(names, timeout_seconds)
        finally:
            group.stop(grace_seconds=0.0)
        if group.failed is not None:
            log = (directory / f"worker-{group.failed}.log").read_text(encoding="utf-8")
            lines = log.splitlines()[-_TAIL_LINES:]
            raise RuntimeError("\n".join([f"Worker {group.failed} failed with exit code {status}:", *lines]))
        return [pickle.loads((directory / f"result-{index}").read_bytes()) for index in names]


def _reference(function: Callable[..., Any]) -> dict[str, str | None]:
    """Where a new process finds the function: a module, a script, or its source."""
    name = getattr(function, "__qualname__", "<no name>")
    if not name.isidentifier():
        fix = "Lambdas, methods, partials and local functions cannot be found by a new process."
        raise ValueError(message("function", "a function at the top level of a module", function, fix))
    if function.__module__ != "__main__":
        return {"name": name, "module": function.__module__}
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None:
        return {"name": name, "script": script}
    return {"name": name, "source": inspect.getsource(function)}


def _resolve(name: str, module: str = "", script: str = "", source: str = "") -> Callable[..., Any]:
    if module:
        __import__(module)
        return getattr(sys.modules[module], name)
    main = types.ModuleType("__mp_main__")  # the name by which multiprocessing calls it, too
    main.__dict__.update(runpy.run_path(script, run_name="__mp_main__") if script else {})
    sys.modules["__main__"] = main  # arguments of classes of the script are unpickled by this name
    if source:
        exec(source, main.__dict__)
    return getattr(main, name)


def _child(directory: str, index: str) -> None:
    """What a worker process runs; it ends with its parent, even if that was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    files = pathlib.Path(directory)
    reference = pickle.loads((files / "function").read_bytes())
    function = _resolve(**reference)  # first: arguments may need its module
    result = function(*pickle.loads((files / "arguments").read_bytes()))
    (files / f"result-{index}").write_bytes(pickle.dumps(result))


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # waits until the parent is gone: it never writes
    os._exit(1)

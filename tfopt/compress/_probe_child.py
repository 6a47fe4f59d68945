"""The process behind `_probe`: loads and runs each file it is told of, and answers a line after each.

It runs as a script, without the rest of the package, so that it starts in the time of one import.
"""

import contextlib
import json
import sys
from typing import Any


def _module() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        from tensorflow.lite.python import interpreter
    return interpreter


def _run(module: Any, path: str, resolver: Any) -> None:
    interpreter = module.Interpreter(path, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], interpreter.get_tensor(details["index"]) * 0)
    interpreter.invoke()
    for details in interpreter.get_output_details():
        interpreter.get_tensor(details["index"])


def main() -> None:
    """Answers until the other side closes the pipe. Errors do not matter here, only whether it survives."""
    sys.path[:] = json.loads(sys.stdin.readline())
    module = _module()
    # As files are opened: with the default delegate, and with built-in kernels alone.
    resolvers = module.OpResolverType.AUTO, module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    for line in sys.stdin:
        for resolver in resolvers:
            with contextlib.suppress(Exception):
                _run(module, json.loads(line), resolver)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

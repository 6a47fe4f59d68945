"""Which compression works for which kind of model: python benchmarks/coverage.py [--models FILE].

Every model of coverage_models.py (or of FILE, a module with `MODELS`, `build(name, keras)` and
`inputs(name, count)`) goes through every tool, each output channel compared with Keras on inputs that no
tool has seen. A cell is

- `ok`: it does what it says;
- `part`: it does, and names what stays float, dense or whole;
- `low`: it agrees badly and says so;
- `no`: refused with a sentence (`--verbose` prints it);
- `WRONG`: it agrees badly, or has no effect, and says nothing;
- `BAD`: another exception than one of ours.

Models run in processes of their own, a few in each. `--results FILE` keeps cells (JSON Lines), and a second
run goes on there; `--docs PAGE` writes the table between the marks of a page.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

EXPORTS = ["float", "dynamic", "float16", "int8", "int16x8"]
COLUMNS = [*EXPORTS, "qat", "pruning", "clustering", "slim", "sensitivity"]
# Least signal-to-noise ratio of an output and of one of its channels, in decibels.
LIMITS = {"float": (60, 40), "float16": (40, 20), "dynamic": (18, 6), "int16x8": (30, 12)}
LIMITS |= {"int8": (14, 4), "qat": (14, 4)}
GROUP = 8  # models in one process
START, END = "<!-- coverage -->", "<!-- end of coverage -->"


def module(path: str) -> Any:
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file.")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


class Trial:
    """One model and the tools that are tried on it."""

    def __init__(self, models: Any, name: str, folder: pathlib.Path) -> None:
        import keras

        self.keras, self.folder = keras, folder
        self.seen, self.unseen = models.inputs(name, 96), models.inputs(name, 48, seed=7)
        condition = getattr(models, "condition", None)

        def build() -> Any:
            model = models.build(name, keras)
            if condition is not None:  # gives random weights the statistics of trained ones
                condition(model, self.seen, keras)
            return model

        self._build = build
        self.model = self._build()

    def fed(self, batch: list) -> Any:
        """One array, a list, or a dictionary, as the model takes its inputs."""
        names = getattr(getattr(self.model, "_functional", self.model), "_inputs_struct", None)
        if isinstance(names, dict):
            return dict(zip(names, batch))
        return batch if len(batch) > 1 else batch[0]

    def answers(self, model: Any, batch: list) -> list:
        """Outputs as arrays."""
        import numpy as np

        found = model.predict(self.fed(batch), verbose=0) if isinstance(model, self.keras.Model) else None
        found = model.predict(self.fed(batch)) if found is None else found
        return [np.asarray(x, "float64") for x in self.keras.tree.flatten(found)]

    def agreement(self, received: list, expected: list) -> tuple[float, float]:
        """Decibels of the worst output, and of the worst channel of an output.

        Probabilities that differ by no more than the step that TFLite gives them agree. Noise in a class that
        these inputs hardly show counts against the classes that they do show.
        """
        import numpy as np

        def decibels(a: Any, b: Any, least: float = 0.0) -> float:
            if a.min() >= 0.0 and a.max() <= 1.0 and np.mean((a - b) ** 2) < (1.5 / 256) ** 2:
                return 99.0
            signal = max(least, np.mean((a - a.mean()) ** 2))
            if signal <= 1e-12 * np.mean(a**2) + 1e-14:  # a constant: nothing to agree in
                return 99.0
            return float(min(99.0, 10 * np.log10(signal / max(np.mean((a - b) ** 2), 1e-30))))

        if len(received) != len(expected) or any(a.shape != b.shape for a, b in zip(received, expected)):
            return -99.0, -99.0

        def shown(a: Any) -> float:
            shares = a.shape[-1] > 1 and np.allclose(a.sum(-1), 1.0, atol=1e-3)
            signals = np.var(a.reshape(-1, a.shape[-1]), axis=0)
            return float((signals**2).sum() / max(signals.sum(), 1e-20)) if shares else 0.0

        whole = min(decibels(a, b) for a, b in zip(expected, received))
        channels = [
            decibels(a[..., i], b[..., i], least)
            for a, b, least in zip(expected, received, map(shown, expected))
            if np.isfinite(b).all()
            for i in range(min(a.shape[-1], 64))
        ]
        return whole, min(channels, default=-99.0)

    def compared(self, file: Any, column: str, said: str) -> tuple[str, str]:
        """The cell of an exported file."""
        whole, channel = self.agreement(
            self.answers(file, self.unseen), self.answers(self.model, self.unseen)
        )
        least, least_channel = LIMITS[column]
        text = f"{whole:.0f} dB, worst channel {channel:.0f}"
        if whole < least or channel < least_channel:
            return ("low" if "agrees with the model to" in said else "WRONG"), text
        contents = file.inspect()
        floats = {k: n for k, n in contents.float_operations.items() if k not in ("DEQUANTIZE", "QUANTIZE")}
        return ("part", f"{text}, {floats}") if column in ("int8", "qat") and floats else ("ok", text)

    def exported(self, column: str, said: Callable[[], str]) -> tuple[str, str]:
        """A file of the trained model."""
        from tfopt import compress

        quantization = None if column == "float" else column
        data = self.fed(self.seen) if column in ("int8", "int16x8") else None
        file = compress.export(self.model, self.folder / "m.tflite", quantization, data)
        return self.compared(file, column, said())

    def train(self, model: Any, rate: float, epochs: int, *callbacks: Any) -> None:
        """Learns the outputs of the float model."""
        target = self.model.predict(self.fed(self.seen), verbose=0)
        loss = self.keras.tree.map_structure(lambda _: "mse", target)
        model.compile(self.keras.optimizers.Adam(rate), loss)
        model.fit(
            self.fed(self.seen), target, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks)
        )

    def qat(self, said: Callable[[], str]) -> tuple[str, str]:
        """Quantization-aware training, then the file."""
        from tfopt import compress

        quantized = compress.quantize_aware(self.model, data=self.fed(self.seen))
        self.train(quantized, 1e-6, 1)
        file = compress.export(quantized, self.folder / "q.tflite", "int8", self.fed(self.seen))
        return self.compared(file, "qat", said())

    def zeros(self, model: Any) -> tuple[float, int]:
        """Share of zeros in all weights of rank 2 and more, and the largest number of values in one."""
        import numpy as np

        kernels = [np.asarray(v) for v in model.trainable_variables if len(v.shape) > 1 and v.shape[-1] > 1]
        total = sum(kernel.size for kernel in kernels)
        zeros = sum(int(np.sum(kernel == 0)) for kernel in kernels)
        return zeros / max(total, 1), max((len(np.unique(kernel)) for kernel in kernels), default=0)

    def pruning(self, said: Callable[[], str]) -> tuple[str, str]:
        """Half of all weights to zero."""
        from tfopt import compress

        model, callback = self._build(), compress.Pruning(0.5)
        self.train(model, 1e-4, 2, callback)
        share, _ = self.zeros(model)
        if share > 0.4:
            return "ok", f"{share:.0%}"
        return ("part" if callback.left_dense or said() else "WRONG"), f"{share:.0%}"

    def clustering(self, said: Callable[[], str]) -> tuple[str, str]:
        """Eight values in each kernel."""
        from tfopt import compress

        model = self._build()
        self.train(model, 1e-4, 2, compress.Clustering(8))
        _, values = self.zeros(model)
        return ("ok" if values <= 8 else "part" if said() else "WRONG"), f"{values} values"

    def slim(self, said: Callable[[], str]) -> tuple[str, str]:
        """Half of the channels."""
        import numpy as np

        from tfopt import compress

        small = compress.slim(self.model, keep=0.5, criterion="l2", data=self.fed(self.seen))
        share = small.count_params() / self.model.count_params()
        outputs, before = self.answers(small, self.unseen), self.answers(self.model, self.unseen)
        fits = all(a.shape == b.shape and np.isfinite(a).all() for a, b in zip(outputs, before))
        if not fits or share >= 1.0:
            return ("part" if fits and said() else "WRONG"), f"{share:.0%} of the weights"
        return ("part" if said() else "ok"), f"{share:.0%} of the weights"

    def sensitivity(self, said: Callable[[], str]) -> tuple[str, str]:
        """Each layer alone, pruned and rounded."""
        from tfopt import compress

        found = compress.sensitivity(self.model, self.fed(self.seen), sparsities=(0.5,))
        changed = [row for row in found.rows if row.change > 0]
        return ("ok" if changed else "WRONG"), f"{len(changed)} of {len(found.rows)} rows"

    def cell(self, column: str) -> tuple[str, str]:
        """The verdict on one tool, and why."""
        said: list[str] = []
        try:
            with listened(said):
                if column in EXPORTS:
                    return self.exported(column, lambda: "\n".join(said))
                found: tuple[str, str] = getattr(self, column)(lambda: "\n".join(said))
                return found
        except (ValueError, TypeError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1].filename
            ours = f"{os.sep}tfopt{os.sep}" in where
            return ("no" if ours else "BAD"), f"{type(error).__name__}: {error}"
        except Exception as error:
            return "BAD", f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def listened(said: list[str]) -> Iterator[None]:
    """What the library logs and warns goes into the list."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tfopt")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


def here(options: argparse.Namespace) -> None:
    """The cells of some models, one JSON line each, on standard output."""
    models = module(options.models)
    for name in options.here:
        columns = [column for column in options.columns if f"{name}:{column}" not in options.done]
        with tempfile.TemporaryDirectory() as folder:
            try:
                trial = Trial(models, name, pathlib.Path(folder))
            except ImportError:  # of a package that is not here
                continue
            for column in columns:
                verdict, why = trial.cell(column)
                cell = {"model": name, "column": column, "cell": verdict, "why": " ".join(why.split())[:600]}
                sys.stdout.write(json.dumps(cell) + "\n")
                sys.stdout.flush()


def in_child(names: list[str], options: argparse.Namespace, done: list[str]) -> Iterator[dict[str, str]]:
    """The cells of some models, measured in another process. What ends that process is BAD."""
    wanted = [(name, column) for name in names for column in options.columns]
    wanted = [cell for cell in wanted if ":".join(cell) not in done]
    if not wanted:
        return
    command = [sys.executable, __file__, "--models", options.models, "--here", *names]
    command += ["--columns", *options.columns, "--done", *done]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = set()
    for line in child.stdout or ():
        if line.startswith("{"):
            cell = json.loads(line)
            found.add((cell["model"], cell["column"]))
            yield cell
    left = [cell for cell in wanted if cell not in found]
    if child.wait() and left:
        (name, column), rest = left[0], list(dict.fromkeys(name for name, _ in left))
        yield {"model": name, "column": column, "cell": "BAD", "why": f"ended with code {child.returncode}"}
        yield from in_child(rest, options, [*done, *(":".join(x) for x in found), f"{name}:{column}"])


def table(cells: dict[tuple[str, str], dict[str, str]]) -> str:
    """The matrix in Markdown, with the sums of the columns."""
    models = list(dict.fromkeys(model for model, _ in cells))
    columns = [column for column in COLUMNS if any(c == column for _, c in cells)]
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for model in models:
        found = [cells.get((model, column), {}).get("cell", "") for column in columns]
        lines.append(f"| `{model}` | " + " | ".join(found) + " |")
    sums = []
    for column in columns:
        counts = Counter(cell["cell"] for (_, c), cell in cells.items() if c == column)
        sums.append(f"{counts['ok'] + counts['part']} of {counts.total()}")
    return "\n".join([*lines, "| ok or part | " + " | ".join(sums) + " |"])


def measured() -> str:
    """When and where the cells were measured."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras"))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"Measured on {datetime.date.today()} with {versions} on {machine}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=str(pathlib.Path(__file__).with_name("coverage_models.py")))
    parser.add_argument("--only", nargs="+", default=[], help="names of models")
    parser.add_argument("--columns", nargs="+", default=COLUMNS, choices=COLUMNS)
    parser.add_argument("--results", type=pathlib.Path, default=None)
    parser.add_argument("--docs", type=pathlib.Path, default=None)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--here", nargs="+", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--done", nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.here:
        here(options)
        return
    cells: dict[tuple[str, str], dict[str, str]] = {}
    if options.results and options.results.exists():
        for line in options.results.read_text().splitlines():
            cell = json.loads(line)
            cells[cell["model"], cell["column"]] = cell
    names = options.only or list(module(options.models).MODELS)
    for start in range(0, len(names), GROUP):
        group = names[start : start + GROUP]
        for cell in in_child(group, options, [":".join(key) for key in cells if key[0] in group]):
            cells[cell["model"], cell["column"]] = cell
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(cell) + "\n")
            if options.verbose or cell["cell"] in ("WRONG", "BAD"):
                print(f"{cell['model']} {cell['column']}: {cell['cell']}: {cell['why']}", flush=True)
    text = f"{measured()}\n\n{table(cells)}"
    print(text)
    if options.docs:
        page = options.docs.read_text()
        before, rest = page.split(START)
        options.docs.write_text(f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()

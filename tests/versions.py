"""The version matrix: one fresh environment per row, the tests marked `versions`, and one whole run.

    python tests/versions.py                    every row, and the table in docs/versions.md
    python tests/versions.py oldest colab       these rows only
    python tests/versions.py --list             what the rows are

An environment is made in .versions/NAME with pip and reused by the next call while its requirements and
setup.cfg are the same. Needs only the standard library, and the Python of each row (`python3.11`, ...).
"""

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "versions.md"
TEST_LIMIT_SECONDS = 1500.0  # ten minutes on two quiet cores; more where they are shared


@dataclasses.dataclass(frozen=True)
class Row:
    """One combination of versions.

    Attributes:
        python: Version of Python, "3.11".
        requirements: What pip installs in the same call as tfopt.
        note: Where people have this combination.
        may_fail: A red row does not make the matrix red.
        there: TensorFlow and Keras are installed first, as Colab brings them, and pip must not replace them.
        notebooks: Run the notebooks of the docs, too.
    """

    python: str
    requirements: tuple[str, ...]
    note: str
    may_fail: bool = False
    there: bool = False
    notebooks: bool = False


ROWS = {
    "oldest": Row("3.11", ("tensorflow==2.18.*", "keras==3.12.*"), "the oldest versions of the range"),
    "2.19": Row("3.12", ("tensorflow==2.19.*", "keras==3.14.*"), "in between"),
    "kaggle": Row("3.12", ("tensorflow==2.20.0", "keras==3.13.2"), "Kaggle notebooks", there=True),
    "colab": Row("3.13", ("tensorflow==2.20.0", "keras==3.13.2"), "Google Colab", there=True, notebooks=True),
    "newest": Row("3.13", ("tensorflow==2.21.*", "keras==3.15.*"), "the newest releases"),
    "nightly": Row("3.12", ("tf-nightly", "keras-nightly"), "what comes next, Keras 3.16", may_fail=True),
}
SHOWN = ("tensorflow", "tf-nightly", "keras", "keras-nightly", "numpy", "protobuf")


# Files whose tests are marked `versions`, and which of their tests: one or two for each private hook of
# Keras, for saving, the converter, strategies and packages with requirements of their own on versions.
MARKED = {
    "test_callbacks_everywhere.py": r"every_callback.*\[(GradientNoise|Plateau|Pruning|Resume|Unfreeze)",
    "test_compress_calibration.py": "take_back",
    "test_compress_bridge.py": r"equals_tfmot|round_trip\[sequential",
    "test_compress_export.py": "aware_model",
    "test_compress_pruning.py": r"exactly\[layer|tfmot_training|same_pruned_weights\[layer|save_load_and_fit",
    "test_data_loading.py": "tfds_names|digits_are_those",
    "test_distribute_errors.py": "the_mend|outside",
    "test_distribute_replicas.py": "Keras Adam|float16, overflow in the first|quantization",
    "test_light_import.py": "saved_objects",
    "test_optimizers_fit.py": r"(fit_eq|saved|scaling)\w*\[(Adam|Lookahead|Muon)\]|ema_equals",
    "test_tune_search.py": r"resumes.*\[random",
}


def is_marked(file: str, test: str) -> bool:
    """Whether a test belongs to the share that runs on every row; conftest.py marks it."""
    return file in MARKED and re.search(MARKED[file], test) is not None


def python_of(version: str) -> str:
    """The interpreter of a version.

    Raises:
        FileNotFoundError: If there is none.
    """
    roots = [pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"]
    found = sorted(path for root in roots for path in root.glob(f"{version}.*/bin/python{version}"))
    for candidate in (*map(str, found), f"python{version}"):
        path = shutil.which(candidate)
        if path and subprocess.run([path, "-V"], capture_output=True).returncode == 0:
            return path
    raise FileNotFoundError(f"python{version} is not installed")


def environment(name: str, row: Row, folder: pathlib.Path) -> pathlib.Path:
    """The Python of the row's environment, which is made unless it is there."""
    place, wanted = folder / name, (ROOT / "setup.cfg").read_text() + repr(row)
    python, stamp = place / "bin" / "python", place / "installed"
    key = hashlib.sha256(wanted.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == key:
        return python
    run([python_of(row.python), "-m", "venv", "--clear", str(place)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]  # few of its files are imported
    if name == "nightly":  # tfopt asks for `tensorflow` and `keras`, which tf-nightly is not to pip
        run([*pip, *row.requirements, *others()])
        run([*pip, "--no-deps", "-e", str(ROOT)])
    elif row.there:
        run([*pip, *row.requirements])
        run([*pip, "-e", f"{ROOT}[test]", *there(python)])
    else:
        run([*pip, *row.requirements, "-e", f"{ROOT}[test]"])
    stamp.write_text(key)
    return python


def there(python: pathlib.Path) -> list[str]:
    """What the install line of the notebooks adds: the versions of TensorFlow and Keras that are there."""
    frozen = subprocess.check_output([python, "-m", "pip", "freeze"], text=True)
    return [line for line in frozen.splitlines() if re.match("(tensorflow|keras)==", line)]


def others() -> list[str]:
    """All requirements of tfopt and its tests but TensorFlow and Keras themselves."""
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    text = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    lines = [line for line in text.split("\n") if line and not line.startswith("tfopt")]
    return [
        line for line in lines if re.split(r"[<>=\[]", line)[0] not in ("tensorflow", "keras", "tf_keras")
    ]


def run(command: list[str], log: pathlib.Path | None = None, limit: float | None = None) -> None:
    """Runs a command.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ""}
    with open(log or os.devnull, "w") as file:
        output = {"stdout": file, "stderr": subprocess.STDOUT} if log else {}
        subprocess.run(command, check=True, cwd=ROOT, env=variables, timeout=limit, **output)


def check(name: str, row: Row, folder: pathlib.Path) -> dict:
    """What a row gives: its versions, and for each step "ok" or what went wrong."""
    found: dict = {"row": name, "note": row.note, "may_fail": row.may_fail, "python": row.python}
    found["date"] = datetime.date.today().isoformat()
    try:
        python = str(environment(name, row, folder))
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return found | {"steps": {"install": str(error)}}
    code = "import importlib.metadata as m, json, sys\nfound = {}\n"
    code += "for name in sys.argv[1:]:\n try: found[name] = m.version(name)\n except Exception: pass\n"
    versions = subprocess.check_output([python, "-c", code + "print(json.dumps(found))", *SHOWN], text=True)
    output = folder / f"{name}-run"
    shutil.rmtree(output, ignore_errors=True)
    # All stages, one epoch each: whether they work is asked here, not how good the model gets.
    options = "finetune --data digits --image-size 32 --epochs 1 --compress-epochs 1 --output"
    finetune, files = [*options.split(), str(output)], [f"tests/{file}" for file in MARKED]
    pytest = [python, "-m", "pytest", "-p", "no:cacheprovider"]  # a second -q would hide the sum
    commands = {
        "pip check": [python, "-m", "pip", "check"],
        "finetune": [python, "-m", "tfopt", *finetune],
        "tests": [*pytest, "-m", "versions and not full", *files],
    }
    if row.notebooks:
        commands["notebooks"] = [*pytest, "tests/test_notebooks.py"]
    if name == "nightly":
        del commands["pip check"]  # which would miss `tensorflow`
    versions = json.loads(versions)
    steps, seconds = {}, {}
    if row.there and {f"{key}=={versions.get(key)}" for key in ("tensorflow", "keras")} != set(
        row.requirements
    ):
        steps["install"] = f"pip replaced what was there by {versions}"
    for step, command in commands.items():
        log, begin = folder / f"{name}-{step.replace(' ', '-')}.log", time.monotonic()
        try:
            run(command, log, TEST_LIMIT_SECONDS)
            steps[step] = "ok"
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            steps[step] = (log.read_text().strip().splitlines() or ["no output"])[-1]
        seconds[step] = round(time.monotonic() - begin)
    summary = re.findall(r"(\d+ passed.*?) in ", (folder / f"{name}-tests.log").read_text())
    return found | {
        "versions": versions,
        "steps": steps,
        "seconds": seconds,
        "tests": (summary or [""])[-1],
    }


def table(results: list[dict]) -> str:
    """The results as a table of Markdown."""
    lines = [
        "| row | Python | TensorFlow | Keras | NumPy | protobuf | `pip check` | tests | `finetune` | date |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        versions, steps = result.get("versions", {}), result["steps"]
        columns = [
            f"{result['row']}: {result['note']}",
            result["python"],
            versions.get("tensorflow") or versions.get("tf-nightly", ""),
            versions.get("keras") or versions.get("keras-nightly", ""),
            versions.get("numpy", ""),
            versions.get("protobuf", ""),
            steps.get("install") or steps.get("pip check", ""),
            ", ".join(filter(None, [result.get("tests") or steps.get("tests", ""), notebooks(steps)])),
            steps.get("finetune", ""),
            result["date"],
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def notebooks(steps: dict[str, str]) -> str:
    """What the notebooks gave, for the rows that run them."""
    outcome = steps.get("notebooks")
    return "" if outcome is None else f"notebooks: {outcome}"


def is_red(result: dict) -> bool:
    """Whether a row that must work does not."""
    return not result["may_fail"] and any(outcome != "ok" for outcome in result["steps"].values())


def main() -> int:
    """Runs the rows that are asked for and puts their results in the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / ".versions", help="for environments")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--keep", action="store_true", help="keep the environments of the rows")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows {sorted(unknown)}; there are {', '.join(ROWS)}")
    if options.list:
        for name, row in ROWS.items():
            print(f"{name:8} Python {row.python}, {', '.join(row.requirements)}: {row.note}")
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.folder / "results.json"
    results = json.loads(store.read_text()) if store.exists() else {}
    for name in options.rows or ROWS:
        results[name] = check(name, ROWS[name], options.folder)
        store.write_text(json.dumps(results, indent=1))
        print(json.dumps(results[name]), flush=True)
        if not options.keep:
            shutil.rmtree(options.folder / name, ignore_errors=True)
    ordered = [results[name] for name in ROWS if name in results]
    if PAGE.exists():
        begin, end = "<!-- results -->\n", "<!-- end of results -->"
        before, _, rest = PAGE.read_text().partition(begin)
        PAGE.write_text(before + begin + table(ordered) + end + rest.partition(end)[2])
    return int(any(is_red(result) for result in ordered))


if __name__ == "__main__":
    sys.exit(main())

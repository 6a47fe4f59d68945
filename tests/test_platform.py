"""What is imported is declared, private hooks have their places, and other systems find what they need."""

import ast
import configparser
import functools
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

from tfopt import _files, _locks, _optional, _surroundings

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "tfopt").rglob("*.py"))

# Module -> distribution, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "keras_tuner": "keras-tuner",
    "pillow_heif": "pillow-heif",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
}
# Imported on purpose without being required: what it is, and why.
UNDECLARED = {
    "pandas": "data frames are recognized where the user has pandas",
    "IPython": "notebooks bring it",
}
# Required without being imported by tfopt itself, and by whom.
FOR_OTHERS = {
    "importlib_resources": "tensorflow-datasets imports it and does not ask for it",
    "setuptools": "tensorflow-model-optimization imports distutils, which Python 3.12 lacks",
    "tensorboard": "keras-tuner imports it, and TensorFlow 2.21 no longer brings it",
    "tensorflow-metadata": "tensorflow-datasets needs one that goes with protobuf 5",
}


@functools.cache
def nodes(path: pathlib.Path) -> list[ast.AST]:
    """Everything in a file, parsed once."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def declared() -> tuple[set[str], dict[str, set[str]]]:
    """Distributions that are required, and those of each extra."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")

    def names(text: str) -> set[str]:
        lines = [line.strip() for line in text.splitlines()]
        kept = [line for line in lines if line and not line.startswith(("#", "tfopt["))]
        return {re.split(r"[<>=\[!~ ]", line)[0] for line in kept}

    extras = {name: names(text) for name, text in config["options.extras_require"].items()}
    return names(config["options"]["install_requires"]), extras


@functools.cache
def imported() -> dict[str, str]:
    """Distribution -> a file that imports it, by a statement or by `require`."""
    found = {}
    for path in FILES:
        for node in nodes(path):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                modules = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
            for module in filter(lambda each: isinstance(each, str), modules):
                root = module.split(".")[0]
                if root != "tfopt" and root not in sys.stdlib_module_names:
                    found[DISTRIBUTIONS.get(root, root)] = str(path)
    return found


def test_all_that_is_imported_is_declared():
    core, extras = declared()
    known = core.union(*extras.values(), UNDECLARED)
    assert {name: path for name, path in imported().items() if name not in known} == {}


def test_all_that_is_declared_is_imported():
    core, extras = declared()
    wanted = core.union(*(extras[name] for name in ("report", "search", "litert", "parquet", "heif")))
    assert wanted - set(imported()) - set(FOR_OTHERS) == set()


def test_every_extra_names_its_install_line():
    core, extras = declared()
    for module, extra in _optional._EXTRAS.items():
        distribution = DISTRIBUTIONS.get(module, module)
        assert distribution in extras[extra] and distribution not in core
        assert _optional.install_command(f"{module}.below") == f'pip install "tfopt[{extra}]"'
    known = {DISTRIBUTIONS.get(module, module) for module in _optional._EXTRAS}
    assert {name for extra in set(_optional._EXTRAS.values()) for name in extras[extra]} == known


def test_what_is_missing_is_told_before_and_when_it_is_used(monkeypatch):
    assert _optional.missing({"json": "Nothing", "keras": "Nothing"}) == []
    monkeypatch.setattr(_optional, "is_installed", lambda module: module != "sklearn.manifold")
    (sentence,) = _optional.missing({"sklearn.manifold": "The map of images", "matplotlib": "A plot"})
    assert sentence == 'The map of images is left out, for lack of `sklearn`: pip install "tfopt[report]"'
    for module in ("sklearn", "sklearn.datasets"):  # another test may have imported both
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'"digits" needs `sklearn`.*: pip install "tfopt\[report\]"'):
        _optional.require("sklearn.datasets", '"digits"')


def test_a_package_that_lacks_another_names_that_one(tmp_path, monkeypatch):
    """keras-tuner is installed and tensorboard, which it imports, is not."""
    (tmp_path / "wanting.py").write_text("import tensorboard.plugins.hparams")
    (tmp_path / "outdated.py").write_text("raise RuntimeError('compiled for protobuf 6')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'needs `tensorboard`.*"tfopt\[search\]"'):
        _optional.require("wanting", "`search`")
    with pytest.raises(
        ImportError, match=r"`outdated`, which fails on import: RuntimeError: compiled.*doctor"
    ):
        _optional.require("outdated", "`search`")


# Where private names of Keras and TensorFlow may be used; elsewhere a call of these files is.
GATEWAYS = {
    "_named_outputs.py": "Keras: the class of Functional models",
    "_keras_internals.py": "Keras: trainer, layers, optimizers",
    "_fit_data.py": "Keras: what `fit` reads its batches from",
    "_tflite_internals.py": "TensorFlow Lite: schema, converter errors, operations of an interpreter",
    "compress/_probe_child.py": "TensorFlow's interpreter, in a process that imports nothing of tfopt",
    "distribute/multiworker.py": "Keras's trainer on several workers, which it patches",
    "distribute/replicas.py": "two methods of Keras, which it patches",
    "distribute/sharding.py": "the cardinality of a distributed dataset",
}
# Names of `keras.optimizers.Optimizer` that its subclasses, all in optimizers/, need.
PROTECTED = {
    *("_apply_weight_decay", "_check_variables_are_known", "_filter_empty_gradients", "_get_variable_index"),
    *("_iterations", "_model_variables_moving_average", "_trainable_variables", "_use_weight_decay"),
    *("_trainable_variables_indices", "_var_key"),
}
PRIVATE_MODULES = r"(keras\.src|tensorflow\.(lite\.)?python)(\.\w+)*$"
OF_PYTHON = {"_exit", "_replace", "_asdict", "_fields"}  # of `os` and of named tuples
OF_PYTHON |= {
    "_action_groups",
    "_actions",
    "_StoreTrueAction",
}  # of `argparse`


def own_names() -> set[str]:
    """Every name that tfopt itself defines or assigns to an object of its own."""
    found = set()
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.alias):
                found.add(node.asname or node.name)
    return found


def foreign_private(path: pathlib.Path, own: set[str]) -> list[str]:
    """Private modules and names of other packages that a file uses, and their names that it replaces."""
    found = []
    for node in nodes(path):
        names = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            modules = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            found += [name for name in modules if re.match(PRIVATE_MODULES, name)]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
            text = ast.unparse(node)
            if isinstance(node.ctx, ast.Store) and re.match(r"(keras|tf|tensorflow)\.[\w.]+$", text):
                found.append(f"{text} = ...")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            names = [node.args[1].value] if isinstance(node.args[1], ast.Constant) else []
        elif isinstance(node, ast.Call) and re.search(r"require$|import_module$", ast.unparse(node.func)):
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            found += [name for name in given if re.match(PRIVATE_MODULES, str(name))]
        private = [name for name in names if name.startswith("_") and not name.startswith("__")]
        found += [name for name in private if name not in own | OF_PYTHON]
    return found


def test_private_hooks_stay_in_the_gateway_files():
    own, wrong = own_names(), {}
    for path in FILES:
        name = path.relative_to(ROOT / "tfopt").as_posix()
        found = [] if name in GATEWAYS else foreign_private(path, own)
        if name.startswith("optimizers/"):
            found = [each for each in found if each not in PROTECTED]
        if found:
            wrong[name] = found
    assert wrong == {}, f"use one of {', '.join(GATEWAYS)}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import keras.src.trainers", ["keras.src.trainers"]),
        ("from tensorflow.lite.python import schema", ["tensorflow.lite.python.schema"]),
        ("keras.layers.Dense.call = mine", ["keras.layers.Dense.call = ..."]),
        ("model._nodes_by_depth", ["_nodes_by_depth"]),
        ("getattr(model, '_nodes_by_depth', 0)", ["_nodes_by_depth"]),
        ("require('tensorflow.python.ops', 'A')", ["tensorflow.python.ops"]),
        ("importlib.import_module('keras.src.ops')", ["keras.src.ops"]),
        ("self._own; keras.layers.Dense; model.__dict__", []),
    ],
)
def test_the_test_of_hooks_finds_them(code, found, tmp_path):
    (tmp_path / "file.py").write_text(code)
    assert foreign_private(tmp_path / "file.py", {"_own"}) == found


def test_files_are_replaced_on_windows_without_opening_folders(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(
        _files.os,
        "open",
        lambda path, flags, real=_files.os.open: opened.append((path, flags)) or real(path, flags),
    )
    _files.write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"
    assert [pathlib.Path(path).name for path, _ in opened] == [".partial-a.txt"]
    assert opened[0][1] == _files.os.O_RDWR


def test_windows_has_no_process_groups_and_no_kill(monkeypatch):
    class Child:
        calls: list = []

        def terminate(self):
            self.calls.append("terminate")

        def kill(self):
            self.calls.append("kill")

    monkeypatch.setattr(sys, "platform", "win32")
    _surroundings.signal_group(Child(), _surroundings.TERMINATE)
    assert Child.calls in (["terminate"], ["kill"])  # one number there
    assert _surroundings.visible_cpus() == _surroundings.os.cpu_count()


def test_locks_use_the_calls_of_windows(tmp_path, monkeypatch):
    class Msvcrt:
        LK_LOCK, LK_NBLCK = 1, 2
        held = False

        @classmethod
        def locking(cls, handle, mode, size):
            if cls.held:
                raise OSError(13, "Permission denied")
            cls.held = True

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(_locks, "msvcrt", Msvcrt, raising=False)
    with open(tmp_path / "lock", "w") as file:
        _locks.lock(file.fileno(), wait=False)
        with pytest.raises(BlockingIOError):
            _locks.lock(file.fileno(), wait=False)


_AS_ON = """
import importlib, os, pathlib, pkgutil, re, signal, socket, sys, tempfile, types
sys.path.insert(0, {tests!r})
import keras, tensorflow, scipy.optimize, psutil, rich.console, rich.progress, PIL.Image
import test_architecture as rules

def without(module):
    for name in list(vars(module)):
        if rules.POSIX_NAMES.match(f"{{module.__name__}}.{{name}}"):
            delattr(module, name)

sys.platform = {platform!r}
if sys.platform == "win32":
    for name in rules.POSIX_MODULES:
        sys.modules[name] = None
    without(signal)
    without(os)
    sys.modules["msvcrt"] = types.SimpleNamespace(LK_LOCK=1, LK_NBLCK=2, locking=lambda *given: None)
import tfopt
for module in pkgutil.walk_packages(tfopt.__path__, "tfopt."):
    if not module.name.endswith(("__main__", "_child")):
        importlib.import_module(module.name)
from tfopt import _memory, _surroundings, doctor
from tfopt._files import write_text
assert _surroundings.usable_cpus() >= 1 and _memory.free_memory() > 0
write_text(pathlib.Path(tempfile.mkdtemp()) / "a.txt", "text")
assert not doctor.is_broken([*doctor.machine.processors(), *doctor.machine.memory()])
assert tfopt.data.load("digits").class_counts["test"][0] == 27
print("as on", sys.platform)
"""


@pytest.mark.process
@pytest.mark.parametrize("platform", ["win32", pytest.param("darwin", marks=pytest.mark.full)])
def test_every_module_is_imported_as_on_other_systems(platform, tmp_path):
    """Without the modules, calls and signals that Windows lacks."""
    code = _AS_ON.format(tests=str(ROOT / "tests"), platform=platform)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == [f"as on {platform}"], done.stderr[-3000:]


# Where pickle is used, and why nobody else can write what is read.
PICKLES = {
    "distribute/spawning.py": "between a process and the children that it starts, in a folder of its own",
    "tune/_child.py": "between a process and the children that it starts, in a folder of its own",
    "tune/subject.py": "between a process and the children that it starts, in a folder of its own",
    "testing/models.py": "a round trip in memory of an optimizer under test",
    "models/_torch_file.py": "an unpickler that knows four names and refuses every other",
}


def test_no_file_of_others_is_read_in_a_way_that_runs_code():
    """Models load with Keras's safe mode, arrays without pickle."""
    for path in FILES:
        name = path.relative_to(ROOT / "tfopt").as_posix()
        for node in nodes(path):
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle" or node.value.value is False, name
                assert node.arg != "safe_mode" or getattr(node.value, "value", True) is not False, name
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not modules & {"pickle", "dill", "joblib", "marshal", "shelve"} or name in PICKLES, (
                    name
                )


def test_the_version_stands_in_one_place():
    version = re.search(r'__version__ = "(.+)"', (ROOT / "tfopt" / "__init__.py").read_text())[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert "version = attr: tfopt.__version__" in (ROOT / "setup.cfg").read_text()


def test_links_of_the_readme_work_on_the_page_of_an_index():
    made = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
    text = "[a page](docs/a.md#part), ![picture](docs/a.png), [other](https://x.example), [here](#part)"
    assert made["for_index"](text, "https://forge.example/o/n/") == (
        "[a page](https://forge.example/o/n/blob/main/docs/a.md#part), "
        "![picture](https://forge.example/o/n/raw/main/docs/a.png), [other](https://x.example), [here](#part)"
    )
    assert (
        made["for_index"](text, "")
        == "a page (docs/a.md), picture, [other](https://x.example), [here](#part)"
    )
    badge = "[![Open](docs/b.svg)](docs/n.ipynb)"
    assert made["for_index"](badge, "") == "Open (docs/n.ipynb)"
    assert made["for_index"](badge, "https://github.com/o/n") == (
        "[![Open](https://github.com/o/n/raw/main/docs/b.svg)]"
        "(https://colab.research.google.com/github/o/n/blob/main/docs/n.ipynb)"
    )
    readme = (ROOT / "README.md").read_text()
    archives = runpy.run_path(str(ROOT / "tests" / "archives.py"), run_name="archives")
    assert archives["relative_links"](readme)
    for address in ("", "https://forge.example/o/n"):
        assert archives["relative_links"](made["for_index"](readme, address)) == []
    assert made["project_urls"]("") == {}

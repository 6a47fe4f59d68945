"""`import tfopt` costs little, and registers every serializable class in whichever order Keras comes."""

import ast
import functools
import importlib
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfopt

ROOT = pathlib.Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "tfopt").rglob("*.py"))
}
IDS = list(MODULES)


@functools.cache
def imports(module):
    """(module, name or None) of the imports that run when a module is imported, in order."""
    found = []
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name) for alias in node.names]
    return found


def parents(module):
    """tfopt, tfopt.optimizers and tfopt.optimizers.adam."""
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


class KerasReached(Exception):
    """Raised where an import of Keras begins."""


def importing(module, done, stack):
    """Imports as Python does until Keras is reached: `stack` then holds what is imported in part."""
    for name in parents(module):
        if name in done or name in stack:
            continue
        if name.startswith(tfopt._NEEDS_KERAS) and name not in tfopt._LIGHT:
            raise KerasReached
        stack.append(name)
        for target, attribute in imports(name):
            if target.split(".")[0] in ("keras", "tensorflow"):
                raise KerasReached
            both = f"{target}.{attribute}"
            if target.startswith("tfopt"):
                importing(both if both in MODULES else target, done, stack)
        stack.remove(name)
        done.add(name)


@functools.cache
def registration(partial=frozenset()):
    """All modules that `tfopt._register` imports while some are imported in part."""
    found, queue = set(), [f"tfopt.{name}" for name in tfopt._SERIALIZABLE]
    while queue:
        for name in parents(queue.pop()):
            if name in found or name in partial:
                continue
            found.add(name)
            for target, attribute in imports(name):
                if target.startswith("tfopt"):
                    queue.append(f"{target}.{attribute}" if f"{target}.{attribute}" in MODULES else target)
    return found


@pytest.mark.parametrize("module", [name for name in IDS if not name.split(".")[-1].startswith("_")])
def test_any_module_may_be_the_first_import(module):
    """Importing Keras runs the registration, which must not need a module that is imported in part."""
    stack = []
    try:
        importing(module, set(), stack)
    except KerasReached:
        partial = frozenset(stack)
    else:
        return
    for user in registration(partial):
        for target, attribute in imports(user):
            if target in partial and f"{target}.{attribute}" not in MODULES:
                pytest.fail(f"add {target} to tfopt._NEEDS_KERAS: {user} needs it")


def test_every_module_with_a_serializable_class_is_registered():
    registering = {
        name for name, path in MODULES.items() if "@keras.saving.register_keras" in path.read_text()
    }
    assert registering <= registration(), "add the module to tfopt._SERIALIZABLE"


def test_no_module_takes_the_name_of_a_function_that_its_package_shows():
    """Python would put the module in the place of the function, as soon as anybody imports the module."""
    for package, path in MODULES.items():
        if package != "tfopt" and "lazy_names(" in path.read_text() and path.name == "__init__.py":
            below = {name.rpartition(".")[2] for name in IDS if name.rpartition(".")[0] == package}
            assert not below & set(importlib.import_module(package).__all__), package


@pytest.mark.parametrize(
    "package", ["tfopt", "tfopt.compress", "tfopt.data", "tfopt.distribute", "tfopt.models", "tfopt.recipes"]
)
def test_lazy_names_are_those_of_all(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def run(code, cwd):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.process
def test_import_is_light(tmp_path):
    code = (
        "import json, sys, time; start = time.process_time(); import tfopt\n"
        "used, heavy = time.process_time() - start, ('keras', 'tensorflow', 'numpy')\n"
        "print(json.dumps([used, *(name in sys.modules for name in heavy)]))"
    )
    runs = [run(code, tmp_path) for _ in range(3)]
    assert all(loaded == [False] * 3 for _, *loaded in runs)
    assert min(seconds for seconds, *_ in runs) < 0.2


@pytest.mark.process
def test_saved_objects_load_in_both_import_orders(tmp_path):
    """One file with an object of each kind, loaded where no line names the class."""
    pca = tfopt.data.PCA(2)
    pca.adapt(np.eye(4, 3))
    dense = [tfopt.compress.BinaryDense(3), pca, keras.layers.Dense(2, activation="softmax")]
    model = keras.Sequential([keras.Input((4,)), *dense])
    schedule = tfopt.schedules.Warmup(0.1, warmup_steps=3)
    optimizer = tfopt.optimizers.Lookahead(tfopt.optimizers.Adam(schedule))
    model.compile(optimizer, tfopt.losses.Focal())
    model.save(tmp_path / "m.keras")
    wanted = ["BinaryDense", "PCA", "Lookahead", "Adam", "Warmup", "Focal"]
    show = (
        "import json; m = load_model('m.keras'); o = m.optimizer.inner_optimizer\n"
        "parts = [*m.layers[:2], m.optimizer, o, o._learning_rate, m.loss]\n"
        "print(json.dumps([type(part).__name__ for part in parts]))"
    )
    for first in (
        "import tfopt; from keras.models import load_model",
        "from keras.models import load_model; import tfopt",
    ):
        assert run(f"{first}\n{show}", tmp_path) == wanted

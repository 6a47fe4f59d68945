"""Examples in docstrings run; every name is documented and in the catalogue; Keras's hooks are as used."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import CASES

import tfopt
import tfopt.optimizers as to
from tfopt.optimizers._wrapper import OptimizerWrapper

OPTIMIZERS = {
    name: kind
    for name, kind in vars(to).items()
    if name in to.__all__ and isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer)
}
CLASSES = sorted(name for name, kind in OPTIMIZERS.items() if not inspect.isabstract(kind))
MODULES = [f"tfopt.optimizers.{module.name}" for module in pkgutil.iter_modules(to.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "tfopt.models.sharpness_aware", "tfopt.models._rematerialize"])
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    # A fresh copy of the names per module; an old NumPy or a wide terminal must not change the output.
    with np.printoptions(linewidth=75):
        result = doctest.testmod(module, extraglobs={"tfopt": tfopt, "keras": keras, "tf": tf, "np": np})
    assert result.failed == 0


@pytest.mark.parametrize("name", CLASSES)
def test_every_optimizer_is_in_the_catalogue_and_the_docs(name):
    kinds = {type(case.make()).__name__ for case in CASES} | {"Lookahead"}
    assert name in kinds
    docs = pathlib.Path(tfopt.__file__).parent.parent / "docs" / "optimizers.md"
    assert f"`{name}" in docs.read_text()
    documentation = inspect.getdoc(vars(to)[name])
    for section in ("Args:", "Raises:", "Example:"):
        assert section in documentation, f"{name} has no {section}"


@pytest.mark.parametrize("name", [n for n in CLASSES if not issubclass(vars(to)[n], OptimizerWrapper)])
def test_method_cards_tell_the_defaults(name):
    docs = (pathlib.Path(tfopt.__file__).parent.parent / "docs" / "optimizers.md").read_text()
    (row,) = [line for line in docs.splitlines() if line.startswith(f"| `{name}` |") and line.count("|") == 9]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert all(cells)
    parameters = inspect.signature(vars(to)[name].__init__).parameters.values()
    numbers = [p.default for p in parameters if type(p.default) in (int, float)]
    assert [float(text) for text in cells[4].split(",")] == numbers


HOOKS = {
    "_backend_apply_gradients": ["grads", "trainable_variables"],
    "_all_reduce_sum_gradients": ["grads_and_vars"],
    "_get_variable_index": ["variable"],
    "_use_weight_decay": ["variable"],
    "_apply_weight_decay": ["variables"],
    "_filter_empty_gradients": ["grads", "vars"],
    "_check_variables_are_known": ["variables"],
    "update_step": ["gradient", "variable", "learning_rate"],
}


@pytest.mark.parametrize("name", HOOKS)
def test_keras_still_has_the_hooks_we_use(name):
    parameters = list(inspect.signature(getattr(keras.optimizers.Adam, name)).parameters)
    assert parameters[1:] == HOOKS[name]


def test_keras_still_keeps_its_state_where_we_read_it():
    optimizer, weight = keras.optimizers.Adam(use_ema=True), keras.Variable([1.0])
    optimizer.build([weight])
    assert optimizer._trainable_variables == [weight]
    assert len(optimizer._model_variables_moving_average) == 1
    assert int(optimizer._iterations) == 0

"""What a script says of its optimizers, compared with what it said when a checkpoint was made."""

import json
import logging
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfopt._optimizers_in_use import optimizers_in_use

_LOG = logging.getLogger(__name__)
_LEFT: Any = weakref.WeakKeyDictionary()  # optimizer -> settings of the script, and at the end of `fit`


class Settings:
    """Classes, hyperparameters and first scalar values of the optimizers in use; make it before training.

    A `fit` may change a learning rate. Where the same optimizer is trained again, what the script said holds.
    """

    def __init__(self, model: keras.Model, variables: list[keras.Variable]) -> None:
        self._optimizers = list(optimizers_in_use(model).values())
        self._variables = variables
        now = self._read()
        said, left = _LEFT.get(self._optimizers[0], (now, now)) if self._optimizers else (now, now)
        self.state: dict[str, Any] = said if left == now else now

    def leave(self) -> None:
        """Remembers what training has changed, when it ends."""
        if self._optimizers:
            _LEFT[self._optimizers[0]] = self.state, self._read()

    def check(self, saved: dict[str, Any], allow_changes: Sequence[str] | None) -> None:
        """Refuses other optimizers; other hyperparameters are told, or refused unless they are allowed.

        Raises:
            ValueError: Naming what differs, with both values.
        """
        if saved["classes"] != self.state["classes"]:
            both = (
                " and ".join(map(_chain, saved["classes"])),
                " and ".join(map(_chain, self.state["classes"])),
            )
            raise ValueError(
                f"It was made with the optimizer {both[0]}, the model has {both[1]}, which cannot go on from "
                "the state of the other."
            )
        before, now = saved["configs"], self.state["configs"]
        for name in sorted({*before, *now}):
            if before.get(name) == now.get(name):
                continue
            both_values = f"{before.get(name)} in the checkpoint and {now.get(name)} in this script"
            allowed = allow_changes is not None and name.split(".")[-1] in allow_changes
            if allow_changes is not None and not allowed:
                raise ValueError(
                    f"`{name}` of the optimizer is {both_values}. `allow_changes` does not name it."
                )
            if not allowed:
                _LOG.warning("Resume: `%s` of the optimizer is %s, whose value holds.", name, both_values)

    def apply(self, saved: dict[str, Any]) -> None:
        """Puts changed hyperparameters that are variables into the restored optimizer.

        A rate that training had changed (by a plateau, say) is changed in proportion.
        """
        if saved["configs"] == self.state["configs"]:
            return
        for variable, before, now in zip(self._variables, saved["first"], self.state["first"]):
            if before is None or now is None or before == now:
                continue
            current = keras.ops.convert_to_numpy(variable).item()
            is_scaled = isinstance(current, float) and before != 0 and current != before
            variable.assign(np.asarray(now * current / before if is_scaled else now, variable.dtype))

    def _read(self) -> dict[str, Any]:
        own = {id(variable) for optimizer in self._optimizers for variable in optimizer.variables}
        counters = {id(optimizer.iterations) for optimizer in self._optimizers}
        scalars = [
            keras.ops.convert_to_numpy(variable).item()
            if id(variable) in own - counters and variable.shape == ()
            else None
            for variable in self._variables
        ]
        configs: dict[str, Any] = {}
        for number, optimizer in enumerate(self._optimizers):
            prefix = type(optimizer).__name__ if len(self._optimizers) == 1 else f"optimizers[{number}]"
            _flatten(prefix, optimizer.get_config(), configs)
        return {
            "classes": [_classes(each) for each in self._optimizers],
            "configs": configs,
            "first": scalars,
        }


def _classes(optimizer: Any) -> list[str]:
    names = []
    while optimizer is not None:
        names.append(type(optimizer).__name__)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return names


def _chain(names: list[str]) -> str:
    return "(".join(names) + ")" * (len(names) - 1)


def _flatten(prefix: str, value: Any, flat: dict[str, Any]) -> None:
    """Nested configurations as one level of names, without the names of objects and modules."""
    if isinstance(value, dict) and value.get("class_name") == "ScaledSchedule":
        value = value["config"]["schedule"]  # of a callback, around the schedule of the script
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("name", "module", "registered_name", "build_config", "compile_config"):
                _flatten(prefix if key == "config" else f"{prefix}.{key}", item, flat)
        return
    flat[prefix] = json.loads(json.dumps(value, default=lambda other: type(other).__name__))

"""Finds the kernels of a model, names them, and chooses which of them are compressed."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, final

import keras
import numpy as np

from tfopt._checks import message
from tfopt._keras_internals import sublayers
from tfopt.compress._layouts import LAYOUTS, Layout, layouts

Selector: TypeAlias = "str | type | keras.Layer"
EXCLUDED = "in `exclude`"
WORTH_A_WARNING = 0.1  # of the weights in kernels


@final
@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a model.

    Attributes:
        name: Unique in the model: the layer's name; for a layer inside another "outer/inner"; with the
            weight's name behind it if the layer has several kernels ("lstm/recurrent_kernel").
        variable: The weight itself.
        layout: Its axes.
        path: The layers and models that hold it, from the outside.
    """

    name: str
    variable: keras.Variable
    layout: Layout
    path: tuple[keras.Layer, ...]

    @property
    def layer(self) -> keras.Layer:
        """The layer that holds it."""
        return self.path[-1]

    def fits(self, selector: Selector) -> bool:
        """Whether a name, a pattern, a class (or its name) or a layer means this kernel."""
        if isinstance(selector, str):
            names = {self.name, *(layer.name for layer in self.path)}
            kinds = {type(layer).__name__ for layer in self.path}
            return any(fnmatchcase(name, selector) for name in names | kinds)
        if isinstance(selector, type):
            return any(isinstance(layer, selector) for layer in self.path)
        return any(layer is selector for layer in self.path)


@final
@dataclass(frozen=True)
class Choice:
    """Which kernels are compressed, and which are not.

    Attributes:
        chosen: Kernels to compress, by name.
        dense: Why each other kernel stays as it is, by name.
        every: All kernels of the model.
    """

    chosen: dict[str, Kernel]
    dense: dict[str, str]
    every: tuple[Kernel, ...] = field(repr=False)

    def leave(self, reasons: dict[str, str], what: str) -> "Choice":
        """The choice without some kernels.

        Raises:
            ValueError: If nothing is left.
        """
        chosen = {name: kernel for name, kernel in self.chosen.items() if name not in reasons}
        dense = {**self.dense, **reasons}
        if not chosen:
            raise ValueError(_nothing_left(what, dense))
        return Choice(chosen, dense, self.every)

    def share_of_zeros(self) -> float:
        """Share of zeros in all kernels of the model, compressed or not."""
        values = [np.asarray(kernel.variable.numpy()) for kernel in self.every]
        zeros = sum(np.count_nonzero(value == 0) for value in values)
        return zeros / max(sum(value.size for value in values), 1)

    def tell(self, logger: logging.Logger, who: str) -> None:
        """Logs which kernels stay as they are without having been excluded: a warning if they are many."""
        sizes = {kernel.name: int(np.prod(kernel.variable.shape)) for kernel in self.every}
        left = {name: reason for name, reason in self.dense.items() if reason != EXCLUDED}
        share = sum(sizes[name] for name in left) / max(sum(sizes.values()), 1)
        by_reason = {reason: [n for n, r in left.items() if r == reason] for reason in left.values()}
        text = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        if left:
            level = logging.WARNING if share > WORTH_A_WARNING else logging.INFO
            logger.log(
                level, "%s: %.0f%% of the weights in kernels stay as they are: %s.", who, 100 * share, text
            )


def choose(
    model: keras.Model,
    include: Sequence[Selector] = (),
    exclude: Sequence[Selector] = (),
    what: str = "pruned",
) -> Choice:
    """Chooses the kernels of a built model by the defaults of `LAYOUTS`, then `include`, then `exclude`.

    Args:
        model: Any model, subclassed too.
        include: Kernels to compress although the defaults leave them.
        exclude: Kernels to leave; stronger than `include`.
        what: What is done to them, for messages.

    Raises:
        ValueError: If the model is not built or was quantized by Keras, if a name fits nothing, or if no
            kernel is left.
    """
    refuse_keras_quantized(model, what)
    every = tuple(kernels(model))
    unbuilt = [
        path[-1].name for path in layer_paths(model) if type(path[-1]) in LAYOUTS and not path[-1].built
    ]
    if unbuilt or not model.built:
        raise ValueError(
            f"The model must be built before it is {what}. Call it on a batch or give it an `Input`. "
            f"Not built: {unbuilt or model.name}."
        )
    wanted, unwanted = (_fitting(every, *pair) for pair in (("include", include), ("exclude", exclude)))
    chosen, dense = {}, {}
    for kernel in every:
        reason = None if kernel.name in wanted else kernel.layout.dense
        reason = EXCLUDED if kernel.name in unwanted else reason
        if reason is None:
            chosen[kernel.name] = kernel
        else:
            dense[kernel.name] = reason
    if not chosen:
        raise ValueError(_nothing_left(what, dense))
    return Choice(chosen, dense, every)


def kernels(model: keras.Model) -> Iterator[Kernel]:
    """All kernels of a model, each variable once."""
    names: set[str] = set()
    seen: set[int] = set()
    for path in layer_paths(model):
        held = [pair for pair in layouts(path[-1]) if id(pair[1]) not in seen]
        for layout, variable in held:
            seen.add(id(variable))
            name = _local_name(path)
            name = f"{name}/{layout.weight}" if len(held) > 1 else name
            owner = next((x.name for x in reversed(path[:-1]) if isinstance(x, keras.Model)), model.name)
            while name in names:
                name = f"{owner}_{name}"
            names.add(name)
            yield Kernel(name, variable, layout, path)


def layer_paths(model: keras.Model) -> Iterator[tuple[keras.Layer, ...]]:
    """Every layer in a model, in order, as the chain of what holds it; the model itself first."""
    seen: set[int] = set()

    def walk(layer: keras.Layer, outer: tuple[keras.Layer, ...]) -> Iterator[tuple[keras.Layer, ...]]:
        if id(layer) not in seen:
            seen.add(id(layer))
            path = (*outer, layer)
            yield path
            for inner in sublayers(layer):
                yield from walk(inner, path)

    yield (model,)
    for layer in sublayers(model):
        yield from walk(layer, ())


def refuse_keras_quantized(model: keras.Model, what: str) -> None:
    """Raises ValueError if `model.quantize(...)` of Keras has replaced kernels by integers."""
    found = {
        path[-1].name: path[-1].quantization_mode
        for path in layer_paths(model)
        if getattr(path[-1], "quantization_mode", None) is not None
    }
    if found:
        raise ValueError(
            f"`model` must have float kernels to be {what}. Received: {model.name!r}, quantized by Keras's "
            f"`model.quantize`: {found}. Its integers cannot be changed: start from the float model, "
            "from the file that it was saved to before `quantize`."
        )


def _fitting(every: Sequence[Kernel], argument: str, selectors: Sequence[Selector]) -> set[str]:
    if isinstance(selectors, str | type | keras.Layer):
        selectors = [selectors]
    found: set[str] = set()
    for selector in selectors:
        names = {kernel.name for kernel in every if kernel.fits(selector)}
        if not names:
            shown: Any = selector.name if isinstance(selector, keras.Layer) else selector
            expected = f"names, patterns or classes of layers that have kernels: {[k.name for k in every]}"
            raise ValueError(message(argument, expected, shown))
        found |= names
    return found


def _local_name(path: tuple[keras.Layer, ...]) -> str:
    """Names from the nearest model down to the layer, without that of a cell inside a recurrent layer."""
    start = max((i + 1 for i, x in enumerate(path[:-1]) if isinstance(x, keras.Model)), default=0)
    inner = path[start:]
    kept = [x for i, x in enumerate(inner) if not (i and getattr(inner[i - 1], "cell", None) is x)]
    return "/".join(x.name for x in kept)


def _nothing_left(what: str, dense: dict[str, str]) -> str:
    why = (
        "; ".join(f"{name}: {reason}" for name, reason in dense.items()) or "the model has no kernels at all"
    )
    return f"No kernel is left to be {what}. {why}. Name kernels in `include`, or take them out of `exclude`."

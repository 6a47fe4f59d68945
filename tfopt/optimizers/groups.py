"""Learning rates and weight decay per part of a model, and the usual ways to divide a model into parts."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from tfopt import _checks
from tfopt.optimizers import _arguments
from tfopt.optimizers._matrix import is_vector


@keras.saving.register_keras_serializable(package="tfopt")
@dataclass(frozen=True)
class Group:
    """The variables whose path matches, with what they change.

    Args:
        match: Regular expression, or several, searched for in `variable.path` ("block_1/conv/kernel").
        learning_rate_multiplier: Float >= 0. Multiplies the learning rate; 0 freezes.
        weight_decay: Float >= 0, or None to inherit that of the optimizer. 0 is off.
        optional: Whether it is right that nothing matches, for example because the layers are frozen.

    Raises:
        ValueError: If a number is out of its bounds or a pattern is not a regular expression.
    """

    match: str | Sequence[str]
    learning_rate_multiplier: float = 1.0
    weight_decay: float | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        _checks.check_instance("match", self.match, (str, list, tuple))
        for pattern in self.patterns():
            try:
                re.compile(_checks.check_instance("match", pattern, str))
            except re.error as error:
                expected = "a regular expression"
                raise ValueError(_checks.message("match", expected, pattern, f"({error})")) from error
        _arguments.not_negative("learning_rate_multiplier", self.learning_rate_multiplier)
        _arguments.optional("weight_decay", self.weight_decay, _arguments.not_negative)

    def patterns(self) -> list[str]:
        """The regular expressions."""
        return [self.match] if isinstance(self.match, str) else list(self.match)

    def get_config(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self) | {"match": self.match if isinstance(self.match, str) else list(self.match)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Group":
        """The reverse of `get_config`."""
        return cls(**config)


def resolve(groups: Sequence[Group], paths: Sequence[str]) -> list[tuple[float, float | None]]:
    """Learning rate multiplier and weight decay (None: inherited) for every path.

    Raises:
        ValueError: If a group that is not optional has a pattern that matches no path.
    """
    assignment: list[tuple[float, float | None]] = [(1.0, None)] * len(paths)
    for group in groups:
        found = {pattern: _matching(pattern, paths) for pattern in group.patterns()}
        for pattern, indices in found.items():
            if not (indices or group.optional):
                raise ValueError(_unmatched(pattern, paths))
        for index in set().union(*found.values()):
            multiplier, decay = assignment[index]
            decay = decay if group.weight_decay is None else group.weight_decay
            assignment[index] = (multiplier * group.learning_rate_multiplier, decay)
    return assignment


def layer_decay(model: keras.Model, decay: float) -> list[Group]:
    """Groups in which each layer with a kernel learns `decay` times as fast as the one above it.

    The head keeps the full rate. A layer made of layers, such as an attention or a transformer block,
    counts as one; nested models are opened. Common for transformers (0.65 to 0.9); for convolutional networks
    with many layers `discriminative` is easier, because its range does not depend on the depth.

    Args:
        model: A built model.
        decay: Float in (0, 1].

    Raises:
        ValueError: If `decay` is out of its bounds or the model has no weights.

    References:
        Clark et al., "ELECTRA", ICLR 2020, arXiv:2003.10555; Bao et al., "BEiT", arXiv:2106.08254.
    """
    _checks.check_number("decay", decay, minimum=0, maximum=1, open_minimum=True)
    depths = _depths(model)
    return [_group(paths, decay ** (len(depths) - 1 - depth)) for depth, paths in enumerate(depths)]


def discriminative(model: keras.Model, lowest: float = 0.1) -> list[Group]:
    """Groups whose rates fall geometrically from 1 at the head to `lowest` at the first layer.

    For fine-tuning a pretrained model: general low layers move little, the head moves freely.

    Args:
        model: A built model.
        lowest: Float in (0, 1]. Multiplier of the first layer. 1 is one rate for all.

    Raises:
        ValueError: If `lowest` is out of its bounds or the model has no weights.

    References:
        Howard, Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018,
        arXiv:1801.06146 (section 3.2).
    """
    _checks.check_number("lowest", lowest, minimum=0, maximum=1, open_minimum=True)
    depths = _depths(model)
    top = max(len(depths) - 1, 1)
    return [_group(paths, lowest ** ((top - depth) / top)) for depth, paths in enumerate(depths)]


def no_decay_on_norm_and_bias(model: keras.Model) -> list[Group]:
    """One group that turns weight decay off for norms and biases: fewer than 2 axes, or called "bias".

    Decay there shrinks the output scale instead of regularising. Add it to other groups.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model has no weights.

    References:
        He et al., "Bag of Tricks for Image Classification", CVPR 2019, arXiv:1812.01187 (section 3.1).
    """
    paths = [v.path for depth in _variables_by_depth(model) for v in depth if is_vector(v)]
    return [_group(paths, 1.0, weight_decay=0.0)] if paths else []


def _matching(pattern: str, paths: Sequence[str]) -> set[int]:
    search = re.compile(pattern).search
    return {index for index, path in enumerate(paths) if search(path)}


def _group(paths: Sequence[str], multiplier: float, weight_decay: float | None = None) -> Group:
    # Optional: frozen layers have no trainable variables to match.
    return Group([f"^{re.escape(path)}$" for path in paths], multiplier, weight_decay, optional=True)


def _depths(model: keras.Model) -> list[list[str]]:
    return [[variable.path for variable in depth] for depth in _variables_by_depth(model)]


def _variables_by_depth(model: keras.Model) -> list[list[keras.Variable]]:
    """Weights from the input to the head; a layer with a kernel starts a depth, norms join it."""
    _checks.check_instance("model", model, keras.Model)
    depths: list[list[keras.Variable]] = []
    seen: set[int] = set()
    for layer in _layers(model):
        variables = [variable for variable in layer.weights if id(variable) not in seen]
        seen |= set(map(id, variables))
        if not variables:
            continue
        if not depths or any(len(variable.shape) >= 2 for variable in variables):
            depths.append([])
        depths[-1] += variables
    if not depths:
        raise ValueError(f"`model` must be built and have weights. Received: model={model.name!r}. Build it.")
    # What a model owns itself, such as the embedding of positions, is close to its inputs.
    depths[0] += [variable for variable in model.weights if id(variable) not in seen]
    return depths


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Nested models are opened. Composite layers are not: their parts work side by side, as in attention."""
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
        yield from _layers(inner) if isinstance(inner, keras.Model) else (layer,)


def _unmatched(pattern: str, paths: Sequence[str]) -> str:
    parts = {part: path for path in paths for part in (path, *path.split("/"))}
    near = sorted({parts[part] for part in difflib.get_close_matches(pattern, parts, n=3, cutoff=0.4)})
    hint = "Near misses" if near else "Paths"
    shown = ", ".join(near or paths[:5])
    return f"`match` must be found in the path of a variable. Received: match={pattern!r}. {hint}: {shown}."

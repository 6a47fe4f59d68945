"""Learning rates and weight decay per part of a model, and the usual ways to divide a model into parts."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers import _arguments
from tfopt.optimizers._kernel_table import geometries
from tfopt.optimizers._slots import path_of

_PARTS = (keras.Layer, keras.Variable, tf.Variable)


@keras.saving.register_keras_serializable(package="tfopt")
@dataclass(frozen=True)
class Group:
    """Some variables, by path or by themselves, with what they change.

    Args:
        match: Regular expression, searched for in `variable.path` ("block_1/conv/kernel"); or a layer, a
            model or a variable, which means just this one, also where another has the same path, and includes
            adapters (LoRA) that a layer gets later; or a list of these. "=" before a path means exactly it.
        learning_rate_multiplier: Float >= 0. Multiplies the learning rate; 0 freezes.
        weight_decay: Float >= 0, or None to inherit that of the optimizer. 0 is off.
        optional: Whether it is right that nothing matches, for example because the layers are frozen.
        optimizer: The Keras optimizer of these variables in place of that of `ParameterGroups`, or None. It
            may be shared by groups.

    Raises:
        ValueError: If a number is out of its bounds or a pattern is not a regular expression.
    """

    match: Any
    learning_rate_multiplier: float = 1.0
    weight_decay: float | None = None
    optional: bool = False
    optimizer: Any = None

    def __post_init__(self) -> None:
        _checks.check_instance("match", self.match, (str, list, tuple, *_PARTS))
        for pattern in self.patterns():
            if isinstance(_checks.check_instance("match", pattern, (str, *_PARTS)), _PARTS):
                continue
            try:
                re.compile(pattern)
            except re.error as error:
                expected = "a regular expression"
                raise ValueError(_checks.message("match", expected, pattern, f"({error})")) from error
        _arguments.not_negative("learning_rate_multiplier", self.learning_rate_multiplier)
        _arguments.optional("weight_decay", self.weight_decay, _arguments.not_negative)

    def patterns(self) -> list[Any]:
        """The entries of `match` as a list."""
        return list(self.match) if isinstance(self.match, list | tuple) else [self.match]

    def get_config(self) -> dict[str, Any]:
        """The fields; layers and variables as their exact paths."""
        match: Any = self.match
        if not isinstance(match, str):
            match = [text for entry in self.patterns() for text in _as_text(entry)]
        config = {
            "match": match,
            "learning_rate_multiplier": self.learning_rate_multiplier,
            "weight_decay": self.weight_decay,
            "optional": self.optional,
        }
        if self.optimizer is not None:
            config["optimizer"] = keras.saving.serialize_keras_object(self.optimizer)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Group":
        """The reverse of `get_config`."""
        if isinstance(config.get("optimizer"), dict):
            optimizer = keras.saving.deserialize_keras_object(
                config["optimizer"], custom_objects=custom_objects
            )
            config = {**config, "optimizer": optimizer}
        return cls(**config)


class Assigned(NamedTuple):
    """What the groups say of one variable: the last optimizer and the last decay that are not None."""

    multiplier: float = 1.0
    weight_decay: float | None = None
    optimizer: Any = None


def resolve(groups: Sequence[Group], variables: Sequence[Any]) -> list[Assigned]:
    """What each variable gets; groups multiply the learning rate.

    Raises:
        ValueError: If an entry of a group that is not optional matches nothing, or the exact path of a saved
            group belongs to several variables.
    """
    paths = [path_of(variable) for variable in variables]
    assignment = [Assigned()] * len(variables)
    for group in groups:
        matched: set[int] = set()
        for entry in group.patterns():
            indices = _matching(entry, variables, paths)
            # A model whose layers are all frozen has no variables: no fault of the groups.
            if variables and not (indices or group.optional):
                raise ValueError(_unmatched(entry, paths))
            matched |= indices
        for index in matched:
            multiplier, decay, optimizer = assignment[index]
            assignment[index] = Assigned(
                multiplier * group.learning_rate_multiplier,
                decay if group.weight_decay is None else group.weight_decay,
                optimizer if group.optimizer is None else group.optimizer,
            )
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
    return [_group(parts, decay ** (len(depths) - 1 - depth)) for depth, parts in enumerate(depths)]


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
    return [_group(parts, lowest ** ((top - depth) / top)) for depth, parts in enumerate(depths)]


def no_decay_on_norm_and_bias(model: keras.Model) -> list[Group]:
    """One group that turns weight decay off for norms and biases, also those with several axes.

    Decay there shrinks the output scale instead of regularizing. Add it to other groups.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model has no weights.

    References:
        He et al., "Bag of Tricks for Image Classification", CVPR 2019, arXiv:1812.01187 (section 3.1).
    """
    _depths(model)
    vectors = [each for each, axes in zip(model.weights, geometries(model.weights)) if axes.is_vector]
    return [_group(vectors, 1.0, weight_decay=0.0)] if vectors else []


def _matching(entry: Any, variables: Sequence[Any], paths: Sequence[str]) -> set[int]:
    if not isinstance(entry, str):
        wanted = {id(variable) for variable in _variables_of(entry)}
        return {index for index, variable in enumerate(variables) if id(variable) in wanted}
    if not entry.startswith("="):
        search = re.compile(entry).search
        return {index for index, path in enumerate(paths) if search(path)}
    indices = {index for index, path in enumerate(paths) if _same_path(path, entry[1:])}
    if len(indices) > 1:
        raise ValueError(
            f"The path {entry[1:]!r} of a saved group belongs to {len(indices)} variables. Build the "
            "optimizer before it is saved: `optimizer.build(model.trainable_variables)`, or "
            "give the parts other names."
        )
    return indices


def _same_path(path: str, saved: str) -> bool:
    """A Sequential loses its name from the front of the paths when it is loaded."""
    return path == saved or path.endswith(f"/{saved}") or saved.endswith(f"/{path}")


def _variables_of(entry: Any) -> list[Any]:
    return entry.weights if isinstance(entry, keras.Layer) else [entry]


def _as_text(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [f"={path_of(variable)}" for variable in _variables_of(entry)]


def _group(parts: list[Any], multiplier: float, weight_decay: float | None = None) -> Group:
    # Optional: frozen layers have no trainable variables to match.
    return Group(parts, multiplier, weight_decay, optional=True)


def _depths(model: keras.Model) -> list[list[Any]]:
    """Layers from the input to the head, each named once; one with a kernel starts a depth, norms join it.

    Layers stand for all their variables, later ones too; where a layer shares some of them with a layer
    before it, its other variables stand for it.
    """
    _checks.check_instance("model", model, keras.Model)
    depths: list[list[Any]] = []
    seen: set[int] = set()
    for layer in _layers(model):
        variables = [variable for variable in layer.weights if id(variable) not in seen]
        parts = [layer] if len(variables) == len(layer.weights) else variables
        seen |= set(map(id, variables))
        if not variables:
            continue
        if not depths or any(len(variable.shape) >= 2 for variable in variables):
            depths.append([])
        depths[-1] += parts
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


def _unmatched(entry: Any, paths: Sequence[str]) -> str:
    if not isinstance(entry, str):
        return (
            f"`match` must hold variables that the optimizer is built on. Received: match={entry.name!r}, "
            "none of whose variables is trained. Is it frozen, or part of another model?"
        )
    pattern = entry
    parts = {part: path for path in paths for part in (path, *path.split("/"))}
    near = sorted({parts[part] for part in difflib.get_close_matches(pattern, parts, n=3, cutoff=0.4)})
    hint = "Near misses" if near else "Paths"
    shown = ", ".join(near or paths[:5])
    fix = ""
    if len(set(paths)) < len(paths):
        fix = " Parts of the model have equal paths: give the layer or model itself, as in Group(layer, 0.1)."
    return (
        f"`match` must be found in the path of a variable. Received: match={pattern!r}. {hint}: {shown}.{fix}"
    )

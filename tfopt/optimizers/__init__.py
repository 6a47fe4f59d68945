"""Optimizers and wrappers for `model.compile(optimizer=...)`: verified against their papers, and fast."""

from tfopt.optimizers.adam import Adam
from tfopt.optimizers.adamw import AdamW
from tfopt.optimizers.groups import Group, discriminative, layer_decay, no_decay_on_norm_and_bias
from tfopt.optimizers.lookahead import Lookahead
from tfopt.optimizers.parameter_groups import ParameterGroups
from tfopt.optimizers.sgd import SGD

__all__ = [
    "Adam",
    "AdamW",
    "Group",
    "Lookahead",
    "ParameterGroups",
    "SGD",
    "discriminative",
    "layer_decay",
    "no_decay_on_norm_and_bias",
]

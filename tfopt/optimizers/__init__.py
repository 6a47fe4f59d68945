"""Optimizers and wrappers for `model.compile(optimizer=...)`: verified against their papers, and fast."""

from tfopt.optimizers._minimize import Minimum, minimize
from tfopt.optimizers._rule import RuleOptimizer
from tfopt.optimizers._slots import Slot
from tfopt.optimizers.adabelief import AdaBelief
from tfopt.optimizers.adafactor import Adafactor
from tfopt.optimizers.adagrad import Adagrad
from tfopt.optimizers.adam import Adam
from tfopt.optimizers.adamw import AdamW
from tfopt.optimizers.adan import Adan
from tfopt.optimizers.adaptive_gradient_clipping import AdaptiveGradientClipping
from tfopt.optimizers.ademamix import AdEMAMix
from tfopt.optimizers.adopt import ADOPT
from tfopt.optimizers.cautious import Cautious
from tfopt.optimizers.gradient_accumulation import GradientAccumulation
from tfopt.optimizers.gradient_centralization import GradientCentralization
from tfopt.optimizers.groups import Group, discriminative, layer_decay, no_decay_on_norm_and_bias
from tfopt.optimizers.lamb import LAMB
from tfopt.optimizers.laprop import LaProp
from tfopt.optimizers.lars import LARS
from tfopt.optimizers.lazy_adam import LazyAdam
from tfopt.optimizers.lion import Lion
from tfopt.optimizers.lookahead import Lookahead
from tfopt.optimizers.mars import MARS
from tfopt.optimizers.muon import Muon
from tfopt.optimizers.nadam import Nadam
from tfopt.optimizers.novograd import NovoGrad
from tfopt.optimizers.parameter_groups import ParameterGroups
from tfopt.optimizers.prodigy import Prodigy
from tfopt.optimizers.radam import RAdam
from tfopt.optimizers.rmsprop import RMSprop
from tfopt.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from tfopt.optimizers.schedule_free_sgd import ScheduleFreeSGD
from tfopt.optimizers.sgd import SGD
from tfopt.optimizers.sm3 import SM3
from tfopt.optimizers.soap import SOAP
from tfopt.optimizers.stable_adamw import StableAdamW
from tfopt.optimizers.yogi import Yogi

__all__ = [
    "ADOPT",
    "AdEMAMix",
    "AdaBelief",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adan",
    "AdaptiveGradientClipping",
    "Cautious",
    "GradientAccumulation",
    "GradientCentralization",
    "Group",
    "LAMB",
    "LARS",
    "LaProp",
    "LazyAdam",
    "Lion",
    "Lookahead",
    "MARS",
    "Minimum",
    "Muon",
    "Nadam",
    "NovoGrad",
    "ParameterGroups",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "RuleOptimizer",
    "SGD",
    "SM3",
    "SOAP",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Slot",
    "StableAdamW",
    "Yogi",
    "discriminative",
    "layer_decay",
    "minimize",
    "no_decay_on_norm_and_bias",
]

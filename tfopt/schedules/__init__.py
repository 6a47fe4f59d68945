"""Pure functions of progress: learning rates of the update, batch sizes of the samples seen."""

from tfopt.schedules.batch_size import BatchSizeSchedule, Steps, as_batch_size_schedule
from tfopt.schedules.by_sample import BySample
from tfopt.schedules.cyclical import Cyclical
from tfopt.schedules.inverse_square_root import InverseSquareRoot
from tfopt.schedules.one_cycle import OneCycle
from tfopt.schedules.plot import plot
from tfopt.schedules.presets import adabatch, doubling, instead_of_decay, megatron
from tfopt.schedules.ramps import GeometricRamp, LinearRamp
from tfopt.schedules.sequence import Sequence
from tfopt.schedules.warmup import Warmup
from tfopt.schedules.warmup_stable_decay import WarmupStableDecay

__all__ = [
    "BatchSizeSchedule",
    "BySample",
    "Cyclical",
    "GeometricRamp",
    "InverseSquareRoot",
    "LinearRamp",
    "OneCycle",
    "Sequence",
    "Steps",
    "Warmup",
    "WarmupStableDecay",
    "adabatch",
    "as_batch_size_schedule",
    "doubling",
    "instead_of_decay",
    "megatron",
    "plot",
]

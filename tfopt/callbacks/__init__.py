"""What happens during `fit`: rates, batch sizes, averages, freezing, monitoring, restarts."""

from tfopt.callbacks._state import StatefulCallback
from tfopt.callbacks.batch_size_ramp import BatchSizeRamp
from tfopt.callbacks.gradient_noise_scale import GradientNoiseScale
from tfopt.callbacks.learning_rate_decay import LearningRateDecay
from tfopt.callbacks.learning_rate_finder import LearningRateFinder
from tfopt.callbacks.nan_policy import NanPolicy
from tfopt.callbacks.noise_scale_ramp import NoiseScaleRamp
from tfopt.callbacks.plateau_decay import PlateauDecay
from tfopt.callbacks.resume import Resume
from tfopt.callbacks.time_budget import TimeBudget
from tfopt.callbacks.training_monitor import TrainingMonitor
from tfopt.callbacks.unfreeze import Unfreeze
from tfopt.callbacks.weight_averaging import WeightAveraging, averaged

__all__ = [
    "BatchSizeRamp",
    "GradientNoiseScale",
    "LearningRateDecay",
    "LearningRateFinder",
    "NanPolicy",
    "NoiseScaleRamp",
    "PlateauDecay",
    "Resume",
    "StatefulCallback",
    "TimeBudget",
    "TrainingMonitor",
    "Unfreeze",
    "WeightAveraging",
    "averaged",
]

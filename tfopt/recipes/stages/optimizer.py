"""The optimizer that the options name, with its schedule."""

from collections.abc import Sequence
from typing import Any

import keras

from tfopt import callbacks, optimizers, schedules
from tfopt.recipes.resolved_config import ResolvedConfig


def optimizer_of(
    config: ResolvedConfig, peak: float, batches: int, groups: Sequence[optimizers.Group], growth: int = 1
) -> tuple[keras.optimizers.Optimizer, list[keras.callbacks.Callback]]:
    """The optimizer of the options, and the callback that goes with it if its batches grow.

    Args:
        config: Resolved options.
        peak: The largest learning rate.
        batches: Number of batches of `batch_size` in the whole training.
        groups: For `ParameterGroups`.
        growth: How many batches make the largest one, as `batch_growth`.
    """
    while growth * growth.bit_length() > batches:  # until each batch size gets at least one update
        growth //= 2
    if growth <= 1:
        return optimizers.ParameterGroups(rule_of(config, rate_of(config, peak, batches)), groups), []
    size, images = config.batch_size, batches * config.batch_size
    share = images // growth.bit_length()
    ramp = schedules.GeometricRamp(size, size * growth, images - share)
    rate = rate_of(config, peak, images)
    rule = rule_of(config, rate if isinstance(rate, int | float) else schedules.BySample(rate, ramp))
    accumulation = optimizers.GradientAccumulation(
        optimizers.ParameterGroups(rule, groups), ramp, micro_batch_size=size
    )
    return accumulation, [callbacks.BatchSizeRamp(ramp)]


def rate_of(config: ResolvedConfig, peak: float, updates: int) -> Any:
    """Warm-up to the peak, then the schedule."""
    decays = {
        "cosine": keras.optimizers.schedules.CosineDecay(peak, updates),
        "linear": keras.optimizers.schedules.PolynomialDecay(peak, updates, end_learning_rate=0.0),
        "constant": peak,
    }
    decay = decays[config.schedule]
    return schedules.Warmup(decay, max(1, int(config.warmup * updates))) if config.warmup else decay


def rule_of(config: ResolvedConfig, rate: Any) -> keras.optimizers.Optimizer:
    """The rule of the updates that the options name."""
    if config.optimizer == "sgd":
        return optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    kind = {"adamw": optimizers.AdamW, "lion": optimizers.Lion}[config.optimizer]
    return kind(rate, weight_decay=config.weight_decay)

"""Losses for imbalanced classes; integer and soft labels, probabilities and logits."""

from tfopt.losses.class_balanced import ClassBalanced
from tfopt.losses.focal import Focal
from tfopt.losses.logit_adjusted import LogitAdjusted

__all__ = ["ClassBalanced", "Focal", "LogitAdjusted"]

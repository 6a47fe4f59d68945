"""Efficient networks, and wrappers around a model's training step."""

from tfopt.models.mobilenet import mobilenet
from tfopt.models.sharpness_aware import SharpnessAware
from tfopt.models.squeezenet import squeezenet

__all__ = ["SharpnessAware", "mobilenet", "squeezenet"]

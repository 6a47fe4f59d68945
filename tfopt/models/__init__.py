"""Efficient networks, and wrappers around a model's training step."""

from tfopt.models._backbones import backbone
from tfopt.models._image_model import image_model
from tfopt.models.mobilenet import mobilenet
from tfopt.models.sharpness_aware import SharpnessAware
from tfopt.models.squeezenet import squeezenet

__all__ = ["SharpnessAware", "backbone", "image_model", "mobilenet", "squeezenet"]

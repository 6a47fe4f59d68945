"""Efficient networks, and wrappers around a model's training step."""

from typing import TYPE_CHECKING

from tfopt._lazy import lazy_names

if TYPE_CHECKING:
    from tfopt.models._backbones import backbone
    from tfopt.models._classifiers import mobilenet, squeezenet
    from tfopt.models._image_model import image_model
    from tfopt.models._load import load
    from tfopt.models._rematerialize import Rematerialized, rematerialize
    from tfopt.models.sharpness_aware import SharpnessAware

__all__ = [
    "Rematerialized",
    "SharpnessAware",
    "backbone",
    "image_model",
    "load",
    "mobilenet",
    "rematerialize",
    "squeezenet",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Rematerialized": "_rematerialize",
        "SharpnessAware": "sharpness_aware",
        "backbone": "_backbones",
        "image_model": "_image_model",
        "load": "_load",
        "mobilenet": "_classifiers",
        "rematerialize": "_rematerialize",
        "squeezenet": "_classifiers",
    },
)

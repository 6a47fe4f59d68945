"""Scales of pixels that models are trained on; imports no Keras."""

from collections.abc import Mapping
from typing import Any, NamedTuple

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB values in [0, 1]
# Name -> scale and offset of pixels in [0, 255].
SCALES: dict[str, tuple[Any, Any]] = {
    "pixels": (1.0, 0.0),
    "unit": (1 / 255, 0.0),
    "signed": (1 / 127.5, -1.0),
    "imagenet": (
        [1 / (255 * deviation) for deviation in DEVIATION],
        [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION)],
    ),
}
MEANINGS = {
    "pixels": "[0, 255]",
    "unit": "[0, 1]",
    "signed": "[-1, 1]",
    "imagenet": "ImageNet's mean and deviation",
}
# Of equally good scales the first. A model trained on small inputs mostly gives the same classes for larger
# ones, and is too sure of them; one trained on [0, 255] fails on small inputs, where its biases rule.
_PREFERRED = ("unit", "signed", "imagenet", "pixels")
CLEARLY = 0.3  # nats of log loss: the mistakes of a model that is too sure cost more


class Fitness(NamedTuple):
    """How good a model is with one scale of pixels.

    Attributes:
        score: Larger is better.
        log_loss: Of its probabilities, which tells scales apart that have about the same answers.
        error: Scores that differ by less may be equal.
    """

    score: float
    log_loss: float = 0.0
    error: float = 0.0


def best_scale(found: Mapping[str, Fitness]) -> str:
    """The scale with the best score, or that of about the same score whose loss is clearly less.

    A smaller difference of the loss means nothing: where all answers are right, the model is surer of them
    with a wrong, larger scale.
    """
    top = max(found.values(), key=lambda each: each.score)
    near = {scale: each for scale, each in found.items() if each.score >= top.score - top.error}
    least = min(each.log_loss for each in near.values())
    equal = [scale for scale, each in near.items() if each.score == top.score]
    good = [scale for scale in equal if near[scale].log_loss <= least + CLEARLY]
    if not good:
        return min(near, key=lambda scale: near[scale].log_loss)
    return min(good, key=_PREFERRED.index)

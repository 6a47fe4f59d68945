"""One self-contained HTML page about a run: what was done, how good it is, where it fails."""

from tfopt.report.content import (
    Embedding,
    LabelScore,
    LayerChange,
    Mistake,
    ModelRow,
    Report,
    Stage,
    TargetScore,
)
from tfopt.report.embed import embed, embed_batches
from tfopt.report.fronts import FrontRow, write_front
from tfopt.report.galleries import EXPLANATION
from tfopt.report.grad_cam import grad_cam, overlay
from tfopt.report.write import failure_text, write

__all__ = [
    "EXPLANATION",
    "Embedding",
    "FrontRow",
    "LabelScore",
    "LayerChange",
    "Mistake",
    "ModelRow",
    "Report",
    "Stage",
    "TargetScore",
    "embed",
    "embed_batches",
    "failure_text",
    "grad_cam",
    "overlay",
    "write",
    "write_front",
]

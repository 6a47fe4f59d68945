"""One self-contained HTML page about a run: what was done, how good it is, where it fails."""

from tfopt.report.content import Embedding, Mistake, ModelRow, Report, Stage
from tfopt.report.embed import embed
from tfopt.report.grad_cam import grad_cam, overlay
from tfopt.report.write import write

__all__ = ["Embedding", "Mistake", "ModelRow", "Report", "Stage", "embed", "grad_cam", "overlay", "write"]

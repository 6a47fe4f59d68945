"""One line of a diagnosis."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Args:
        subject: What was looked at.
        status: "ok", "warning" (works, but not as it should) or "broken" (something will fail).
        detail: What was found.
        fix: What to do about it; empty where all is well.
    """

    subject: str
    status: Literal["ok", "warning", "broken"]
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `tfopt doctor --json`."""
        return asdict(self)

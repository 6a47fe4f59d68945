"""What `tune_throughput` found."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, final

from rich.table import Table

from tfopt._table import Printable
from tfopt.tune.measuring import Measurement
from tfopt.tune.training_setting import TrainingSetting


@final
@dataclasses.dataclass(frozen=True)
class FasterTraining(Printable):
    """What `tune_throughput` found; prints as a table.

    Args:
        setting: The chosen one; the default if nothing is faster.
        default: The model as it was given.
        ratios: Speed of the chosen setting over that of the default, one value per round of the
            confirmation, in which both ran alternately. Empty if nothing was faster.
        measurements: Everything that was measured, failures included, the default first.
        remembered: Whether this comes from an earlier call.
    """

    setting: TrainingSetting
    default: TrainingSetting
    ratios: Sequence[float]
    measurements: Sequence[Measurement]
    remembered: bool = False

    @property
    def speedup(self) -> float:
        """How many times faster than the default, as confirmed; 1 if the default was kept."""
        return statistics.median(self.ratios) if self.setting != self.default else 1.0

    def __rich__(self) -> Table:
        """The table for a rich console."""
        table = Table(title=self.summary(), title_justify="left", title_style="bold")
        for title in ("setting", "examples/s", "spread", "compile"):
            table.add_column(title, justify="left" if title == "setting" else "right")
        for one in self.measurements:
            if one.status != "ok":
                table.add_row(str(one.setting), one.status)
                continue
            rates = one.samples_per_second
            spread = f"{min(rates):,.0f}–{max(rates):,.0f}" if len(rates) > 1 else ""
            table.add_row(str(one.setting), f"{one.rate:,.0f}", spread, f"{one.compile_seconds:.1f} s")
        return table

    def summary(self) -> str:
        """What was chosen, by how much and how surely, in one line."""
        note = " (remembered)" if self.remembered else ""
        if len(self.measurements) < 2:
            return f"The default stays: nothing else is open, or training is too short to gain by it{note}."
        if self.setting == self.default:
            return f"The default is as fast as anything that was tried{note}."
        low, high = min(self.ratios), max(self.ratios)
        return (
            f"{self.setting}: {self.speedup:.2f} times the default's speed ({low:.2f} to {high:.2f}){note}."
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FasterTraining":
        """The inverse of `as_dict`."""
        settings = {name: TrainingSetting(**values[name]) for name in ("setting", "default")}
        measured = tuple(Measurement.from_dict(one) for one in values["measurements"])
        return cls(**{**values, **settings, "ratios": tuple(values["ratios"]), "measurements": measured})

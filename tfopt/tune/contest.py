"""The contest of settings: each against the best so far, and the winner against the default."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, final

from tfopt.tune.measuring import Measurement, Measurer
from tfopt.tune.training_setting import TrainingSetting

_GAIN = 1.02  # what is less than 2 % faster is noise, and not worth a setting
_HOPELESS = 0.5  # of the best speed: not tried together with something else
_ROUNDS = 5
_SHORT_SECONDS = 60.0


@final
class Contest:
    """Measures settings one after the other and keeps the best.

    The best runs again before and after each rival, in a second process: other programs that come and go
    on the machine then slow both.

    Args:
        measurers: Two, for the best and its rival.
        default: What everything is compared with in the end.
        updates: Updates over which compilation is spread, or None.

    Attributes:
        best: The measurement of the fastest setting so far.
        measurements: All measurements in their order.

    Raises:
        RuntimeError: If the default does not train.
    """

    def __init__(
        self, measurers: tuple[Measurer, Measurer], default: TrainingSetting, updates: int | None
    ) -> None:
        self._holder, self._rival = measurers
        self._updates = updates
        self.best = self.default = self._holder.measure(default)
        self.measurements = [self.default]
        self._hopeless: list[dict[str, Any]] = []
        if self.default.status != "ok":
            raise RuntimeError(
                f"The model does not train as it is: {self.default.status}. {self.default.detail}"
            )

    @property
    def is_short(self) -> bool:
        """Whether the planned training ends before a search for better settings would."""
        return self._updates is not None and self._seconds(self.default) < _SHORT_SECONDS

    def try_all(self, changes: Sequence[dict[str, Any]]) -> None:
        """Tries some changes of the best setting; the best of them replaces it if it is faster."""
        base = self.best.setting
        for change in changes:
            setting = dataclasses.replace(base, **change)
            if self._is_known(setting) or any(bad.items() <= change.items() for bad in self._hopeless):
                continue
            gain = self._compare(setting)
            if gain > _GAIN:
                self.best = self.measurements[-1]
                self._holder, self._rival = self._rival, self._holder
            elif gain < _HOPELESS:
                self._hopeless += [self._difference(setting)]

    def confirm(self) -> list[float]:
        """Speed of the winner over that of the default, in rounds in which they take turns to be first."""
        if self.best is self.default:
            return []
        sides = [(self._holder, self.best.setting), (self._rival, self.default.setting)]
        ratios = []
        for number in range(_ROUNDS + 1):
            order = sides if number % 2 else sides[::-1]
            found = {setting: side.measure(setting, windows=1) for side, setting in order}
            if any(one.status != "ok" for one in found.values()):
                return []
            if number:  # the first round builds the models
                speeds = [self._speed(found[setting]) for _, setting in sides]
                ratios.append(speeds[0] / speeds[1])
        return ratios

    def winner(self, ratios: Sequence[float]) -> TrainingSetting:
        """The best setting if it won the confirmation clearly, else the default."""
        won = ratios and statistics.median(ratios) > _GAIN and sum(r > 1 for r in ratios) >= len(ratios) - 1
        return self.best.setting if won else self.default.setting

    def _compare(self, setting: TrainingSetting) -> float:
        """Measures a setting; returns its speed over that of the best, 0 if it failed."""
        found = self._rival.measure(setting, at_least=_HOPELESS * self.best.rate)
        self.measurements.append(found)
        if found.status != "ok":
            return 0.0
        ratios: list[float] = []
        for _ in range(2):
            held = self._holder.measure(self.best.setting, windows=1)
            first = self._speed(found) / self._speed(held) if held.rate else 0.0
            if not ratios and first < _HOPELESS:
                return first
            again = self._rival.measure(setting, windows=1)
            ratios.append(self._speed(again) / self._speed(held))
        return min(ratios)

    def _speed(self, found: Measurement) -> float:
        """Examples per second, compilation included if the number of updates is known."""
        if not self._updates or not found.rate:
            return found.rate
        return self._updates * found.setting.batch_size / self._seconds(found)

    def _seconds(self, found: Measurement) -> float:
        """What the planned training takes, compilation included."""
        return (self._updates or 0) * found.setting.batch_size / found.rate + found.compile_seconds

    def _is_known(self, setting: TrainingSetting) -> bool:
        full = self._effective(setting)
        return any(full == self._effective(one.setting) for one in self.measurements)

    def _effective(self, setting: TrainingSetting) -> TrainingSetting:
        """What the default has in place of None."""
        given = {name: value for name, value in dataclasses.asdict(setting).items() if value is not None}
        return dataclasses.replace(self.default.effective or self.default.setting, **given)

    def _difference(self, setting: TrainingSetting) -> dict[str, Any]:
        """In what a setting is not the best."""
        best = dataclasses.asdict(self._effective(self.best.setting))
        full = dataclasses.asdict(self._effective(setting))
        return {name: value for name, value in full.items() if value != best[name]}

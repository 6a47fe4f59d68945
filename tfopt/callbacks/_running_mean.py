"""The weights that observations have in an average, for `WeightAveraging`."""


class RunningMean:
    """Share of a new observation in a running average that has no bias towards its start.

    With `decay` None every observation counts the same (SWA). Otherwise observation i of the last t has
    weight (1 - d) d^(t - i) / (1 - d^t): an exponential average, corrected as Adam corrects its moments.
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.mass = 0.0

    def share(self, updates: int) -> float:
        """Share of the next observation, `updates` updates after the last one."""
        fresh = 1.0 if self.decay is None else 1.0 - self.decay**updates
        self.mass = self.mass + fresh if self.decay is None else self.mass * (1.0 - fresh) + fresh
        return fresh / self.mass

"""What to do with a batch whose gradients are NaN, infinite or too large."""

import logging
from typing import Any

from tfopt import _fit_data, _keras_internals
from tfopt._checks import check_choice, check_integer, check_number
from tfopt.callbacks import _snapshot
from tfopt.callbacks._fit_end import FitEnd
from tfopt.callbacks._guard import GradientGuard
from tfopt.callbacks._state import StatefulCallback

_LOG = logging.getLogger(__name__)


class NanPolicy(StatefulCallback):
    """Keeps batches with bad gradients out of the model, and says so.

    One such batch makes all weights NaN, or freezes Adam's variance at infinity. Use it for long runs, for
    data that nobody has looked through, and to find out where NaN come from. Before the optimizer makes an
    update, all gradients are looked at: a batch with a NaN, an infinite or a too large value, on any replica,
    changes no weight, no state of the optimizer, no moving statistics and no metric. It works in every float
    type, with XLA, under every strategy, and with each optimizer of a model that has several. In
    `GradientAccumulation` a bad batch is not added up; the cycle takes the next one in its place.

        "raise"      ends training with a `FloatingPointError`; the weights are the last good ones
        "skip"       goes on with the next batch
        "rollback"   goes back to the weights and the optimizer's state of at most `every` executions ago,
                     for divergence that began before it became infinite

    With a `LossScaleOptimizer` (`mixed_float16`) a batch is bad if its loss is NaN or infinite, if a gradient
    is above `limit` without the scale, or if one is infinite at a scale of 1 or less. Above that the
    optimizer leaves the batch out itself and lowers the scale, which is no fault of the data: this is not
    counted. Bad batches do not lower the scale. A step of one's own has to call `scale_loss`.

    Logs: `skipped_batches` of the epoch.

    Memory and cost: one pass over the gradients; a number is read back after each execution. "rollback" keeps
    a copy of weights and state in main memory.

    Args:
        policy: "raise", "skip" or "rollback".
        patience: Bad batches in a row after which "skip" and "rollback" raise, too, >= 1; also how often
            "rollback" goes back to the same copy before it raises.
        every: Executions between the copies for "rollback", >= 1.
        limit: Largest absolute value of a gradient, > 0. The default is that whose square float32 holds.

    Raises:
        FloatingPointError: During training, see above. It names the variable, or the loss.

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x = np.array([[1.0], [np.nan], [2.0]])
        >>> skip = tfopt.callbacks.NanPolicy("skip")
        >>> model.fit(x, x, batch_size=1, callbacks=[skip], verbose=0).history["skipped_batches"]
        [1]

    Differs from Keras's `TerminateOnNaN`, which looks at the loss after the weights are lost.
    """

    def __init__(
        self, policy: str = "raise", *, patience: int = 10, every: int = 100, limit: float = 1e18
    ) -> None:
        super().__init__()
        self.policy = check_choice("policy", policy, ("raise", "skip", "rollback"))
        self.patience = check_integer("patience", patience, minimum=1)
        self.every = check_integer("every", every, minimum=1)
        self.limit = check_number("limit", limit, minimum=0.0, open_minimum=True)
        self._forget()

    def _forget(self) -> None:
        self._guard: Any = None
        self._good: Any = None  # variables and their values, for a rollback
        self._seen = self._at_epoch = self._executions = 0
        self._returns = 0  # to the same copy

    def on_train_begin(self, logs: Any = None) -> None:
        """Puts the guard into the training step."""
        self._forget()
        _keras_internals.build_for_training(self.model, _fit_data.batch_spec_of_fit())
        self._guard = GradientGuard(self.model, self.limit)
        self._fit_end = FitEnd(self._guard.attach())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes where the epoch began."""
        self._epoch, self._at_epoch = epoch, self._seen

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Keeps a copy now and then."""
        if self.policy == "rollback" and self._executions % self.every == 0:
            self._keep()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Acts if the batches of this execution had bad ones among them."""
        total, in_a_row, place = self._guard.read()
        self._executions += 1
        if total == self._seen:
            return
        where = f"batch {batch} of epoch {self._epoch}: the {place} is NaN, infinite or above "
        where += f"{self.limit:g}"
        self._seen = total
        if self.policy == "raise":
            raise FloatingPointError(f"`NanPolicy` stopped at {where}. The weights are those before it.")
        if in_a_row >= self.patience:
            raise FloatingPointError(
                f"`NanPolicy` stopped at {where}, the last of {in_a_row} bad batches in a row. Lower the "
                "learning rate, clip the gradients, or look at these data."
            )
        if self.policy == "rollback":
            self._restore(where)
        _LOG.warning("NanPolicy: %s %s (%d so far).", self._verb, where, total)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs how many batches were left out."""
        if logs is not None:
            logs["skipped_batches"] = self._seen - self._at_epoch

    def on_train_end(self, logs: Any = None) -> None:
        """Takes the guard out."""
        self._fit_end.now()
        self._good = None

    def get_state(self) -> dict[str, Any]:
        """Counters; the copy for a rollback is made anew."""
        strategy = self.model.distribute_strategy
        counters = _snapshot.read_variables(self._guard.variables, strategy)
        return {"counters": counters, "seen": self._seen, "at_epoch": self._at_epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        strategy = self.model.distribute_strategy
        _snapshot.write_variables(self._guard.variables, state["counters"], strategy)
        self._seen, self._at_epoch, self._executions = state["seen"], state["at_epoch"], 0

    @property
    def _verb(self) -> str:
        return "went back at" if self.policy == "rollback" else "skipped"

    def _keep(self) -> None:
        variables = _snapshot.variables_of(self.model, metrics=False)
        values = _snapshot.read_variables(variables, self.model.distribute_strategy)
        if _snapshot.first_not_finite(variables, values) is None:
            self._good, self._returns = (variables, values), 0

    def _restore(self, where: str) -> None:
        if self._good is not None:
            variables, values = self._good
            _snapshot.write_variables(variables, values, self.model.distribute_strategy)
        self._returns += 1
        if self._returns >= self.patience:
            raise FloatingPointError(
                f"`NanPolicy` went back {self._returns} times to the same weights, the last time at {where}: "
                f"training does not get on. Choose `every` below {self.every}, so that a copy is made "
                'between two bad batches, or policy="skip", which leaves single batches out.'
            )

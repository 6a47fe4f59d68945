"""Magnitude pruning during `fit`, with weight constraints instead of wrapper layers."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_instance, check_integer, message
from tfopt.callbacks._state import StatefulCallback
from tfopt.compress._updates import planned_updates
from tfopt.compress.distillation import Lesson
from tfopt.compress.pruning._constraint import GlobalThreshold, MaskConstraint, MaskRule
from tfopt.compress.pruning.kernels import prunable_kernels
from tfopt.compress.pruning.masks import block_mask, keep_above, magnitude_mask, two_of_four_mask
from tfopt.compress.pruning.schedules import CubicSparsity, Schedule, check_target

_log = logging.getLogger(__name__)


@final
class Pruning(StatefulCallback):
    """Sets the smallest weights to zero while the model trains, and keeps them there.

    Use it to make a model's file compress well: 80 % zeros zip to about a third. It does not make a dense
    kernel faster; for speed remove whole channels with `tfopt.compress.slim`. Finish weight averaging before
    pruning starts. The model stays the same `keras.Model`: there is nothing to wrap and nothing to strip.

        before update `step` (from 1):  mask <- largest |w|, if due;   w <- w * mask

    Memory and Cost: one mask per pruned weight while training; a product per update.

    Args:
        target: Share of zeros in [0, 1), reached cubically after 60 % of this `fit`; or a schedule
            (`CubicSparsity`, `OneShotSparsity`, or a tfmot `PruningSchedule` as it is).
        pattern: "unstructured"; "2:4" (two zeros in each four input channels, needs `target` 0.5);
            "block" (whole blocks of `block_size`).
        scope: "layer" gives every layer the target; "global" compares magnitudes over all layers.
        exclude: Layers to leave alone: names, patterns such as "block_1_*", or layers. Pruned are `Conv1D` to
            `Conv3D` and `Dense`. Depthwise convolutions are always left alone: they are small and lose the
            most; separable, transposed, recurrent and attention layers stay dense, too.
        restore_mask: Weights that are zero when `fit` starts stay zero (a model that was pruned before).
        block_size: (inputs, outputs) of a block, for pattern "block".
        teacher: A model to learn from besides the labels; see `Distillation`.

    Raises:
        ValueError: a value outside its bounds, a combination that does not exist, a name that fits no layer.

    Example:
        >>> pruning = tfopt.compress.Pruning(0.8, exclude=["logits"])
        >>> model.fit(train, epochs=5, callbacks=[pruning])
        >>> pruning.sparsity()["conv1"]
        0.8

    Differs from tfmot: works on Keras 3 models that are compiled or trained already, on convolutions for
    blocks, globally, and with `steps_per_execution`, XLA and strategies; the mask survives save and load.

    References:
        Zhu, Gupta: To prune, or not to prune. arXiv:1710.01878
    """

    def __init__(
        self,
        target: float | Schedule,
        pattern: str = "unstructured",
        scope: str = "layer",
        exclude: Sequence[str | keras.Layer] = (),
        restore_mask: bool = True,
        *,
        block_size: tuple[int, int] = (1, 4),
        teacher: keras.Model | None = None,
    ) -> None:
        super().__init__()
        self._lesson = Lesson(teacher)
        self.target = check_target(target)
        self.pattern = check_choice("pattern", pattern, ("unstructured", "2:4", "block"))
        self.scope = check_choice("scope", scope, ("layer", "global"))
        if self.scope == "global" and self.pattern != "unstructured":
            raise ValueError(message("scope", "'layer' for the patterns '2:4' and 'block'", scope))
        if self.pattern == "2:4" and not callable(self.target) and self.target != 0.5:
            raise ValueError(message("target", "0.5 for the pattern '2:4'", target))
        self.exclude = tuple(exclude)
        self.restore_mask = bool(check_instance("restore_mask", restore_mask, bool))
        height, width = check_instance("block_size", block_size, (tuple, list))
        self.block_size = (
            check_integer("block_size[0]", height, minimum=1),
            check_integer("block_size[1]", width, minimum=1),
        )
        self._pruned: dict[str, keras.Variable] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attaches the constraints to the model that `fit` trains."""
        self._pruned = prunable_kernels(self.model, self.exclude)
        frozen = [name for name, kernel in self._pruned.items() if not kernel.trainable]
        if frozen:
            _log.warning("Layers are not pruned as long as they are frozen: %s.", frozen)
        optimizer = self.model.optimizer

        def updates() -> tf.Tensor:
            return tf.cast(optimizer.iterations, tf.int64)

        start = int(updates())
        with self.model.distribute_strategy.scope():
            for variable, schedule, rule in self._rules(start):
                variable.constraint = MaskConstraint(
                    variable,
                    lambda: tf.cast(optimizer.iterations, tf.int64),
                    schedule,
                    rule,
                    self.restore_mask,
                )
            for variable in self._pruned.values():
                if variable.trainable:
                    variable.constraint.renew(variable)
        self._lesson.begin(self.model)
        self.model.make_train_function(force=True)  # a function traced earlier knows no constraints

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the share of zeros in the pruned layers to the logs."""
        if logs is not None:
            kernels = [np.asarray(variable.numpy()) for variable in self._pruned.values()]
            zeros = sum(np.count_nonzero(kernel == 0) for kernel in kernels)
            logs["sparsity"] = zeros / sum(kernel.size for kernel in kernels)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Freezes the masks: the weights stay pruned in whatever trains this model next."""
        for variable in self._pruned.values():
            variable.constraint.freeze()
        self._lesson.end()

    def get_state(self) -> dict[str, Any]:
        """The masks, for `Resume`."""
        return {"masks": [variable.constraint.mask.numpy() > 0 for variable in self._pruned.values()]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        for variable, mask in zip(self._pruned.values(), state["masks"]):
            variable.constraint.mask.assign(mask)

    def sparsity(self) -> dict[str, float]:
        """Share of zeros of each pruned layer, by layer name."""
        return {name: float(np.mean(variable.numpy() == 0)) for name, variable in self._pruned.items()}

    def _schedule(self, start: int) -> Schedule:
        if callable(self.target):
            return self.target
        updates = planned_updates(self.model.optimizer, self.params)
        if updates is None:
            fix = "Give a schedule, such as CubicSparsity(0.8, end_step=1000), or `steps_per_epoch` to `fit`."
            raise ValueError(
                message("target", "a schedule when `fit` does not know its steps", self.target, fix)
            )
        span = max(int(0.6 * updates), 1)
        frequency = max(span // 40, 1)
        return CubicSparsity(self.target, start + span, begin_step=start, frequency=frequency)

    def _rules(self, start: int) -> Iterator[tuple[keras.Variable, Schedule, MaskRule]]:
        """The schedule and the mask function of every pruned variable, in the order of the updates."""
        schedule, variables = self._schedule(start), list(self._pruned.values())
        if self.scope == "global":
            shared = GlobalThreshold(schedule, variables)
            first = next((x for x in variables if x.trainable), variables[0])  # of those that are updated
            for variable in variables:
                yield variable, shared.leader if variable is first else shared.follower, keep_above
            return
        rules: dict[str, MaskRule] = {
            "unstructured": magnitude_mask,
            "2:4": lambda weights, sparsity: two_of_four_mask(weights),
            "block": lambda weights, sparsity: block_mask(weights, sparsity, self.block_size),
        }
        for variable in variables:
            yield variable, schedule, rules[self.pattern]

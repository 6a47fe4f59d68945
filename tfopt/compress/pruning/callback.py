"""Magnitude pruning during `fit`, with weight constraints instead of wrapper layers."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_instance, check_integer, message
from tfopt.callbacks._state import StatefulCallback
from tfopt.compress._kernels import Choice, Kernel, Selector, choose
from tfopt.compress._layouts import from_matrix, to_matrix
from tfopt.compress._updates import Updates, planned_updates
from tfopt.compress.distillation import Lesson
from tfopt.compress.pruning._constraint import GlobalThreshold, MaskConstraint, MaskRule
from tfopt.compress.pruning.masks import block_mask, keep_above, magnitude_mask, two_of_four_mask
from tfopt.compress.pruning.schedules import CubicSparsity, Schedule, check_target

_logger = logging.getLogger(__name__)
FROZEN = "frozen"


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
        exclude: Layers to leave dense: names, patterns such as "block_1_*", classes or their names
            ("Embedding"), or layers. A layer inside another is "outer/inner", a weight of a layer with
            several kernels "lstm/recurrent_kernel"; the name of the outer layer or model means all in it.
        restore_mask: Weights that are zero when `fit` starts stay zero (a model that was pruned before).
        include: Layers to prune that are left dense otherwise, in the same forms. By default every kernel is
            pruned (convolutions of all kinds, dense, recurrent, attention, embedding and your own layers'
            weights of rank 2 and more) except depthwise kernels: they are small and lose the most.
        block_size: (inputs, outputs) of a block, for pattern "block".
        teacher: A model to learn from besides the labels; see `Distillation`.

    Attributes:
        left_dense: After `fit` has begun: why each kernel that is not pruned stays dense, by name.

    The logs get `sparsity`, the share of zeros in all kernels of the model, pruned or not. For a model that
    is not compiled, call `set_model`, `on_train_begin` and `on_train_end` around your own loop, with a
    schedule as `target`; it counts the updates of the optimizer that you use.

    Raises:
        ValueError: If a value is outside its bounds, a combination does not exist, a name fits no layer, or
            the model was quantized by Keras.

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
        exclude: Sequence[Selector] = (),
        restore_mask: bool = True,
        *,
        include: Sequence[Selector] = (),
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
        self.exclude, self.include = exclude, include
        self.restore_mask = bool(check_instance("restore_mask", restore_mask, bool))
        height, width = check_instance("block_size", block_size, (tuple, list))
        self.block_size = (
            check_integer("block_size[0]", height, minimum=1),
            check_integer("block_size[1]", width, minimum=1),
        )
        self._choice = Choice({}, {}, ())
        self.left_dense: dict[str, str] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attaches the constraints to the model that `fit` trains."""
        self._choice = choose(self.model, self.include, self.exclude)
        self.left_dense = dict(self._choice.dense)
        self._tell_what_stays()
        optimizer = getattr(self.model, "optimizer", None)  # Keras sets it in `compile`
        start = int(Updates(optimizer)())
        with self.model.distribute_strategy.scope():
            for kernel, schedule, rule in self._rules(start):
                variable = kernel.variable
                variable.constraint = MaskConstraint(
                    variable, Updates(optimizer), schedule, rule, self.restore_mask
                )
            for variable in self._variables():
                if variable.trainable:
                    variable.constraint.renew(variable)
        self._lesson.begin(self.model)
        if self.model.compiled:
            self.model.make_train_function(force=True)  # a function traced earlier knows no constraints

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the share of zeros in all kernels of the model to the logs."""
        if logs is not None:
            logs["sparsity"] = self._choice.share_of_zeros()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Freezes the masks: the weights stay pruned in whatever trains this model next."""
        for variable in self._variables():
            variable.constraint.freeze()
        self._lesson.end()

    def get_state(self) -> dict[str, Any]:
        """The masks, for `Resume`."""
        return {"masks": [variable.constraint.mask.numpy() > 0 for variable in self._variables()]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        for variable, mask in zip(self._variables(), state["masks"]):
            variable.constraint.mask.assign(mask)

    def sparsity(self) -> dict[str, float]:
        """Share of zeros of each pruned kernel, by the name of its layer (see `exclude`)."""
        pairs = self._choice.chosen.items()
        return {name: float(np.mean(kernel.variable.numpy() == 0)) for name, kernel in pairs}

    def _variables(self) -> list[keras.Variable]:
        return [kernel.variable for kernel in self._choice.chosen.values()]

    def _tell_what_stays(self) -> None:
        frozen = [name for name, kernel in self._choice.chosen.items() if not kernel.variable.trainable]
        if frozen:
            _logger.warning("Layers are not pruned as long as they are frozen: %s.", frozen)
            self.left_dense.update(dict.fromkeys(frozen, FROZEN))
        self._choice.tell(_logger, "Pruning")

    def _schedule(self, start: int) -> Schedule:
        if callable(self.target):
            return self.target
        updates = planned_updates(getattr(self.model, "optimizer", None), self.params)
        if updates is None:
            fix = (
                "Give a schedule, such as CubicSparsity(0.8, end_step=1000), or `steps_per_epoch` to `fit` "
                '(in a loop of your own: set_params({"epochs": ..., "steps": ...})).'
            )
            raise ValueError(
                message("target", "a schedule when `fit` does not know its steps", self.target, fix)
            )
        span = max(int(0.6 * updates), 1)
        frequency = max(span // 40, 1)
        return CubicSparsity(self.target, start + span, begin_step=start, frequency=frequency)

    def _rules(self, start: int) -> Iterator[tuple[Kernel, Schedule, MaskRule]]:
        """The schedule and the mask function of every pruned kernel, in the order of the updates."""
        schedule, kernels = self._schedule(start), list(self._choice.chosen.values())
        if self.scope == "global":
            shared = GlobalThreshold(schedule, self._variables())
            first = next(
                (x for x in kernels if x.variable.trainable), kernels[0]
            )  # of those that are updated
            for kernel in kernels:
                yield kernel, shared.leader if kernel is first else shared.follower, keep_above
            return
        for kernel in kernels:
            yield kernel, schedule, self._mask_rule(kernel)

    def _mask_rule(self, kernel: Kernel) -> MaskRule:
        if self.pattern == "unstructured":
            return magnitude_mask
        layout, shape = kernel.layout, tuple(kernel.variable.shape)

        def rule(weights: tf.Tensor, sparsity: tf.Tensor) -> tf.Tensor:
            matrix = to_matrix(layout, weights)  # whose last axes are inputs and outputs
            whole = self.pattern == "block"
            mask = block_mask(matrix, sparsity, self.block_size) if whole else two_of_four_mask(matrix)
            return from_matrix(layout, mask, shape)

        return rule

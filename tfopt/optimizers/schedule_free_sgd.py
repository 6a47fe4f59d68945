"""Schedule-Free SGD: averaging in place of a decaying learning rate. arXiv:2405.15682."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers._rule import Scalars, Slot, Tensors
from tfopt.optimizers._schedule_free import ScheduleFree


@keras.saving.register_keras_serializable(package="tfopt")
class ScheduleFreeSGD(ScheduleFree):
    """SGD without a learning rate schedule: the weights are an average that ends where a schedule would.

    Needs no schedule: at any time the average is as good as a run that had decayed to there. Warm-up
    helps. Evaluate, save and deploy at the average: `WeightAveraging(mode="optimizer")` with
    `averaged(model)`, which also re-estimates batch-norm statistics there.

        y = (1 - momentum) * z + momentum * x                      (the variables; g is taken at y)
        z = z - rate * (g + weight_decay * y)
        x = (1 - c) * x + c * z;  c = rate_max**2 / sum of rate_max**2

    Memory: 1 slot. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule. Much higher than for SGD: 10 to 50
            times.
        momentum: Float in (0, 1). Where y lies between z and x.
        warmup_steps: Int >= 0, in steps. The rate rises linearly.
        **base_options: `weight_decay` (taken at y), `clipnorm`, `global_clipnorm`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.ScheduleFreeSGD(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.97, 2.5 ], dtype=float32)

    References:
        Defazio et al., "The Road Less Scheduled", NeurIPS 2024. arXiv:2405.15682.
    """

    slots = (Slot("z", tf.identity),)

    def __init__(
        self, learning_rate: Any = 1.0, momentum: float = 0.9, warmup_steps: int = 0, **base_options: Any
    ):
        super().__init__(learning_rate, ("momentum", momentum), warmup_steps, **base_options)
        self.momentum = self._interpolation

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Equations 3 to 5 of the paper."""
        y, z = self.step(param, slots[0], grad, scalars)
        return y, (z,)

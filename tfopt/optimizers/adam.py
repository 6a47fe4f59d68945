"""Adam: a step size per weight from running first and second moments. arXiv:1412.6980."""

from typing import Any

import keras

from tfopt.optimizers._adam import AdamRule


@keras.saving.register_keras_serializable(package="tfopt")
class Adam(AdamRule):
    """Adam, a step size per weight from running moments: Keras's Adam by fused kernels.

    A good first choice for most networks. To regularize the weights prefer `AdamW`.

        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        alpha = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (sqrt(v) + epsilon)

    Memory: 2 slots, 3 with `amsgrad`. Cost: elementwise, one kernel; three smaller ones on middle sizes.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite; the paper's "epsilon hat".
        amsgrad: Whether to divide by the largest second moment so far (arXiv:1904.09237).
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Adam(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    References:
        Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. arXiv:1412.6980.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **base_options: Any,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, **base_options)

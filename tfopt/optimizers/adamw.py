"""AdamW: Adam with weight decay beside the gradient instead of inside it. arXiv:1711.05101."""

from typing import Any

import keras

from tfopt import _checks
from tfopt.optimizers import _arguments
from tfopt.optimizers._adam import AdamRule


@keras.saving.register_keras_serializable(package="tfopt")
class AdamW(AdamRule):
    """Adam with decoupled weight decay: Keras's AdamW by one fused kernel per variable.

    The default choice for training from scratch and for fine-tuning. Leave norms and biases undecayed
    with `no_decay_on_norm_and_bias`.

        w = w - learning_rate * weight_decay * w
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        alpha = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (sqrt(v) + epsilon)

    Memory: 2 slots, 3 with `amsgrad`. Cost: elementwise, two kernels.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        weight_decay: Float >= 0, per step and unit of learning rate.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite; the paper's "epsilon hat".
        amsgrad: Whether to divide by the largest second moment so far (arXiv:1904.09237).
        **base_options: `clipnorm`, `global_clipnorm`, `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.AdamW(0.1, weight_decay=0.5)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.85, 2.  ], dtype=float32)

    Differs from: the paper's schedule multiplier; as in Keras and PyTorch the decay is multiplied by
    the learning rate and therefore follows its schedule.

    References:
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019. arXiv:1711.05101.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **base_options: Any,
    ):
        if weight_decay is None:
            expected, fix = "a number >= 0", "Use `Adam` for no weight decay."
            raise ValueError(_checks.message("weight_decay", expected, weight_decay, fix))
        decay = _arguments.not_negative("weight_decay", weight_decay)
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=decay, **base_options)

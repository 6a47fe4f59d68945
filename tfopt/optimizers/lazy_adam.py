"""LazyAdam: Adam that touches only the rows of an embedding that a batch uses."""

from typing import Any

import keras

from tfopt.optimizers._adam import AdamRule


@keras.saving.register_keras_serializable(package="tfopt")
class LazyAdam(AdamRule):
    """Adam that reads and writes only the rows of an embedding that the batch uses.

    For large embeddings, where Adam spends its time on rows without a gradient. Dense variables get
    plain Adam. Rows that are not in the batch neither move nor lose momentum, so it is not Adam.

        for the rows with a gradient, duplicates summed:
        m = beta_1 * m + (1 - beta_1) * g;  v = beta_2 * v + (1 - beta_2) * g**2
        w = w - alpha * m / (sqrt(v) + epsilon);  alpha as in Adam

    Memory: 2 slots. Cost: that of the touched rows; weight decay and `use_ema` cost all rows.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.LazyAdam(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    References:
        Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980; the
        row form is that of TensorFlow Addons and of PyTorch's SparseAdam.
    """

    updates_rows = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **base_options: Any,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad=False, **base_options)

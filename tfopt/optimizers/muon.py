"""Muon: momentum whose matrices are orthogonalised by Newton-Schulz steps. Jordan et al., 2024."""

import math
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Muon(RuleOptimizer):
    """Momentum for kernels, replaced by the nearest matrix with equal singular values; AdamW for the rest.

    Often the fastest per step for hidden layers of transformers and for convolutions, at AdamW's
    learning rate and weight decay. Embeddings, norms and biases get AdamW. Give it the output layer, too:
    `ParameterGroups(AdamW(...), [Group(hidden_layers, optimizer=Muon(...))])`.

    The layer of a kernel says which of its axes are inputs and outputs. Experts of a mixture, gates of a
    recurrent layer and groups of a convolution are separate matrices.

        m = momentum * m + g;  u = g + momentum * m                        (kernels, as matrices)
        X = u / norm(u);  5 times: A = X X';  X = a X + (b A + c A A) X    (a, b, c = 3.4445, -4.775, 2.0315)
        w = w - learning_rate * rms * sqrt(max(rows, columns)) * X
        AdamW with the same learning rate for the rest

    Memory: 1 slot for kernels, 2 for the rest. Cost: 15 matrix products per kernel.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        momentum: Float in [0, 1).
        rms: Float > 0. Root mean square of an update at learning rate 1; 0.2 is that of AdamW.
        newton_schulz_steps: Int >= 1.
        beta_1: Float in [0, 1), of AdamW.
        beta_2: Float in [0, 1), of AdamW.
        epsilon: Float > 0. Keeps divisions finite.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Muon(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: Keras's Muon, which leaves convolutions to AdamW, and the original, which iterates
    in bfloat16 and scales by sqrt(max(1, columns / rows)).

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
        kellerjordan.github.io/posts/muon, 2024.
        Liu et al., "Muon is Scalable for LLM Training", 2025. arXiv:2502.16982 (the scale of the
        update).
    """

    matrix_products = True
    uses_geometry = True
    slots = (Slot("momentum"), Slot("velocity", shape=lambda axes: () if axes.is_kernel else axes.shape))

    def __init__(
        self,
        learning_rate: Any = 0.001,
        momentum: float = 0.95,
        rms: float = 0.2,
        newton_schulz_steps: int = 5,
        beta_1: float = 0.9,
        beta_2: float = 0.95,
        epsilon: float = 1e-7,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.momentum = _arguments.fraction("momentum", momentum)
        self.rms = _arguments.positive("rms", rms)
        name = "newton_schulz_steps"
        self.newton_schulz_steps = _checks.check_integer(name, newton_schulz_steps, minimum=1)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.positive("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The rate, and that of AdamW with its bias corrections."""
        corrections = tf.sqrt(bias_correction(self.beta_2, step)) / bias_correction(self.beta_1, step)
        return {"learning_rate": learning_rate, "alpha": learning_rate * corrections}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Orthogonalised momentum for kernels, AdamW for the rest."""
        m, v = slots
        geometry = scalars["geometry"]
        if not geometry.is_kernel:
            m = mix(m, grad, self.beta_1)
            v = mix(v, tf.square(grad), self.beta_2)
            return param - scalars["alpha"] * m / (tf.sqrt(v) + self.epsilon), (m, v)
        m = self.momentum * m + grad
        update = geometry.from_matrices(self._orthogonal(geometry.to_matrices(grad + self.momentum * m)))
        scale = self.rms * math.sqrt(max(geometry.rows, geometry.columns))
        return param - scalars["learning_rate"] * scale * update, (m, v)

    def _orthogonal(self, x: tf.Tensor) -> tf.Tensor:
        """Newton-Schulz iteration of the quintic with Jordan's coefficients, on the wide orientation."""
        tall = x.shape[1] > x.shape[2]
        x = tf.linalg.matrix_transpose(x) if tall else x
        x = x / (tf.norm(x, axis=(1, 2), keepdims=True) + self.epsilon)
        for _ in range(self.newton_schulz_steps):
            gram = tf.matmul(x, x, transpose_b=True)
            x = 3.4445 * x + tf.matmul(-4.775 * gram + 2.0315 * tf.matmul(gram, gram), x)
        return tf.linalg.matrix_transpose(x) if tall else x

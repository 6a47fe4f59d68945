"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner. arXiv:2409.11321."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._eigenbasis import Side, rotate, rotate_back
from tfopt.optimizers._geometry import Geometry
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class SOAP(RuleOptimizer):
    """Adam run in the slowly refreshed eigenbasis of the gradients' row and column covariances.

    Fewer steps than AdamW at similar rates, for kernels of moderate size and large batches. The first
    call only measures. Variables with fewer than 2 axes get Adam.

        L = beta * L + (1 - beta) * G G';  R = beta * R + (1 - beta) * G' G      (beta = beta_2)
        P = QL' G QR;  m = beta_1 * m + (1 - beta_1) * G;  v = beta_2 * v + (1 - beta_2) * P**2
        w = w - alpha * QL ((QL' m QR) / (sqrt(v) + epsilon)) QR';  then decay as in AdamW
        every `refresh_period` steps: QL, QR = qr(L QL), qr(R QR), sorted by eigenvalue

    Memory: 2 slots of the kernel's size and 2 of rows x rows and 2 of columns x columns. Cost: 8
    matrix products per kernel, and 2 QR decompositions per refresh.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment and of the covariances that stays.
        epsilon: Float >= 0. Keeps the division finite.
        weight_decay: Float >= 0 or None.
        refresh_period: Int >= 1, in steps.
        max_size: Int >= 1. A side of a kernel larger than this keeps its own basis.
        **base_options: `clipnorm`, `global_clipnorm`, `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.SOAP(0.1, weight_decay=None)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: the authors' code, which gives every axis of a convolution its own basis, decays
    after the step, and does not refresh at the same count. Kernels are matrices here, with all input
    axes as rows.

    References:
        Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025.
        arXiv:2409.11321.
    """

    matrix_products = True
    uses_geometry = True

    def __init__(
        self,
        learning_rate: Any = 0.003,
        beta_1: float = 0.95,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        weight_decay: float | None = 0.01,
        refresh_period: int = 10,
        max_size: int = 10_000,
        **base_options: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.refresh_period = _checks.check_integer("refresh_period", refresh_period, minimum=1)
        self.max_size = _checks.check_integer("max_size", max_size, minimum=1)

    @property
    def slots(self) -> Sequence[Slot]:
        """Moments, covariances and eigenbases; scalars stand for those a variable does not have."""

        def side(is_row: bool) -> Callable[[Geometry], tuple[int, ...]]:
            def shape_of(geometry: Geometry) -> tuple[int, ...]:
                size = geometry.rows if is_row else geometry.columns
                if geometry.is_vector or size > self.max_size:
                    return ()
                return (size, size) if geometry.count == 1 else (geometry.count, size, size)

            return shape_of

        names = ("row_covariance", "row_basis", "column_covariance", "column_basis")
        sides = [Slot(name, shape=side(name.startswith("row"))) for name in names]
        return (Slot("momentum"), Slot("velocity"), *sides)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Adam's rate; the first step, which makes no update; and whether the bases are due."""
        after_first = tf.maximum(step - 1, 1)
        corrections = (bias_correction(beta, after_first) for beta in (self.beta_1, self.beta_2))
        correction_1, correction_2 = corrections
        return {
            "alpha": learning_rate * tf.sqrt(correction_2) / correction_1,
            "first": step < 2,
            "due": tf.logical_and(step > 1, tf.equal(tf.math.floormod(step - 1, self.refresh_period), 0)),
        }

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 3 of the paper; the preconditioner changes after the step, as there."""
        m, v, *sides = slots
        geometry = scalars["geometry"]
        g, old_m, old_v = (geometry.to_matrices(x) for x in (grad, m, v))
        rows, columns = (Side.of(*sides[at : at + 2], count=geometry.count) for at in (0, 2))
        new_m = mix(old_m, g, self.beta_1)
        new_v = mix(old_v, tf.square(rotate(g, rows, columns)), self.beta_2)
        ratio = rotate(new_m, rows, columns) / (tf.sqrt(new_v) + self.epsilon)
        step = geometry.from_matrices(scalars["alpha"] * rotate_back(ratio, rows, columns))
        first = scalars["first"]
        new_m, new_v = tf.where(first, old_m, new_m), tf.where(first, old_v, new_v)
        rows, order = rows.updated(tf.matmul(g, g, transpose_b=True), self.beta_2, scalars)
        new_v = new_v if order is None else tf.gather(new_v, order, axis=1, batch_dims=1)
        columns, order = columns.updated(tf.matmul(g, g, transpose_a=True), self.beta_2, scalars)
        new_v = new_v if order is None else tf.gather(new_v, order, axis=2, batch_dims=1)
        bases = [tf.reshape(new, old.shape) for new, old in zip((*rows, *columns), sides)]
        moments = (geometry.from_matrices(new_m), geometry.from_matrices(new_v))
        return tf.where(first, param, param - step), (*moments, *bases)

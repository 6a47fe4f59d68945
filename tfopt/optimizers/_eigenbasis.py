"""One side of SOAP's preconditioner: a covariance and its slowly refreshed eigenbasis."""

from typing import Any, NamedTuple

import tensorflow as tf

from tfopt.optimizers._arithmetic import mix


class Side(NamedTuple):
    """Covariance and eigenbasis of the rows or columns; scalars where this side keeps its own basis."""

    covariance: tf.Tensor
    basis: tf.Tensor

    def updated(self, gram: tf.Tensor, beta: float, scalars: dict[str, tf.Tensor]) -> tuple["Side", Any]:
        """The side after one gradient, and the new order of the basis vectors (None without a basis)."""
        if self.covariance.shape.rank == 0:
            return self, None
        # A gradient that is not finite, or too large to be squared, says nothing of directions, and no
        # decomposition takes it.
        usable = tf.reduce_all(tf.math.is_finite(gram))
        covariance = mix(self.covariance, tf.where(usable, gram, self.covariance), beta)
        size = covariance.shape[0]

        def first() -> tuple[tf.Tensor, tf.Tensor]:
            _, vectors = tf.linalg.eigh(covariance + 1e-30 * tf.eye(size, dtype=covariance.dtype))
            return tf.reverse(vectors, [1]), tf.range(size)

        def refreshed() -> tuple[tf.Tensor, tf.Tensor]:
            values = tf.reduce_sum(self.basis * tf.matmul(covariance, self.basis), axis=0)
            order = tf.argsort(values, direction="DESCENDING", stable=True)
            basis, _ = tf.linalg.qr(tf.matmul(covariance, tf.gather(self.basis, order, axis=1)))
            return basis, order

        def kept() -> tuple[tf.Tensor, tf.Tensor]:
            return self.basis, tf.range(size)

        basis, order = tf.cond(scalars["first"], first, lambda: tf.cond(scalars["due"], refreshed, kept))
        return Side(covariance, basis), order


def rotate(x: tf.Tensor, rows: Side, columns: Side) -> tf.Tensor:
    """A matrix in the eigenbases."""
    x = tf.matmul(rows.basis, x, transpose_a=True) if rows.basis.shape.rank else x
    return tf.matmul(x, columns.basis) if columns.basis.shape.rank else x


def rotate_back(x: tf.Tensor, rows: Side, columns: Side) -> tf.Tensor:
    """The reverse of `rotate`."""
    x = tf.matmul(rows.basis, x) if rows.basis.shape.rank else x
    return tf.matmul(x, columns.basis, transpose_b=True) if columns.basis.shape.rank else x

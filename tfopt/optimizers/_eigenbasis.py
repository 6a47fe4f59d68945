"""One side of SOAP's preconditioner: a covariance and its slowly refreshed eigenbasis."""

from typing import Any, NamedTuple

import tensorflow as tf

from tfopt.optimizers._arithmetic import mix


class Side(NamedTuple):
    """Covariances and eigenbases of the rows or columns of several matrices, (count, size, size).

    Scalars where this side keeps its own basis.
    """

    covariance: tf.Tensor
    basis: tf.Tensor

    @classmethod
    def of(cls, covariance: tf.Tensor, basis: tf.Tensor, count: int) -> "Side":
        """From slots, which leave the axis out where there is one matrix."""
        if basis.shape.rank == 0:
            return cls(covariance, basis)
        shape = (count, *basis.shape[-2:])
        return cls(tf.reshape(covariance, shape), tf.reshape(basis, shape))

    def updated(self, gram: tf.Tensor, beta: float, scalars: dict[str, tf.Tensor]) -> tuple["Side", Any]:
        """The side after one gradient, and the new order of the basis vectors (None without a basis)."""
        if self.covariance.shape.rank == 0:
            return self, None
        # A gradient that is not finite, or too large to be squared, says nothing of directions, and no
        # decomposition takes it.
        usable = tf.reduce_all(tf.math.is_finite(gram), (1, 2), keepdims=True)
        covariance = mix(self.covariance, tf.where(usable, gram, self.covariance), beta)
        count, size = covariance.shape[:2]
        same_order = tf.broadcast_to(tf.range(size), (count, size))

        def first() -> tuple[tf.Tensor, tf.Tensor]:
            _, vectors = tf.linalg.eigh(covariance + 1e-30 * tf.eye(size, dtype=covariance.dtype))
            return tf.reverse(vectors, [2]), same_order

        def refreshed() -> tuple[tf.Tensor, tf.Tensor]:
            values = tf.reduce_sum(self.basis * tf.matmul(covariance, self.basis), axis=1)
            order = tf.argsort(values, direction="DESCENDING", stable=True)
            sorted_basis = tf.gather(self.basis, order, axis=2, batch_dims=1)
            basis, _ = tf.linalg.qr(tf.matmul(covariance, sorted_basis))
            return basis, order

        def kept() -> tuple[tf.Tensor, tf.Tensor]:
            return self.basis, same_order

        basis, order = tf.cond(scalars["first"], first, lambda: tf.cond(scalars["due"], refreshed, kept))
        return Side(covariance, basis), order


def rotate(x: tf.Tensor, rows: Side, columns: Side) -> tf.Tensor:
    """Matrices in the eigenbases."""
    x = tf.matmul(rows.basis, x, transpose_a=True) if rows.basis.shape.rank else x
    return tf.matmul(x, columns.basis) if columns.basis.shape.rank else x


def rotate_back(x: tf.Tensor, rows: Side, columns: Side) -> tf.Tensor:
    """The reverse of `rotate`."""
    x = tf.matmul(rows.basis, x) if rows.basis.shape.rank else x
    return tf.matmul(x, columns.basis, transpose_b=True) if columns.basis.shape.rank else x

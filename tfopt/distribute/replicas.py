"""Two of Keras's classes under several replicas: random seeds and the overflow check of float16 training.

Both are wrong in Keras 3.15.1 whatever the number of workers. `mend` replaces one method of each; outside a
replica of a multi-replica strategy the replaced methods do what Keras's do.

- `SeedGenerator.next` gives every replica the same seed, so that all of them drop the same units.
- `LossScaleOptimizer.check_finite` looks at one replica's gradients, before they are reduced: an overflow on
  another replica makes the weights NaN, and under several workers the branches differ and the job hangs.
"""

from typing import Any

import keras
import tensorflow as tf

_ORIGINAL_NEXT = keras.random.SeedGenerator.next
_ORIGINAL_CHECK = keras.optimizers.LossScaleOptimizer.check_finite


def mend() -> None:
    """Makes seeds differ between replicas, and replicas agree on whether gradients are finite."""
    keras.random.SeedGenerator.next = _next
    keras.optimizers.LossScaleOptimizer.check_finite = _check_finite


def restore() -> None:
    """Puts Keras's own methods back."""
    keras.random.SeedGenerator.next = _ORIGINAL_NEXT
    keras.optimizers.LossScaleOptimizer.check_finite = _ORIGINAL_CHECK


def _several_replicas() -> tf.distribute.ReplicaContext | None:
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def _next(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
    seed = _ORIGINAL_NEXT(self, ordered)
    context = _several_replicas()
    if context is None:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)


def _check_finite(self: keras.optimizers.LossScaleOptimizer, grads: list[Any]) -> tf.Tensor:
    finite = _ORIGINAL_CHECK(self, grads)
    context = _several_replicas()
    if context is None:
        return finite
    overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~finite, tf.float32))
    return tf.equal(overflows, 0.0)

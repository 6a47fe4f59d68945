"""Keeps updates out of a model whose gradients are NaN, infinite or too large, on all replicas alike."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfopt import _keras_internals
from tfopt._optimizers_in_use import optimizers_in_use


class GradientGuard:
    """Wraps the training step and the optimizers of a model, and counts what it left out.

    A batch with a bad gradient on any replica changes nothing but the seeds of random layers: no weights, no
    state of an optimizer, no moving statistics, no metrics. The branch is taken outside of the replicas, in
    front of the collectives of the optimizer, since a replica that branched alone would wait for ever.

    Args:
        model: A built model with built optimizers.
        limit: Largest absolute value of a gradient.
    """

    def __init__(self, model: keras.Model, limit: float) -> None:
        self._model, self._limit = model, limit
        options = {"trainable": False, "aggregation": "only_first_replica", "synchronization": "on_read"}
        names = ("total", "in_a_row", "bad", "first", "bad_loss")
        with model.distribute_strategy.scope():
            self.variables = [keras.Variable(0, dtype="int32", name=name, **options) for name in names]
        self._total, self._in_a_row, self._bad, self._first, self._bad_loss = self.variables
        self._places: list[str] = []  # what `first` counts

    def attach(self) -> Callable[[], None]:
        """Puts the guard into the training function; returns what takes it out."""
        optimizers = list(optimizers_in_use(self._model).values())
        for optimizer in optimizers:
            optimizer.apply = functools.partial(self._apply, optimizer.apply, optimizer)
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer.scale_loss = functools.partial(self._scale_loss, optimizer.scale_loss)
        self._model.train_step = functools.partial(self._step, self._model.train_step)
        self._model.make_train_function(force=True)
        return functools.partial(_detach, self._model, optimizers)

    def read(self) -> tuple[int, int, str]:
        """Batches left out, those in a row until now, and what was bad in the last of them."""
        total, in_a_row, _, first, _ = (int(keras.ops.convert_to_numpy(v)) for v in self.variables)
        return total, in_a_row, self._places[first] if first < len(self._places) else ""

    def _step(self, step: Callable[[Any], Any], data: Any) -> Any:
        """A training step of one replica."""
        state = [*_statistics(self._model), *self._model.metrics_variables]
        before = [tf.identity(tf.convert_to_tensor(variable)) for variable in state]
        self._bad.assign(0)
        self._bad_loss.assign(0)
        outputs = step(data)
        bad = tf.convert_to_tensor(self._bad)
        for variable, old in zip(state, before):
            variable.assign(tf.where(bad > 0, old, tf.convert_to_tensor(variable)))
        self._total.assign(self._total + bad)
        self._in_a_row.assign((self._in_a_row + 1) * bad)
        return outputs

    def _apply(self, apply: Callable, optimizer: Any, grads: Any, trainable_variables: Any = None) -> None:
        """`optimizer.apply` of one replica."""
        grads = list(grads)
        known = trainable_variables or _keras_internals.trained_by(optimizer)
        places = [index for index, grad in enumerate(grads) if grad is not None]
        if not places:
            return apply(grads, trainable_variables)
        present = [grads[place] for place in places]
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        scale = tf.convert_to_tensor(optimizer.dynamic_scale) if scaled else None
        bad = tf.stack(
            [*(self._is_bad(grad, scale) for grad in present), tf.convert_to_tensor(self._bad_loss)]
        )
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            bad = context.all_reduce(tf.distribute.ReduceOp.SUM, bad)
        self._note(bad, [known[place] for place in places])

        def update(*present: Any) -> None:
            values = dict(zip(places, present))
            apply([values.get(index) for index in range(len(grads))], trainable_variables)

        def across_replicas(strategy: tf.distribute.Strategy, bad: Any, *present: Any) -> None:
            def every() -> int:
                strategy.extended.call_for_each_replica(update, args=present)
                return 0

            count = tf.reduce_sum(strategy.experimental_local_results(bad)[0])
            tf.cond(count > 0, lambda: 0, every)

        context.merge_call(across_replicas, args=(bad, *present))
        return None

    def _scale_loss(self, scale_loss: Callable, loss: Any) -> Any:
        """`scale_loss` of a `LossScaleOptimizer`, the one place where its loss can be seen."""
        bad = 1 - tf.cast(tf.reduce_all(tf.math.is_finite(loss)), tf.int32)
        self._bad_loss.assign(tf.maximum(tf.convert_to_tensor(self._bad_loss), bad))
        return scale_loss(loss)

    def _is_bad(self, grad: Any, scale: tf.Tensor | None) -> tf.Tensor:
        """1 if a gradient is bad. With a scale above 1 an infinite one is not: a smaller scale may help."""
        values = tf.convert_to_tensor(grad.values if isinstance(grad, tf.IndexedSlices) else grad)
        values = values if values.dtype == tf.float64 else tf.cast(values, tf.float32)
        if scale is None:
            good = tf.reduce_all(tf.abs(values) <= tf.cast(self._limit, values.dtype))  # NaN is not
            return 1 - tf.cast(good, tf.int32)
        small = tf.reduce_all(tf.abs(values) <= tf.cast(self._limit * scale, values.dtype))
        overflows = ~tf.reduce_all(tf.math.is_finite(values)) & (scale > 1)
        return 1 - tf.cast(small | overflows, tf.int32)

    def _note(self, bad: tf.Tensor, variables: list[Any]) -> None:
        """Marks the batch, and keeps which gradient was bad first."""
        offset = len(self._places)
        paths = [getattr(variable, "path", variable.name) for variable in variables]
        self._places += [*(f"gradient of `{path}`" for path in paths), "loss"]
        any_bad = tf.minimum(tf.reduce_sum(bad), 1)
        place = offset + tf.argmax(bad, output_type=tf.int32)
        self._first.assign(tf.where(any_bad > 0, place, tf.convert_to_tensor(self._first)))
        self._bad.assign(tf.maximum(tf.convert_to_tensor(self._bad), any_bad))


def _detach(model: keras.Model, optimizers: list[Any]) -> None:
    for optimizer in optimizers:
        vars(optimizer).pop("apply", None)
        vars(optimizer).pop("scale_loss", None)
    vars(model).pop("train_step", None)
    model.train_function = None  # the next `fit` makes one without the guard


def _statistics(model: keras.Model) -> list[keras.Variable]:
    """What layers change in training by themselves: moving statistics, not the seeds, nor frozen weights."""
    layers = _keras_internals.every_layer(model)
    frozen = {id(variable) for layer in layers for variable in _keras_internals.own_trainable(layer)}
    return [v for v in model.non_trainable_variables if id(v) not in frozen and "float" in str(v.dtype)]

"""Keras 3's trainer under several replicas: mends of its bugs, and clear refusals of what cannot work.

Checked on Keras 3.15.1; tests fail when a hook changes. Each function is in
`keras.src.backend.tensorflow.trainer`, and is replaced only if a self-test sees the bug:

1. `reduce_per_replica` averages scalar logs along an axis 0 that they do not have, with several workers
   (tensorflow/tensorflow#72388).
2. `_maybe_symbolic_build` reads a batch to learn its shapes. That moves a dataset that counts its epochs on
   by one, so the epochs differ from those of one device; and with several workers it averages the batch by
   a call that `MultiWorkerMirroredStrategy` refuses (keras-team/keras#20585). The shapes are known already.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer  # the module that holds the functions

from tfopt.distribute import statistics

# Keras 3.16 calls it Trainer; the first name can go when 3.16 is the oldest that is supported.
_Trainer = trainer.TensorFlowTrainer if hasattr(trainer, "TensorFlowTrainer") else trainer.Trainer
_ORIGINAL_REDUCE = trainer.reduce_per_replica
_ORIGINAL_BUILD = _Trainer._maybe_symbolic_build
_ORIGINAL_RESULT = _Trainer._get_metrics_result_or_logs


def mend(strategy: tf.distribute.Strategy) -> list[str]:
    """Replaces what fails under `strategy`, and lets models be checked before they train.

    Returns:
        The names of the functions and classes whose bug the self-test has seen.
    """
    bugs = []
    if not _works(lambda: _reduce_scalars(strategy)):
        trainer.reduce_per_replica = _reduce_per_replica
        bugs.append("reduce_per_replica")
    if not _works(lambda: _build_without_reading(strategy)):
        _Trainer._maybe_symbolic_build = _checked(_build_from_specs)
        bugs.append("_maybe_symbolic_build")
    elif _Trainer._maybe_symbolic_build is _ORIGINAL_BUILD:
        _Trainer._maybe_symbolic_build = _checked(_ORIGINAL_BUILD)
    if statistics.diverge(strategy):
        _Trainer._get_metrics_result_or_logs = _average_and_get_result
        bugs.append("BatchNormalization")
    return bugs


def restore() -> None:
    """Puts Keras's own functions back."""
    trainer.reduce_per_replica = _ORIGINAL_REDUCE
    _Trainer._maybe_symbolic_build = _ORIGINAL_BUILD
    _Trainer._get_metrics_result_or_logs = _ORIGINAL_RESULT


def _several_workers(strategy: tf.distribute.Strategy | None) -> bool:
    return strategy is not None and trainer._collective_all_reduce_multi_worker(strategy)


def _reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
    """As Keras's, but scalars are averaged over the replicas and not along an axis."""
    if not _several_workers(strategy) or reduction == "concat":
        return _ORIGINAL_REDUCE(values, strategy, reduction)
    reduction = "MEAN" if reduction == "auto" else reduction.upper()
    return keras.tree.map_structure(lambda value: strategy.reduce(reduction, value, axis=None), values)


def _build_from_specs(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
    """As Keras's, but shapes come from the dataset's specification instead of a batch."""
    if self._distribute_strategy is None:
        return
    if iterator is not None:
        data_batch = keras.tree.map_structure(_one_replica, iterator._distributed_dataset.element_spec)
    with self.distribute_strategy.scope():
        self._symbolic_build(data_batch=data_batch)


def _average_and_get_result(self: Any, logs: Any) -> Any:
    """As Keras's, at the end of an epoch: from here on all replicas have the same statistics."""
    statistics.average(self)
    return _ORIGINAL_RESULT(self, logs)


def _one_replica(spec: Any) -> Any:
    """The tensor specification of one replica; None for an input that is None."""
    spec = getattr(spec, "_value_specs", (spec,))[0]  # those of all local replicas, if there are several
    return spec if isinstance(spec, tf.TensorSpec | tf.SparseTensorSpec | tf.RaggedTensorSpec) else None


def _checked(build: Callable) -> Callable:
    """`fit` and `evaluate` call this first, so it is the place to say what would fail obscurely later."""

    def _maybe_symbolic_build(self: Any, iterator: Iterator | None = None, data_batch: Any = None) -> None:
        _check_scope(self)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            _check_supported(self)
        build(self, iterator=iterator, data_batch=data_batch)

    return _maybe_symbolic_build


def _check_scope(model: keras.Model) -> None:
    strategy = model._distribute_strategy or tf.distribute.get_strategy()
    if model._distribute_strategy is None and tf.distribute.has_strategy():
        raise ValueError(_SCOPE.format("model", model.name))
    if isinstance(model.optimizer, keras.optimizers.Optimizer):
        used = model.optimizer._distribution_strategy
        if used is not strategy:
            late = "model" if model._distribute_strategy is None else "optimizer"
            raise ValueError(_SCOPE.format(late, model.name if late == "model" else model.optimizer.name))


_SCOPE = (
    "The {0} `{1}` was made outside of `strategy.scope()`. Build the model and call `compile` (which makes "
    "the optimizer) inside `with strategy.scope():`; `fit` may be called anywhere."
)


def _check_supported(model: keras.Model) -> None:
    """What Keras 3.15 cannot do on several replicas, refused in words."""
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    refused = {
        "steps_per_execution > 1": (model.steps_per_execution > 1, "Use steps_per_execution=1."),
        "jit_compile=True on CPUs": (
            bool(model.jit_compile) and not tf.config.get_visible_devices("GPU"),
            "Use jit_compile=False.",
        ),
        "gradient_accumulation_steps": (
            getattr(optimizer, "gradient_accumulation_steps", None),
            "Use tfopt.optimizers.GradientAccumulation.",
        ),
        "ema_overwrite_frequency": (
            getattr(optimizer, "ema_overwrite_frequency", None),
            "Use tfopt.callbacks.WeightAveraging.",
        ),
    }
    for name, (used, fix) in refused.items():
        if used:
            raise ValueError(f"Keras does not support `{name}` on several replicas. {fix}")


class _Probe:
    """Stands in for a model in the self-test of `_maybe_symbolic_build`."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._distribute_strategy = self.distribute_strategy = strategy

    def _symbolic_build(self, data_batch: Any) -> None:
        """Would build the model."""


class _Unread:
    """Stands in for the data; iterating over it is the bug."""

    def __iter__(self) -> Iterator:
        raise ValueError("a batch was read")


def _build_without_reading(strategy: tf.distribute.Strategy) -> None:
    _ORIGINAL_BUILD(_Probe(strategy), iterator=_Unread())


def _reduce_scalars(strategy: tf.distribute.Strategy) -> None:
    ones = strategy.distribute_datasets_from_function(lambda _: tf.data.Dataset.from_tensors(1.0).repeat())
    _ORIGINAL_REDUCE({"loss": next(iter(ones))}, strategy, "auto")


def _works(call: Callable[[], None]) -> bool:
    try:
        call()
    except ValueError:  # both bugs raise before anything is sent, so no worker waits for another
        return False
    return True

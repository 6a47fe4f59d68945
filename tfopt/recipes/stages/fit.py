"""One call of Keras's `fit`, as all stages make it: schedule, validation, resumption, the best epoch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, final

import keras

from tfopt import _batch_norm, callbacks, optimizers
from tfopt._keras_internals import leaf_layers
from tfopt.recipes.best import KeepBest
from tfopt.recipes.progress import BatchProgress
from tfopt.recipes.session import Session
from tfopt.recipes.stages.optimizer import optimizer_of
from tfopt.recipes.stages.stage import History

QUICK_MOMENTUM = 0.8  # of batch-norm statistics while weights change fast


@final
@dataclasses.dataclass(frozen=True)
class Training:
    """How a stage trains.

    Args:
        name: Of the stage.
        epochs: Number of epochs, >= 1.
        learning_rate: The peak.
        groups: Gives those for `ParameterGroups`, of the model that trains, which may be a copy.
        callbacks: What else happens during `fit`.
        keep_best: Keep the best epoch by validation, or the start if that was better; else the last one.
        precision: In a lower one than float32 a copy trains, and the model gets its weights.
        growth: As `batch_growth`.
        patience: As in `FinetuneConfig`, with `keep_best`.
    """

    name: str
    epochs: int
    learning_rate: float
    groups: Callable[[keras.Model], Sequence[optimizers.Group]]
    callbacks: Sequence[keras.callbacks.Callback] = ()
    keep_best: bool = True
    precision: str = "float32"
    growth: int = 1
    patience: int | None = None


def fit(model: keras.Model, session: Session, training: Training) -> History:
    """Compiles and trains with validation after every epoch."""
    copy = session.training_copy(model, None if training.precision == "float32" else training.precision)
    if copy is model:
        return _fit(model, session, training)
    try:
        return _fit(copy, session, training)
    finally:
        model.set_weights(copy.get_weights())


def _fit(model: keras.Model, session: Session, training: Training) -> History:
    """`fit` of a model that lives where it trains."""
    train, validation = session.training(), session.plain("validation")
    batches = training.epochs * len(train)
    with session.strategy.scope():
        options = training.learning_rate, batches, training.groups(model), training.growth
        optimizer, ramping = optimizer_of(session.config, *options)
        compiled(model, session, optimizer)
    best = []
    if training.keep_best:
        start = model.evaluate(validation, verbose=0, return_dict=True)
        best = [KeepBest(session.task.quality, start, training.patience)]
    with session.progress.bar(training.name, batches) as bar:
        folder = session.checkpoints(training.name) if session.checkpoints else None
        resume = [] if folder is None else [callbacks.Resume(folder, train)]
        watchers = [
            *resume,
            *training.callbacks,
            *best,
            callbacks.TrainingMonitor(),
            *ramping,
            *_curves(session, training.name),
            *session.callbacks,
            BatchProgress(bar, session.progress_text),
        ]
        try:
            history = model.fit(
                train,
                validation_data=validation,
                epochs=training.epochs,
                shuffle=False,  # the pipeline shuffles
                verbose=0,
                callbacks=watchers,
            ).history
        except KeyboardInterrupt:
            for keep in best:
                keep.restore()
            raise
    return history


def _curves(session: Session, name: str) -> list[keras.callbacks.Callback]:
    """What writes the curves of a stage for TensorBoard, if they are asked for."""
    return [keras.callbacks.TensorBoard(str(session.logs(name)), write_graph=False)] if session.logs else []


def compiled(model: keras.Model, session: Session, optimizer: Any) -> keras.Model:
    """The model itself, compiled as the options and the task say; to be called in the strategy's scope."""
    config = session.config
    model.compile(
        optimizer,
        session.task.loss(config.label_smoothing),
        metrics=session.task.metrics(),
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution,
    )
    return model


def fit_with_fresh_statistics(model: keras.Model, session: Session, training: Training) -> History:
    """Like `fit`, for fast-changing weights: lower BatchNorm momentum, statistics re-estimated at the end.

    With the usual momentum, validation would see statistics of weights long gone.
    """
    norms = [layer for layer in leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = QUICK_MOMENTUM
    try:
        history = fit(model, session, training)
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
    _batch_norm.reestimate(model, session.sample(augmented=True))
    return history

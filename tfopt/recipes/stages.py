"""Stages 2 to 4: all layers, pruning, and quantization-aware training."""

from collections.abc import Sequence
from typing import Any

import keras

from tfopt import _batch_norm, callbacks, compress, optimizers, schedules
from tfopt._keras_internals import leaf_layers
from tfopt.models.precision import in_precision
from tfopt.recipes.best import KeepBest
from tfopt.recipes.head import History, refit_head
from tfopt.recipes.progress import BatchProgress
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.recipes.setting import Setting

LOWEST_MULTIPLIER = 0.06  # of the rate, at the first layer of a pretrained model
PRUNING_RATE = 0.5  # of the second stage's learning rate
PRETRAINED_PRUNING_RATE = 5.0  # likewise, of a model that was fine-tuned gently: what is left learns again
QUICK_MOMENTUM = 0.8  # of batch-norm statistics while weights change fast
QUANTIZATION_RATE = 0.05  # likewise: enough to settle the ranges, too little to forget
SMALL_BATCH = 16  # images, at most, for what learns from a teacher: more updates of the same images


def train_all(model: keras.Model, setting: Setting) -> History:
    """Fine-tunes a pretrained model from the top down, or trains a random one; keeps the best epoch.

    Low layers keep their weights (`unfreeze`), those above learn the faster the higher they are. The
    batch-norm statistics and scales of a pretrained model stay as they are: a small data set knows them
    worse. What is evaluated and kept is an average of the weights over the last epoch. The classifier of a
    pretrained model is fitted once more in the end, to the features as they have become, of all images but
    those of the test split.
    """
    config = setting.config
    if config.pretrained:
        freeze_below(model, config.unfreeze)
    lowest = LOWEST_MULTIPLIER if config.pretrained else 1.0
    groups = [
        *optimizers.discriminative(model, lowest),
        *optimizers.no_decay_on_norm_and_bias(model),
    ]
    updates = len(setting.training())
    averaging = callbacks.WeightAveraging(
        decay=max(0.0, 1 - 1 / updates),
        batch_norm_data=None if config.pretrained else setting.sample(augmented=True),
    )
    options = config.epochs, config.learning_rate, groups, [averaging]
    history = fit(
        model, setting, "fine-tuning", *options, precision=config.precision, growth=config.batch_growth
    )
    if config.pretrained:
        refit_head(model, setting)
    return history


def prune(model: keras.Model, setting: Setting) -> History:
    """Brings every large kernel to the wanted sparsity while all layers train; keeps the last epoch."""
    config = setting.config
    unfreeze(model)  # a pruned kernel that is frozen could not recover
    pruning = compress.Pruning(config.sparsity or 0.0)
    rate = (PRETRAINED_PRUNING_RATE if config.pretrained else PRUNING_RATE) * config.learning_rate
    groups = optimizers.no_decay_on_norm_and_bias(model)
    return fit_anew(model, setting, "pruning", rate, groups, [pruning], precision=config.precision)


def quantize(teacher: keras.Model, model: keras.Model, setting: Setting) -> History:
    """Trains a model of `quantize_aware`, whose ranges are unknown before; keeps the last epoch.

    It learns the probabilities of the model it comes from and no labels: those would train it further, away
    from what the earlier stages have chosen by validation.
    """
    config = setting.config
    rate = QUANTIZATION_RATE * config.learning_rate
    groups = optimizers.no_decay_on_norm_and_bias(model)
    extra: list[keras.callbacks.Callback] = [compress.Distillation(teacher, weight=1.0)]
    if config.sparsity:
        extra.append(compress.Pruning(config.sparsity))
    small, epochs = in_small_batches(setting), config.compress_epochs
    return fit(model, small, "quantization", epochs, rate, groups, extra, keep_best=False)


def in_small_batches(setting: Setting) -> Setting:
    """The same with batches of about `SMALL_BATCH` or less, which the replicas can share."""
    replicas = setting.strategy.num_replicas_in_sync
    small = replicas * max(1, SMALL_BATCH // replicas)
    return setting.changed(batch_size=min(small, setting.config.batch_size))


def fit_anew(
    model: keras.Model,
    setting: Setting,
    title: str,
    learning_rate: float,
    groups: Sequence[optimizers.Group],
    extra: Sequence[keras.callbacks.Callback],
    precision: str = "float32",
) -> History:
    """`fit` where weights change so fast that the usual mean of batch-norm statistics would be of old ones.

    Validation sees a mean over the last updates; in the end they are measured. Keeps the last epoch.
    """
    norms = [layer for layer in leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = QUICK_MOMENTUM
    options = setting.config.compress_epochs, learning_rate, groups, extra
    try:
        history = fit(model, setting, title, *options, keep_best=False, precision=precision)
    finally:
        for norm, momentum in zip(norms, kept):
            norm.momentum = momentum
    _batch_norm.reestimate(model, setting.sample(augmented=True))
    return history


def fit(
    model: keras.Model,
    setting: Setting,
    title: str,
    epochs: int,
    learning_rate: float,
    groups: Sequence[optimizers.Group],
    extra: Sequence[keras.callbacks.Callback] = (),
    keep_best: bool = True,
    precision: str = "float32",
    growth: int = 1,
) -> History:
    """Compiles with the optimizer and schedule of the options; trains with validation after every epoch.

    In a lower precision a copy trains, and the model gets its weights.
    """
    if precision != "float32":
        with setting.strategy.scope():
            copy = in_precision(model, precision)
        try:
            return fit(copy, setting, title, epochs, learning_rate, groups, extra, keep_best, growth=growth)
        finally:
            model.set_weights(copy.get_weights())
    train, validation = setting.training(), setting.plain("validation")
    batches = epochs * len(train)
    with setting.strategy.scope():
        optimizer, ramping = optimizer_of(setting.config, learning_rate, batches, groups, growth)
        model.compile(
            optimizer,
            keras.losses.CategoricalCrossentropy(label_smoothing=setting.config.label_smoothing),
            metrics=["accuracy"],
            jit_compile=setting.config.jit_compile,
            steps_per_execution=setting.config.steps_per_execution,
        )
    best = None
    if keep_best:
        baseline = model.evaluate(validation, verbose=0, return_dict=True)
        best = KeepBest((baseline["accuracy"], baseline["loss"]))
    with setting.progress.bar(title, batches) as bar:
        resume = [callbacks.Resume(setting.checkpoints(title), train)] if setting.checkpoints else []
        watchers = [
            *resume,
            *extra,
            *([best] if best else []),
            callbacks.TrainingMonitor(),
            *ramping,
            BatchProgress(bar),
        ]
        try:
            history = model.fit(
                train,
                validation_data=validation,
                epochs=epochs,
                shuffle=False,  # the pipeline shuffles
                verbose=0,
                callbacks=watchers,
            ).history
        except KeyboardInterrupt:
            if best is not None:
                best.restore()
            raise
    return history


def optimizer_of(
    config: ResolvedConfig, peak: float, batches: int, groups: Sequence[optimizers.Group], growth: int = 1
) -> tuple[keras.optimizers.Optimizer, list[keras.callbacks.Callback]]:
    """The optimizer that the options name, and the callback that goes with it if its batches grow.

    Args:
        config: Resolved options.
        peak: The largest learning rate.
        batches: So many come, each of `batch_size`.
        groups: For `ParameterGroups`.
        growth: How many batches make the largest one, as `batch_growth`.
    """
    while growth * growth.bit_length() > batches:  # the share of each of so many sizes makes an update
        growth //= 2
    if growth <= 1:
        return optimizers.ParameterGroups(rule_of(config, rate_of(config, peak, batches)), groups), []
    size, images = config.batch_size, batches * config.batch_size
    share = images // growth.bit_length()
    ramp = schedules.GeometricRamp(size, size * growth, images - share)
    rate = rate_of(config, peak, images)
    rule = rule_of(config, rate if isinstance(rate, int | float) else schedules.BySample(rate, ramp))
    accumulation = optimizers.GradientAccumulation(
        optimizers.ParameterGroups(rule, groups), ramp, micro_batch_size=size
    )
    return accumulation, [callbacks.BatchSizeRamp(ramp)]


def rate_of(config: ResolvedConfig, peak: float, updates: int) -> Any:
    """Warm-up to the peak, then the schedule."""
    decays = {
        "cosine": keras.optimizers.schedules.CosineDecay(peak, updates),
        "linear": keras.optimizers.schedules.PolynomialDecay(peak, updates, end_learning_rate=0.0),
        "constant": peak,
    }
    decay = decays[config.schedule]
    return schedules.Warmup(decay, max(1, int(config.warmup * updates))) if config.warmup else decay


def rule_of(config: ResolvedConfig, rate: Any) -> keras.optimizers.Optimizer:
    """The rule of the updates that the options name."""
    if config.optimizer == "sgd":
        return optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    kind = {"adamw": optimizers.AdamW, "lion": optimizers.Lion}[config.optimizer]
    return kind(rate, weight_decay=config.weight_decay)


def freeze_below(model: keras.Model, share: float) -> None:
    """Leaves the top `share` of the layers with weights trainable, without batch normalization."""
    weighted = [layer for layer in model.layers if layer.weights]
    first = len(weighted) - max(1, round(share * len(weighted)))
    for number, layer in enumerate(weighted):
        layer.trainable = number >= first and not isinstance(layer, keras.layers.BatchNormalization)


def unfreeze(model: keras.Model) -> None:
    """Makes every layer trainable."""
    model.trainable = False  # Keras ignores True where the model's own flag is True, whatever its layers' are
    model.trainable = True

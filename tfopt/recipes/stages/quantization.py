"""Training with the rounding of int8, and what all stages with a teacher share."""

from typing import final

import keras

from tfopt import compress, optimizers
from tfopt.recipes.session import Session
from tfopt.recipes.stages.better import keep_better, verdict
from tfopt.recipes.stages.fit import Training, fit
from tfopt.recipes.stages.stage import History, Stage

SMALL_BATCH = 16  # images, at most, for a student: more updates from the same images


@final
class Quantization(Stage):
    """Quantization-aware training of a copy with corrected biases; keeps the last epoch if that is better.

    It learns the answers of the float model and no labels: those would train it further, away from what the
    earlier stages have chosen by validation. If training gains nothing on validation, the copy is left as
    post-training quantization made it.

    Args:
        teacher: The float model.
        preserve: What `quantize_aware` keeps of it: "sparsity", "clusters", "both" or None.
        sparsity: To which the kernels are pruned again meanwhile; None: not at all.
    """

    name = "quantization"
    result = "int8 (Keras)"
    delivers = False
    RATE = 0.05  # of the learning rate: enough to settle the ranges, too little to forget

    def __init__(
        self, teacher: keras.Model, preserve: str | None = None, sparsity: float | None = None
    ) -> None:
        self.teacher, self.preserve, self.sparsity = teacher, preserve, sparsity

    def start(self, model: keras.Model, session: Session) -> keras.Model:
        """Post-training quantization: ranges and biases from a sample of the training images."""
        sample = session.sample()
        with session.home.scope():
            quantized = compress.quantize_aware(model, self.preserve, input_range=(0, 255), data=sample)
        compress.correct_biases(quantized, model, sample)
        return quantized

    def train(self, model: keras.Model, session: Session) -> History:
        """Trains `compress_epochs` epochs in small batches."""
        untrained = model.get_weights()
        teacher = compress.Distillation(self.teacher, weight=1.0, losses=session.task.lessons())
        pruning = [compress.Pruning(self.sparsity)] if self.sparsity else []
        training = Training(
            self.name,
            session.config.compress_epochs,
            self.RATE * session.config.learning_rate,
            optimizers.no_decay_on_norm_and_bias,
            [teacher, *pruning],
            keep_best=False,
        )
        history = fit(model, in_small_batches(session), training)
        compress.correct_biases(model, self.teacher, session.sample())
        results = keep_better(model, untrained, self.teacher, session)
        session.progress.say(verdict(results, session.task, session.validation))
        return {**history, **results}


def imitation(teacher: keras.Model, session: Session) -> compress.Distillation:
    """The answers of the teacher alone, without labels (Beyer et al., arXiv:2106.05237)."""
    return compress.Distillation(teacher, weight=1.0, temperature=2.0, losses=session.task.lessons())


def in_small_batches(session: Session) -> Session:
    """The same with batches of about `SMALL_BATCH` or less, which the replicas can share."""
    size = small_batch(session.config.batch_size, session.strategy.num_replicas_in_sync)
    return session.changed(batch_size=size)


def small_batch(batch_size: int, replicas: int) -> int:
    """The largest multiple of the replicas up to `SMALL_BATCH` (or one image each), at most `batch_size`."""
    return min(replicas * max(1, SMALL_BATCH // replicas), batch_size)

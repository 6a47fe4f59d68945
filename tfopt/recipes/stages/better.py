"""Whether training with quantization was worth it: it helps on most data sets and costs accuracy on some."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfopt import tasks
from tfopt._directions import direction_of_name
from tfopt.recipes.session import Session

# Entries of the stage's record that are no metrics of its epochs.
KEPT, UNTRAINED, TRAINED = "kept_training", "validation_untrained", "validation_trained"
RESULTS = (KEPT, UNTRAINED, TRAINED)


def keep_better(
    model: keras.Model, untrained: Sequence[np.ndarray], reference: keras.Model, session: Session
) -> dict[str, list[float]]:
    """Leaves in the model what is better on validation: its weights, or those from before its training.

    The first measure of the task decides; where it is equal, the smaller distance to the outputs of the float
    model. Training has to be better: where both are equal, it is undone.

    Args:
        model: The quantized model, trained.
        untrained: Its weights from before, which are those of post-training quantization.
        reference: The float model.
        session: Gives the validation split and the task.

    Returns:
        `RESULTS`, for the record of the stage.
    """
    trained = model.get_weights()
    after, after_error = _judged(model, reference, session)
    model.set_weights(untrained)
    before, before_error = _judged(model, reference, session)
    measure = next(iter(before))
    sign = -1.0 if direction_of_name(measure) == "min" else 1.0
    values = [float(measures[measure]) for measures in (before, after)]
    is_better = (sign * values[1], -after_error) > (sign * values[0], -before_error)
    if is_better:
        model.set_weights(trained)
    return {KEPT: [float(is_better)], UNTRAINED: [values[0]], TRAINED: [values[1]]}


def verdict(history: Mapping[str, Sequence[float]], task: tasks.Task, split: str = "validation") -> str:
    """What `keep_better` decided, in a sentence; "" for the record of another stage."""
    if KEPT not in history:
        return ""
    is_share = task.decisive.endswith("accuracy")
    before, after = (
        f"{history[key][0]:.1%}" if is_share else f"{history[key][0]:.4g}" for key in (UNTRAINED, TRAINED)
    )
    name = task.decisive.replace("_", " ")
    if history[KEPT][0]:
        return f"int8: training with quantization was kept ({name} on {split} {after}, {before} without it)."
    return (
        "int8: post-training quantization was kept, since training with quantization was no better "
        f"({name} on {split} {after}, {before} without it)."
    )


def _judged(model: keras.Model, reference: keras.Model, session: Session) -> tuple[dict[str, Any], float]:
    """Measures on the validation split, and the mean squared distance to the outputs of the reference."""
    tally, distance, numbers = session.task.tally(), 0.0, 0
    for images, labels, *_ in session.plain("validation"):
        outputs, wanted = (np.asarray(each.predict_on_batch(images)) for each in (model, reference))
        tally.add(labels.numpy(), outputs)
        distance += float(np.square(outputs - wanted, dtype=np.float64).sum())
        numbers += outputs.size
    return tally.measures(), distance / numbers

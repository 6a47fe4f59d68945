"""The data that the running `fit` of Keras reads, found from a callback: Keras shows callbacks no data."""

import inspect
from typing import Any


def batch_spec_of_fit() -> Any:
    """The form of a batch of the `fit` that calls this from a callback; None in a loop of the user's."""
    iterator = epoch_iterator_of_fit()
    return None if iterator is None else iterator._distributed_dataset.element_spec


def epoch_iterator_of_fit() -> Any:
    """What gives the batches to the `fit` that calls this from a callback; None in a loop of the user's."""
    frame = inspect.currentframe()
    while frame is not None:
        iterator: Any = frame.f_locals.get("epoch_iterator")
        if hasattr(iterator, "_distributed_dataset"):
            return iterator
        frame = frame.f_back
    return None


def read_epochs(epochs: int, size: int) -> None:
    """Reads epochs in the running `fit`, before its first one, as if they had been trained on.

    By Keras's own loop: it decides when it makes a new iterator (by which `shuffle` takes a new order), and
    calls the hooks of a `PyDataset`.

    Args:
        epochs: Their number.
        size: Batches per execution of the training function.
    """
    epoch_iterator = epoch_iterator_of_fit()
    for _ in range(epochs):
        with epoch_iterator.catch_stop_iteration():
            for _, _, iterator in epoch_iterator:
                if not read_batches(iterator, size):
                    raise StopIteration


def read_batches(iterator: Any, size: int) -> bool:
    """Reads the batches of one execution; whether there was one. The last execution may have fewer."""
    return sum(next(iterator, None) is not None for _ in range(size)) > 0

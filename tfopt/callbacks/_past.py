"""Brings the data of a `fit` to where they were: by their position, or by reading past what was seen."""

import logging
from typing import Any

import tensorflow as tf

from tfopt import _fit_data

_logger = logging.getLogger(__name__)


def position_of(data: Any) -> Any:
    """Where data of `tfopt.data` can be told to begin; None if they can only be read past."""
    is_dataset = isinstance(data, tf.data.Dataset | tf.distribute.DistributedDataset)
    return vars(data).get("position") if is_dataset else None


def batch_spec(data: Any) -> Any:
    """The form of a batch; None without data: nothing is restored inside an epoch, where metrics matter.

    Raises:
        ValueError: If the data have to be read past, and no `fit` reads them.
    """
    if data is None:
        return None
    if _fit_data.epoch_iterator_of_fit() is None and position_of(data) is None:
        raise ValueError(
            "`Resume(data=...)` needs `model.fit` for data that are not from `tfopt.data.pipeline`, to read "
            "past them. In a loop of your own leave `data` out."
        )
    is_dataset = isinstance(data, tf.data.Dataset | tf.distribute.DistributedDataset)
    return data.element_spec if is_dataset else _fit_data.batch_spec_of_fit()


def read_epochs(data: Any, epochs: int, size: int) -> None:
    """Reads epochs, of executions of `size` batches, where the data cannot be told to begin later."""
    if data is None or position_of(data) is not None:
        return
    if epochs:
        _logger.info("Resume: reads past the data of %d epochs.", epochs)
    _fit_data.read_epochs(epochs, size)

"""Categories by a table: TFLite cannot count integers, and its one-hot is wrong in int8."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_JOINED = {"multi_hot": keras.ops.max, "count": keras.ops.sum}


def table_of_categories(operation: Any) -> Callable[..., Any] | None:
    """The `call` of CategoryEncoding or `keras.ops.one_hot` by a table; None for anything else.

    An index out of range gives zeros, as in Keras.
    """
    if type(operation).__name__ == "OneHot" and not operation.sparse and operation.axis == -1:
        return lambda inputs: _one_hot(inputs, operation.num_classes, operation.dtype or "float32")
    if type(operation) is not keras.layers.CategoryEncoding or operation.sparse:
        return None

    def call(inputs: Any, count_weights: Any = None) -> Any:
        join = _JOINED.get(operation.output_mode)
        if len(inputs.shape) != 2 or count_weights is not None or operation.output_mode == "int":
            return type(operation).call(operation, inputs, count_weights)
        indices = keras.ops.cast(inputs, "int32")  # first: as floats they would be rounded to int8
        if join is None and indices.shape[-1] == 1:
            indices = keras.ops.squeeze(indices, -1)
        rows = _one_hot(indices, operation.num_tokens, "float32")
        return rows if join is None else join(rows, axis=1)

    return call


def _one_hot(indices: Any, count: int, dtype: str) -> Any:
    """Rows of a table with one row of zeros in front and one behind, for what is out of range."""
    table = np.pad(np.eye(count, dtype="float32"), ((1, 1), (0, 0)))
    rows = keras.ops.clip(keras.ops.cast(indices, "int32"), -1, count) + 1
    return keras.ops.cast(keras.ops.take(table, rows, axis=0), dtype)

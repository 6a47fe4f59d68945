"""CategoryEncoding by a table: TFLite cannot count integers, and has no exact one-hot in int8."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_JOINED = {"multi_hot": keras.ops.max, "count": keras.ops.sum}


def table_of_categories(layer: Any) -> Callable[..., Any] | None:
    """The `call` of CategoryEncoding as rows of an identity matrix; None for any other layer."""
    if type(layer) is not keras.layers.CategoryEncoding or layer.sparse or layer.output_mode == "int":
        return None

    def call(inputs: Any, count_weights: Any = None) -> Any:
        if len(inputs.shape) != 2 or count_weights is not None:
            return type(layer).call(layer, inputs, count_weights)
        indices = keras.ops.cast(inputs, "int32")
        join = _JOINED.get(layer.output_mode)
        if join is None and indices.shape[-1] == 1:
            indices = keras.ops.squeeze(indices, -1)
        rows = keras.ops.take(np.eye(layer.num_tokens, dtype="float32"), indices, axis=0)
        return rows if join is None else join(rows, axis=1)

    return call

"""Python code in a tf function, without TensorFlow keeping it, and all that it refers to, for ever."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_KEPT = "_tfopt_python_calls"


def call_python(
    function: Callable[..., Any], inputs: Sequence[tf.Tensor], dtype: tf.DType, *, stateful: bool = False
) -> tf.Tensor:
    """`tf.numpy_function` that keeps what it calls as long as the tf functions that it is part of.

    TensorFlow gives it to the outermost graph, which is never deleted: the images of every data set that
    was once made would stay in memory, and their files on the disk.
    """
    graph: Any = tf.compat.v1.get_default_graph()
    while hasattr(graph, "outer_graph"):  # as those of tf functions have
        setattr(graph, _KEPT, [*getattr(graph, _KEPT, ()), function])
        graph = graph.outer_graph
    called: Any = weakref.ref(function)
    return tf.numpy_function(lambda *values: called()(*values), inputs, dtype, stateful=stateful)

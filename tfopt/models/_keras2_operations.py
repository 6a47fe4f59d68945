"""TensorFlow functions that Keras 2 stored as layers (`TFOpLambda`), by operations of Keras 3."""

from collections.abc import Callable
from typing import Any

from keras import ops

OPERATIONS: dict[str, Callable] = {
    "math.add": lambda x, y: ops.add(x, y),
    "math.subtract": lambda x, y: ops.subtract(x, y),
    "math.multiply": lambda x, y: ops.multiply(x, y),
    "math.truediv": lambda x, y: ops.true_divide(x, y),
    "math.pow": lambda x, y: ops.power(x, y),
    "math.maximum": lambda x, y: ops.maximum(x, y),
    "math.minimum": lambda x, y: ops.minimum(x, y),
    "math.negative": ops.negative,
    "math.abs": ops.abs,
    "math.square": ops.square,
    "math.sqrt": ops.sqrt,
    "math.rsqrt": ops.rsqrt,
    "math.exp": ops.exp,
    "math.log": ops.log,
    "math.sigmoid": ops.sigmoid,
    "math.tanh": ops.tanh,
    "math.softplus": ops.softplus,
    "math.reduce_mean": lambda x, axis=None, keepdims=False: ops.mean(x, axis=axis, keepdims=keepdims),
    "math.reduce_sum": lambda x, axis=None, keepdims=False: ops.sum(x, axis=axis, keepdims=keepdims),
    "math.reduce_max": lambda x, axis=None, keepdims=False: ops.max(x, axis=axis, keepdims=keepdims),
    "math.reduce_min": lambda x, axis=None, keepdims=False: ops.min(x, axis=axis, keepdims=keepdims),
    "math.argmax": lambda x, axis=0: ops.argmax(x, axis=axis),
    "math.l2_normalize": lambda x, axis=-1, epsilon=1e-12: ops.normalize(x, axis=axis, epsilon=epsilon**0.5),
    "linalg.matmul": lambda x, b: ops.matmul(x, b),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": lambda features: ops.relu6(features),
    "nn.elu": lambda features: ops.elu(features),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.silu": lambda features, beta=1.0: features * ops.sigmoid(beta * features),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, axis),
    "nn.bias_add": lambda value, bias: ops.add(value, ops.convert_to_tensor(bias, value.dtype)),
    "nn.depth_to_space": lambda x, block_size: _depth_to_space(x, block_size),
    "cast": lambda x, dtype: ops.cast(x, dtype),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "concat": lambda values, axis: ops.concatenate(values, axis),
    "stack": lambda values, axis=0: ops.stack(values, axis),
    "split": lambda value, num_or_size_splits, axis=0: _split(value, num_or_size_splits, axis),
    "reshape": lambda tensor, shape: ops.reshape(tensor, shape),
    "transpose": lambda a, perm=None: ops.transpose(a, perm),
    "expand_dims": lambda x, axis: ops.expand_dims(x, axis),
    "squeeze": lambda x, axis=None: ops.squeeze(x, axis),
    "image.resize": lambda images, size, method="bilinear": ops.image.resize(images, size, method),
    "identity": lambda x: x,
    "__operators__.getitem": lambda x, slice_spec: x[_slices(slice_spec)],
}
SAME = {
    "__operators__.add": "math.add",
    "__operators__.sub": "math.subtract",
    "__operators__.mul": "math.multiply",
    "math.divide": "math.truediv",
    "math.divide_no_nan": "math.truediv",
    "nn.sigmoid": "math.sigmoid",
    "nn.tanh": "math.tanh",
    "nn.swish": "nn.silu",
    "nn.l2_normalize": "math.l2_normalize",
    "image.resize_images": "image.resize",
}
_IGNORED = {"name", "message", "preserve_aspect_ratio", "antialias", "half_pixel_centers"}


def operation_of(entry: dict[str, Any]) -> Callable:
    """The function behind a TFOpLambda or SlicingOpLambda.

    Raises:
        ValueError: If it has no counterpart here; the layer and the function are named.
    """
    name = entry["config"]["function"]
    short = name.removeprefix("compat.v1.")
    found = OPERATIONS.get(SAME.get(short, short))
    if found is None:
        raise ValueError(
            f"Layer {entry['config']['name']!r} calls `tf.{name}`, which has no translation. Save the model "
            "with a Keras layer in its place."
        )

    def call(first: Any, **options: Any) -> Any:
        options = {key: value for key, value in options.items() if key not in _IGNORED and value is not None}
        return found(first, **options)

    return call


def _split(value: Any, parts: Any, axis: int) -> Any:
    if isinstance(parts, int):
        return ops.split(value, parts, axis)
    ends = [sum(parts[: i + 1]) for i in range(len(parts) - 1)]
    return ops.split(value, ends, axis)


def _depth_to_space(x: Any, block: int) -> Any:
    """As `tf.nn.depth_to_space` for channels last; Keras 3.12 has no operation for it."""
    _, height, width, channels = x.shape
    deep = channels // (block * block)
    x = ops.reshape(x, (-1, height, width, block, block, deep))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * block, width * block, deep))


def _slices(entries: Any) -> Any:
    """Slices as Keras 2 wrote them: dictionaries, numbers, None, and {"class_name": "__ellipsis__"}."""
    found: list[Any] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, dict) and entry.get("class_name") == "__ellipsis__":
            found.append(Ellipsis)
        elif isinstance(entry, dict):
            found.append(slice(entry["start"], entry["stop"], entry["step"]))
        else:
            found.append(entry)
    return tuple(found)

"""What a .tflite file really contains: its operations, data types, scales and zeros."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt import _tflite_internals


@final
@dataclass(frozen=True)
class Operation:
    """One operation of the file, with the data types of its outputs."""

    name: str
    outputs: tuple[str, ...]
    is_float: bool


@final
@dataclass(frozen=True)
class Weight:
    """One constant tensor: its shape, data type, number of scales, share of zeros and distinct values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: int
    zeros: float
    unique_values: int
    two_of_four: bool


@final
@dataclass(frozen=True)
class Tensor:
    """One input or output of the file: name, shape with the batch, data type, scale and zero point."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: tuple[float, int]


@final
@dataclass(frozen=True)
class Inspection:
    """The contents of a .tflite file, read back from it."""

    operations: tuple[Operation, ...]
    weights: tuple[Weight, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    output_steps: tuple[
        float, ...
    ]  # of each output: its scale, or that of the integers it is made from; 0: float

    @property
    def input_type(self) -> str:
        """Data type of the first input."""
        return self.inputs[0].dtype

    @property
    def input_quantization(self) -> tuple[float, int]:
        """Scale and zero point of the first input."""
        return self.inputs[0].quantization

    @property
    def output_type(self) -> str:
        """Data type of the first output."""
        return self.outputs[0].dtype

    @property
    def operation_counts(self) -> dict[str, int]:
        """How often each operation occurs, the most frequent first."""
        return dict(Counter(operation.name for operation in self.operations).most_common())

    @property
    def float_operations(self) -> dict[str, int]:
        """Operations that compute in float, with their number; the last dequantization is not one."""
        return dict(Counter(operation.name for operation in self.operations if operation.is_float))

    @property
    def flex_operations(self) -> dict[str, int]:
        """Operations that need TensorFlow on the device, with their number."""
        return dict(Counter(op.name for op in self.operations if op.name.startswith("Flex")))

    @property
    def kernels(self) -> tuple[Weight, ...]:
        """The weights of convolutions and dense layers (rank 2 and more)."""
        return tuple(weight for weight in self.weights if len(weight.shape) >= 2)

    @property
    def sparsity(self) -> float:
        """Share of zeros in all kernels together."""
        sizes = [np.prod(weight.shape) for weight in self.kernels]
        zeros = [weight.zeros * size for weight, size in zip(self.kernels, sizes)]
        return float(sum(zeros) / max(sum(sizes), 1))


def inspect_interpreter(interpreter: Any, sparse: Mapping[int, np.ndarray] | None = None) -> Inspection:
    """Reads everything out of an interpreter that has allocated its tensors and uses no delegate.

    Args:
        interpreter: The interpreter.
        sparse: The values of tensors that the file stores without their zeros, by their number.
    """
    sparse = sparse or {}
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
    operations = [op for op in _tflite_internals.operations(interpreter) if op["op_name"] != "DELEGATE"]
    computed = {int(index) for op in operations for index in op["outputs"]}
    computed |= {source["index"] for source in sources}
    constant = {int(index) for op in operations for index in op["inputs"]} - computed  # others have no data
    ends = {target["index"] for target in targets}
    return Inspection(
        operations=tuple(_operation(op, tensors, ends) for op in operations),
        weights=tuple(
            _sparse_weight(tensor, sparse[index])
            if index in sparse
            else _weight(tensor, interpreter.get_tensor(index))
            for index, tensor in tensors.items()
            if index in constant and tensor["name"] and tensor["shape"].size
        ),
        inputs=tuple(map(_tensor, sources)),
        outputs=tuple(map(_tensor, targets)),
        output_steps=tuple(_step(target, operations, tensors) for target in targets),
    )


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    return Tensor(
        name=details["name"],
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        quantization=(float(scale), int(zero_point)),
    )


def _step(target: dict[str, Any], operations: list[dict[str, Any]], tensors: dict[int, Any]) -> float:
    makers = [op for op in operations if target["index"] in op["outputs"]]
    if makers and makers[-1]["op_name"] in ("DEQUANTIZE", "QUANTIZE"):
        target = tensors[int(makers[-1]["inputs"][0])]
    return float(target["quantization"][0])


def _operation(op: dict[str, Any], tensors: dict[int, Any], ends: set[int]) -> Operation:
    indices = [int(index) for index in op["outputs"] if index in tensors]  # -1 is an output left out
    kinds = tuple(np.dtype(tensors[index]["dtype"]).name for index in indices)
    is_end = op["op_name"] == "DEQUANTIZE" and ends.issuperset(indices)
    return Operation(op["op_name"], kinds, is_float="float" in "".join(kinds) and not is_end)


def _weight(tensor: dict[str, Any], value: np.ndarray) -> Weight:
    return Weight(
        name=tensor["name"],
        shape=tuple(int(size) for size in value.shape),
        dtype=value.dtype.name,
        scales=len(tensor["quantization_parameters"]["scales"]),
        zeros=float(np.mean(value == 0)) if value.size else 0.0,
        unique_values=len(np.unique(value)),
        two_of_four=_is_two_of_four(value),
    )


def _sparse_weight(tensor: dict[str, Any], stored: np.ndarray) -> Weight:
    """As `_weight`, of a tensor whose zeros are not stored (but for some in blocks)."""
    shape = tuple(int(size) for size in tensor["shape"])
    count = int(np.prod(shape))
    filled = int(np.count_nonzero(stored))
    return Weight(
        name=tensor["name"],
        shape=shape,
        dtype=stored.dtype.name,
        scales=len(tensor["quantization_parameters"]["scales"]),
        zeros=1.0 - filled / max(count, 1),
        unique_values=len(np.unique(stored[stored != 0])) + (filled < count),
        two_of_four=False,
    )


def _is_two_of_four(value: np.ndarray) -> bool:
    """Whether each four neighbors along the last axis hold at least two zeros."""
    if value.ndim < 2 or value.shape[-1] < 4:
        return False
    whole = value[..., : value.shape[-1] // 4 * 4].reshape(-1, 4)
    return bool(((whole != 0).sum(axis=1) <= 2).all())

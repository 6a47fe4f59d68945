"""Probabilities of many classes in float: in steps of 1/256, several classes share the top."""

from typing import Any

from tfopt import _tflite_internals

schema = _tflite_internals.schema()

MANY = 32  # classes; the probabilities of fewer are seldom both small and equal


def float_probabilities(model: Any) -> None:
    """Computes the last softmax or sigmoid of an int8 file with float outputs behind the dequantization.

    The converter ends such a file in SOFTMAX (int8, steps of 1/256) and DEQUANTIZE. In the other order the
    same two operations give every probability the precision of the logits, at the cost of one exponential
    for each class. Files with integer outputs stay as they are.

    Args:
        model: The object form of a .tflite file, which is changed.
    """
    codes = schema.BuiltinOperator
    activations = (codes.SOFTMAX, codes.LOGISTIC)
    for graph in model.subgraphs:
        operators = graph.operators or []
        kinds = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in operators]
        for place, kind in enumerate(kinds[:-1]):
            first, second = operators[place], operators[place + 1]
            if kind not in activations or kinds[place + 1] != codes.DEQUANTIZE:
                continue
            between = int(first.outputs[0])
            if _is_last(graph, between, int(second.inputs[0]), int(second.outputs[0])):
                _swap(graph.tensors[between], first, second)


def _is_last(graph: Any, between: int, read: int, result: int) -> bool:
    """Whether an activation of many classes is read by the dequantization of an output alone."""
    readers = sum(int(i) == between for operator in graph.operators for i in operator.inputs)
    outputs = [int(index) for index in graph.outputs]
    tensor = graph.tensors[between]
    is_int8 = tensor.type == schema.TensorType.INT8
    many = tensor.shape is not None and len(tensor.shape) > 0 and tensor.shape[-1] >= MANY
    return (
        is_int8 and many and readers == 1 and read == between and result in outputs and between not in outputs
    )


def _swap(between: Any, first: Any, second: Any) -> None:
    """Exchanges the kinds of two operations that follow each other; what lies between them is float then."""
    for name in ("opcodeIndex", "builtinOptionsType", "builtinOptions"):
        one, other = getattr(first, name), getattr(second, name)
        setattr(first, name, other)
        setattr(second, name, one)
    between.type, between.quantization = schema.TensorType.FLOAT32, None

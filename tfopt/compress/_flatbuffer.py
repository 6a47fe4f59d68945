"""What is repaired and added in the content of a .tflite file: scales, names, signature, metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from tfopt import _tflite_internals
from tfopt.compress._finer_outputs import float_probabilities
from tfopt.compress._matching import Port

schema = _tflite_internals.schema()

WEIGHT_BITS = 10  # a channel's gain moves by at most 2**-11, 0.06 of a step at the end of the int8 range
BIAS_BITS = 8  # no kernel reads these: a bias is added to sums whose scale is that of input times weight
NO_WIDTH = 8e-9  # the converter's scale for activations that are always zero: 2e-6 / 255
LSTM_STATE, SMALLEST_STATE = 19, 2.0**-15  # its place among the operation's inputs; see `_widen_states`
SIGNATURE = "serving_default"
RETURNS = "tfopt.returns"  # metadata: whether the Keras model gives its outputs in a "dict" or in a "list"


def shortened(content: bytes) -> bytes:
    """The file with every scale in a list of scales rounded to a few significant bits.

    Every output channel has two scales of four bytes, of its weights and of its bias, that no zip program
    shrinks: a tenth of the zipped file of a small network.
    """
    edited = bytearray(content)
    for tensor in _tensors(edited):
        quantization = tensor.Quantization()
        if quantization is not None and quantization.ScaleLength() > 1:
            scales = quantization.ScaleAsNumpy()  # a view of `edited`
            bits = BIAS_BITS if tensor.Type() == schema.TensorType.INT32 else WEIGHT_BITS
            fraction, exponent = np.frexp(scales)
            scales[:] = np.ldexp(np.rint(fraction * 2.0**bits) / 2.0**bits, exponent)
    return bytes(edited)


def always_zero(content: bytes) -> list[str]:
    """int8 activations without range: XNNPACK refuses such a file, or ends the process when it runs it.

    Constants are no activations: the zeros in one (SELU's, a fresh PReLU's slopes) need no range.
    """
    model = schema.Model.GetRootAs(content, 0)
    found = []
    for tensor in _tensors(content):
        scales = tensor.Quantization()
        is_constant = model.Buffers(tensor.Buffer()).DataLength() > 0
        if tensor.Type() != schema.TensorType.INT8 or scales is None or is_constant:
            continue
        if scales.ScaleLength() == 1 and 0.0 < scales.Scale(0) < NO_WIDTH:
            found.append((tensor.Name() or b"").decode(errors="replace"))
    return found


def finished(
    content: bytes, inputs: Sequence[Port], outputs: Sequence[Port], returns_dict: bool = False
) -> bytes:
    """The file with the model's own names and one signature, its inputs and outputs in the model's order."""
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    _widen_states(model)
    float_probabilities(model)
    for side, ports, attribute in (("inputs", inputs, "inputs"), ("outputs", outputs, "outputs")):
        indices = _in_order(model, side, list(getattr(graph, attribute)))
        setattr(graph, attribute, indices)
        for index, port in zip(indices, ports):
            graph.tensors[index].name = port.name.encode()
    model.signatureDefs = [_signature(graph, inputs, outputs)]
    return with_metadata(model, {RETURNS: b"dict" if returns_dict else b"list"})


def with_metadata(model: Any, entries: Mapping[str, bytes]) -> bytes:
    """The content of a model (its object form) with further entries of metadata."""
    model.metadata = [entry for entry in model.metadata or [] if entry.name.decode() not in entries]
    for name, value in entries.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value, np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = name.encode(), len(model.buffers) - 1
        model.metadata.append(entry)
    return packed(model)


def packed(model: Any) -> bytes:
    """The content of a file of the object form of a model."""
    builder = _SharingBuilder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def metadata(content: bytes) -> dict[str, bytes]:
    """The entries of metadata in a file, by name."""
    model = schema.Model.GetRootAs(content, 0)
    entries = map(model.Metadata, range(model.MetadataLength()))
    found = {}
    for entry in entries:
        buffer = model.Buffers(entry.Buffer())
        found[entry.Name().decode()] = buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""
    return found


def stored_sparsely(content: bytes) -> dict[int, np.ndarray]:
    """The values that are stored of each sparse tensor, by its number; an interpreter does not show them."""
    model = schema.Model.GetRootAs(content, 0)
    kinds = {getattr(schema.TensorType, name.upper()): name for name in ("float32", "float16", "int8")}
    found = {}
    for index, tensor in enumerate(_tensors(content)):
        if tensor.Sparsity() is not None and tensor.Type() in kinds:
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            found[index] = data.view(kinds[tensor.Type()])
    return found


def _widen_states(model: Any) -> None:
    """Gives small cell states of integer LSTM operations the smallest scale that the kernel computes with.

    It shifts by 15 + log2(scale) bits (tensorflow/lite/kernels/internal, ApplyTanh). That is negative, and
    the result is nonsense, for states that stay within [-0.5, 0.5). No other tensor's scale depends on it.
    """
    code = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            if model.operatorCodes[operator.opcodeIndex].builtinCode == code:
                state = graph.tensors[operator.inputs[LSTM_STATE]]
                if state.type == schema.TensorType.INT16 and state.quantization.scale[0] < SMALLEST_STATE:
                    state.quantization.scale = np.asarray([SMALLEST_STATE], np.float32)


def _in_order(model: Any, side: str, indices: list[int]) -> list[int]:
    """Tensors in the model's order: a SavedModel sorts them, its signature says which is which."""
    if not model.signatureDefs:
        return indices
    prefix = "input_" if side == "inputs" else "output_"
    maps = {m.name.decode(): m.tensorIndex for m in getattr(model.signatureDefs[0], side)}
    return [maps[f"{prefix}{i}"] for i in range(len(maps))]


def _signature(graph: Any, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
    signature.inputs = [_named(port, index) for port, index in zip(inputs, graph.inputs)]
    signature.outputs = [_named(port, index) for port, index in zip(outputs, graph.outputs)]
    return signature


def _named(port: Port, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = port.name.encode(), int(index)
    return entry


def _tensors(content: Any) -> Any:
    model = schema.Model.GetRootAs(content, 0)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        yield from map(graph.Tensors, range(graph.TensorsLength()))


class _SharingBuilder(flatbuffers.Builder):
    """Puts weights where processors read them, and equal zero points only once.

    The schema asks for multiples of 16 bytes (`force_align`), which Python's builder does not heed, and
    processors without unaligned access need. Every channel has a zero point of 8 bytes, always 0 in kernels:
    a tenth of the file of a network of dense layers.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._before = self._width = self._count = 0
        self._known: dict[bytes, int] = {}

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        self._before, self._width, self._count = self.Offset(), elemSize, numElems
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    def EndVector(self) -> int:
        offset = super().EndVector()
        if self._width != 8:
            return offset
        start = self.Head()
        content = bytes(self.Bytes[start : start + 4 + self._width * self._count])
        known = self._known.setdefault(content, offset)
        if known != offset:
            self.head = len(self.Bytes) - self._before  # drops what was just written
        return known

"""Per-channel scales in few bits: a zip program shrinks them, and no output tells the difference."""

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

WEIGHT_BITS = 10  # a channel's gain moves by at most 2**-11, 0.06 of a step at the end of the int8 range
BIAS_BITS = 8  # no kernel reads these: a bias is added to sums whose scale is that of input times weight


def shortened(content: bytes) -> bytes:
    """The file with every scale in a list of scales rounded to so many significant bits.

    Every output channel has two scales of four bytes, of its weights and of its bias, that no zip program
    shrinks: a tenth of the zipped file of a small network.
    """
    edited = bytearray(content)
    model = schema.Model.GetRootAs(edited, 0)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            quantization = tensor.Quantization()
            if quantization is not None and quantization.ScaleLength() > 1:
                scales = quantization.ScaleAsNumpy()  # a view of `edited`
                bits = BIAS_BITS if tensor.Type() == schema.TensorType.INT32 else WEIGHT_BITS
                fraction, exponent = np.frexp(scales)
                scales[:] = np.ldexp(np.rint(fraction * 2.0**bits) / 2.0**bits, exponent)
    return bytes(edited)

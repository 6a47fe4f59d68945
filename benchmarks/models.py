"""Parameters and multiply-adds of every network that `--model` knows, as `tfopt models` tells them.

Counts; nothing is timed, so the machine does not matter. Run: python benchmarks/models.py [NAME ...]
"""

import gc
import math
import sys

import keras

from tfopt.models import backbone
from tfopt.models._architectures import ARCHITECTURES


def multiply_adds(model: keras.Model) -> int:
    """Those of the convolutions for one image: places of the output times numbers in the kernel."""
    total = 0
    for layer in model.layers:
        kernels = [weight for weight in layer.weights if "kernel" in weight.name]
        total += math.prod(layer.output.shape[1:-1]) * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


def main() -> None:
    """Prints a line for each network, as `tfopt/models/_architectures.py` holds it."""
    for name in sys.argv[1:] or ARCHITECTURES:
        model = backbone(name)
        print(f"{name:22s} {model.count_params():>12,} {multiply_adds(model):>16,}", flush=True)
        del model
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    main()

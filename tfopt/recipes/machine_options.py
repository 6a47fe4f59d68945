"""Options of how training uses the machine; none but `precision` changes what is computed."""

import dataclasses
from typing import Literal

from tfopt.recipes.options import Options, option

Strategy = Literal["auto", "cpu", "gpu", "mirrored", "multiworker", "tpu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """Devices, number format, compilation and threads."""

    strategy: Strategy = option(
        "auto",
        "machine",
        "Devices to train on: cpu, one gpu, all GPUs of this machine (mirrored), several processes or "
        "machines (multiworker), which `tfopt launch` or Slurm starts, or a tpu. They share each batch.",
        auto="a TPU, the workers of `tfopt launch` or Slurm, all GPUs, else the CPU",
    )
    precision: Literal["float32", "mixed_bfloat16"] = option(
        "float32",
        "machine",
        "Number format in which the second stage and pruning compute. mixed_bfloat16 is faster where the "
        "hardware has it; weights, results and the exported file stay float32.",
    )
    jit_compile: bool | Literal["auto"] = option(
        "auto", "machine", "Whether XLA compiles training steps.", auto="on a GPU"
    )
    steps_per_execution: int = option(
        1,
        "machine",
        "Updates per call from Python. Several save time where one takes few milliseconds; they are "
        "interrupted together, and the average of the weights sees the last of them.",
        minimum=1,
    )
    threads: int | Literal["auto"] = option(
        "auto",
        "machine",
        "TensorFlow threads, within and between operations.",
        auto="as many as cores",
        minimum=1,
    )
    data_threads: int | Literal["auto"] = option(
        "auto", "machine", "Threads of the input pipeline alone.", auto="those of TensorFlow", minimum=1
    )

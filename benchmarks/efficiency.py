"""Expected efficiency from 1 to 1,024 replicas, on paper: python benchmarks/efficiency.py.

efficiency(N) = compute / (compute + all_reduce(N)), the same batch per replica at every N, where

    ring:  all_reduce = 2 (N - 1) / N * bytes / rate + 2 (N - 1) * latency
    tree:  all_reduce = 2 * bytes / rate + 2 ceil(log2 N) * latency

Assumed: all replicas are equally fast, the input keeps up, nothing overlaps with the backward pass (a lower
bound: TensorFlow starts to reduce while gradients are still computed), gradients travel as float32.
Figures of your own, such as those that benchmarks/distribution.py measures, go in as options.
"""

import argparse
import math

REPLICAS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
BYTES = 4 * 3_504_872  # the trainable weights of MobileNetV2 1.0 with 1,000 classes
COMPUTE = 0.1  # seconds; assumed for a step of some 64 pictures of 224 px on a data-center GPU
NETWORKS = {  # name -> (bytes per second, seconds of latency, whether a tree)
    "10 Gb/s, ring": (1.25e9, 50e-6, False),
    "100 Gb/s, ring": (12.5e9, 20e-6, False),
    "100 Gb/s, tree": (12.5e9, 20e-6, True),
}


def all_reduce(replicas: int, size: float, rate: float, latency: float, tree: bool) -> float:
    """Seconds to sum `size` bytes over the replicas."""
    if replicas == 1:
        return 0.0
    if tree:
        return 2 * size / rate + 2 * math.ceil(math.log2(replicas)) * latency
    return 2 * (replicas - 1) / replicas * size / rate + 2 * (replicas - 1) * latency


def table(compute: float = COMPUTE, size: float = BYTES, networks: dict = NETWORKS) -> str:
    """The table as Markdown: percent of the speed that N separate devices would have in all."""
    lines = ["| replicas | " + " | ".join(networks) + " |", "|---" * (1 + len(networks)) + "|"]
    for replicas in REPLICAS:
        shares = [compute / (compute + all_reduce(replicas, size, *network)) for network in networks.values()]
        lines.append(f"| {replicas:,} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="changes nothing: there is nothing to wait for")
    parser.add_argument("--compute", type=float, default=COMPUTE, help="seconds of a step without all-reduce")
    parser.add_argument("--bytes", type=float, default=BYTES, help="of the gradients")
    parser.add_argument("--rate", type=float, help="bytes per second, instead of the three networks")
    parser.add_argument("--latency", type=float, default=50e-6, help="seconds; with --rate")
    options = parser.parse_args()
    own = {
        "ring": (options.rate, options.latency, False),
        "tree": (options.rate, options.latency, True),
    }
    print(table(options.compute, options.bytes, NETWORKS if options.rate is None else own))


if __name__ == "__main__":
    main()

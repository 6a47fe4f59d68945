"""Do the defaults of finetune hold against a search? python benchmarks/search.py [--data digits FOLDER ...].

For each data set, `tfopt.tune.search` tries settings for 20 trials or 10 minutes and judges them by the
validation images. Then the best found and the defaults train with three seeds each and are judged by the
test images, which the search has not seen. Float models: quantization costs both the same. Folders need
pretrained weights (`--weights imagenet` or a file). `--quick` is a smoke test whose figures mean nothing.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

import tfopt
from tfopt.recipes.progress import ConsoleProgress
from tfopt.tune import search

QUIET = ConsoleProgress(Console(quiet=True))


def compare(
    source: str, config: tfopt.FinetuneConfig, options: argparse.Namespace, folder: pathlib.Path
) -> str:
    """Searches, then trains both; returns a line of the table."""
    begin = time.perf_counter()
    found = search(
        source,
        tuner=options.tuner,
        trials=options.trials,
        seconds=options.seconds,
        config=config,
        output=folder / "search",
    )
    took = time.perf_counter() - begin
    print(f"{source}: {len(found.trials)} trials in {took:.0f} s\n{found}", flush=True)
    best = tfopt.FinetuneConfig.from_file(found.folder / "best.json")
    accuracies: dict[str, list[float]] = {"default": [], "best": []}
    for seed in range(options.seeds):
        for name, chosen in (("default", config), ("best", best)):
            output = str(folder / f"{name}-{seed}")
            result = tfopt.finetune(
                source, dataclasses.replace(chosen, seed=seed, output=output), progress=QUIET
            )
            accuracies[name].append(100 * result.comparison.rows[-1].accuracy)
            print(f"{source}: seed {seed}, {name}: {accuracies[name][-1]:.2f} %", flush=True)
    pairs = zip(accuracies["best"], accuracies["default"])
    gains = [best - default for best, default in pairs]
    shown = [
        f"{statistics.mean(values):6.2f} [{min(values):.2f}, {max(values):.2f}]"
        for values in (accuracies["default"], accuracies["best"], gains)
    ]
    return f"{pathlib.Path(source).name:12} {len(found.trials):6d}  " + "  ".join(
        f"{text:24}" for text in shown
    )


def main() -> None:
    """Prints the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits"])
    parser.add_argument("--weights", default="auto", help="of a folder's network")
    parser.add_argument("--tuner", default="hyperband")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", help="keeps searches and runs, and goes on with those in it")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    config = tfopt.FinetuneConfig(quantization=None)
    if options.quick:
        options.trials, options.seeds, options.tuner = 2, 1, "random"
        config = dataclasses.replace(config, epochs=1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.folder or temporary)
        for source in options.data:
            own = config if source == "digits" else dataclasses.replace(config, weights=options.weights)
            rows.append(compare(source, own, options, folder / pathlib.Path(source).name))
    print(f"\n{'':12} trials  {'default, % [range]':24}  {'best found':24}  {'gain, points':24}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

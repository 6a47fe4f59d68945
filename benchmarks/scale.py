"""How the peak memory of the main job grows with the number of images: python benchmarks/scale.py.

Makes folders of small synthetic images (32 pixels, a pattern of colors for each class), runs `tfopt
finetune` on each in a process of its own with MobileNet 0.25, and reads the largest resident memory of that
process. `--images 1000 50000` names the sizes, `--classes 1000` the classes (of which there are fewer where
images are: one in ten), `--weights FILE` begins with pretrained weights, whose head is fitted to features.

Targets: 50,000 images of 1,000 classes need at most 300 MB more than 1,000 images; the report has at most
1 MB.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

SIZE, MOST_MEMORY, MOST_REPORT = 32, 300.0, 1.0  # pixels, MB, MB
OPTIONS = ("--image-size", "32", "--alpha", "0.25", "--epochs", "1", "--compress-epochs", "1")


def write_images(folder: pathlib.Path, images: int, classes: int) -> None:
    """Class folders of PNG files: each class has a pattern of 4 x 4 colors, each image noise of its own."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (classes, 4, 4, 3))
    for label, pattern in enumerate(patterns):
        place = folder / f"class_{label:04}"
        place.mkdir(parents=True)
        picture = np.kron(pattern, np.ones((SIZE // 4, SIZE // 4, 1)))
        for number in range(label, images, classes):
            noisy = picture + random.normal(0, 40, picture.shape)
            Image.fromarray(noisy.clip(0, 255).astype("uint8")).save(place / f"{number}.png")


def resident(process: int) -> tuple[float, float]:
    """Resident memory now and its peak, in MB; zeros where the process has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    found = {line.split(":")[0]: line.split() for line in lines}
    return tuple(int(found[name][1]) / 1e3 if name in found else 0.0 for name in ("VmRSS", "VmHWM"))


def run(folder: pathlib.Path, output: pathlib.Path, weights: str, more: list[str]) -> dict[str, float]:
    """Peak memory in MB, seconds, size of the report in MB, and accuracy of the file of one run."""
    command = [sys.executable, "-m", "tfopt", "finetune", "--data", str(folder), "--output", str(output)]
    command += [*OPTIONS, "--weights", weights, *more]
    started, peak = time.perf_counter(), 0.0
    log = pathlib.Path(f"{output}.log")
    with log.open("w") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, resident(process.pid)[1])
            threading.Event().wait(0.5)
    if process.returncode:
        raise SystemExit(log.read_text()[-3000:])
    rows = json.loads((output / "comparison.json").read_text())["rows"]
    return {
        "peak": peak,
        "seconds": time.perf_counter() - started,
        "report": (output / "report.html").stat().st_size / 1e6,
        "accuracy": rows[-1]["accuracy"],
    }


def main() -> int:
    """1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 50_000])
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--weights", default=os.environ.get("TFOPT_WEIGHTS", "none"))
    parser.add_argument("more", nargs="*", help="other options of `tfopt finetune`, behind --")
    parsed = parser.parse_args()
    table = Table(title=f"tfopt finetune, MobileNet 0.25, {SIZE} pixels, {parsed.classes:,} classes at most")
    for title in ("images", "classes", "peak, MB", "more, MB", "bytes an image", "report, MB", "seconds"):
        table.add_column(title, justify="right")
    found: list[tuple[int, dict[str, float]]] = []
    for images in sorted(parsed.images):
        classes = max(2, min(parsed.classes, images // 10))
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            write_images(folder / "images", images, classes)
            found.append((images, run(folder / "images", folder / "run", parsed.weights, parsed.more)))
        (fewest, first), (_, last) = found[0], found[-1]
        more = last["peak"] - first["peak"]
        each = f"{1e6 * more / (images - fewest):,.0f}" if images > fewest else ""
        values = (
            f"{last['peak']:,.0f}",
            f"{more:,.0f}",
            each,
            f"{last['report']:.2f}",
            f"{last['seconds']:.0f}",
        )
        table.add_row(f"{images:,}", f"{classes:,}", *values)
    Console(width=100).print(table)
    too_much = last["peak"] - first["peak"] > MOST_MEMORY or last["report"] > MOST_REPORT
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())

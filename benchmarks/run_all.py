"""Runs the benchmarks of this folder, one after the other, and prints a table of what ended how.

    python benchmarks/run_all.py [NAME ...] [--quick] [--save FILE] [--compare FILE]

`--save` keeps the ratios that the benchmarks record; `--compare` lists those that fell by more than a tenth
against such a file, and ends with exit code 1 if there are any. Timings are noisy: run a benchmark that fell
once more before you believe it.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import ratios

FOLDER = pathlib.Path(__file__).parent
PARTS = ("run_all.py", "ratios.py", "coverage_models.py")  # no benchmarks of their own


def names() -> list[str]:
    """The benchmarks, without their endings."""
    return [path.stem for path in sorted(FOLDER.glob("*.py")) if path.name not in PARTS]


def run(chosen: list[str], quick: bool, kept: pathlib.Path) -> list[tuple[str, float, int]]:
    """Name, seconds and exit code of each."""
    rows = []
    for name in chosen:
        path = FOLDER / f"{name}.py"
        flags = ["--quick"] * (quick and '"--quick"' in path.read_text(encoding="utf-8"))
        print(f"\n=== {path.name}", flush=True)
        start = time.perf_counter()
        environment = {**os.environ, ratios.VARIABLE: str(kept)}
        code = subprocess.run([sys.executable, str(path), *flags], env=environment).returncode
        rows.append((path.name, time.perf_counter() - start, code))
    return rows


def main() -> int:
    """0 if every benchmark ended well and no ratio fell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of {', '.join(names())}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="the short form of those that have one")
    parser.add_argument("--save", type=pathlib.Path, metavar="FILE", help="keep the ratios as JSON")
    parser.add_argument("--compare", type=pathlib.Path, metavar="FILE", help="an earlier --save")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names())}")
    before = json.loads(options.compare.read_text(encoding="utf-8")) if options.compare else {}
    with tempfile.TemporaryDirectory() as folder:
        kept = pathlib.Path(folder, "ratios.jsonl")
        kept.touch()
        rows = run(options.names or names(), options.quick, kept)
        now = ratios.collected(kept)
    print(f"\n{'benchmark':<24}{'seconds':>10}  result")
    for name, seconds, code in rows:
        print(f"{name:<24}{seconds:>10.0f}  {'ok' if code == 0 else f'exit code {code}'}")
    if options.save:
        options.save.write_text(json.dumps(now, indent=1, sort_keys=True), encoding="utf-8")
    lost = ratios.fallen(before, now)
    if options.compare:
        compared = len(set(before) & set(now))
        print(f"\n{compared} ratios compared, {len(lost)} fell by more than {ratios.MOST_LOST:.0%}")
        print("\n".join(lost))
    return int(any(code for _, _, code in rows) or bool(lost))


if __name__ == "__main__":
    sys.exit(main())

"""Runs every benchmark of this folder, one after the other, and prints a table of what ended how."""

import pathlib
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).parent


def main() -> int:
    """0 if every benchmark ended well."""
    rows = []
    for path in sorted(FOLDER.glob("*.py")):
        if path.name == pathlib.Path(__file__).name:
            continue
        print(f"\n=== {path.name}", flush=True)
        start = time.perf_counter()
        code = subprocess.run([sys.executable, str(path)]).returncode
        rows.append((path.name, time.perf_counter() - start, code))
    print(f"\n{'benchmark':<24}{'seconds':>10}  result")
    for name, seconds, code in rows:
        print(f"{name:<24}{seconds:>10.0f}  {'ok' if code == 0 else f'exit code {code}'}")
    return int(any(code for _, _, code in rows))


if __name__ == "__main__":
    sys.exit(main())

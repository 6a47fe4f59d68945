"""`make release-check`: the archives in a folder are complete, and tests pass from the source archive.

All tests are collected there. Those that read files of the repository are run, and some that use the package.

python tests/archives.py dist PYTHON, where PYTHON has the requirements of tfopt's tests.
"""

import email
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

IN_WHEEL = (
    "tfopt/py.typed",
    "tfopt/data/digits.npz",
    "tfopt/report/page.html",
    "tfopt/report/style.css",
    r"tfopt-[\d.]+\.dist-info/(licenses/)?LICENSE",
    r"tfopt-[\d.]+\.dist-info/entry_points\.txt",
)
IN_SOURCES = (
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "tests/conftest.py",
    "docs/finetune.md",
    "Makefile",
)

RUN = ("architecture", "data_loading", "light_import", "notebooks", "platform", "report_costs", "schedules")


def lacking(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The patterns that fit no name."""
    return [each for each in patterns if not any(re.fullmatch(each, name) for name in names)]


def relative_links(markdown: str) -> list[str]:
    """Links and pictures that lead nowhere on the page of an index."""
    targets = re.findall(r"\]\(([^)\s]+)\)", markdown) + re.findall(r'(?:src|href)="([^"]+)"', markdown)
    return [target for target in targets if not re.match(r"https?://|#|mailto:", target)]


def collected(sources: pathlib.Path, python: str) -> int:
    """How many tests pytest finds in unpacked sources, with the package that lies there."""
    # Without `addopts`, whose -q would make it -qq, which prints no sum.
    options = ["--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [python, "-m", "pytest", *options, "tests"]
    done = subprocess.run(command, cwd=sources, env=of(sources), capture_output=True, text=True)
    found = re.search(r"^(\d+)(?:/\d+)? tests collected", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise SystemExit(f"the tests of the source archive cannot be collected:\n{done.stdout[-3000:]}")
    return int(found[1])


def of(sources: pathlib.Path) -> dict[str, str]:
    """The environment in which the package of unpacked sources is imported."""
    return {**os.environ, "PYTHONPATH": str(sources), "TF_CPP_MIN_LOG_LEVEL": "3"}


def passed(sources: pathlib.Path, python: str) -> str:
    """What pytest says of the tests that are run in unpacked sources.

    Raises:
        SystemExit: If one fails.
    """
    files = [f"tests/test_{name}.py" for name in RUN]
    options = ["-q", "-m", "not full", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [python, "-m", "pytest", *options, *files]
    done = subprocess.run(command, cwd=sources, env=of(sources), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tests fail in the source archive:\n{done.stdout[-5000:]}")
    return done.stdout.strip().splitlines()[-1]


def main(folder: str, python: str) -> None:
    """Checks the one wheel and the one source archive in a folder."""
    (wheel,), (sources,) = (list(pathlib.Path(folder).glob(form)) for form in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        message = email.message_from_bytes(archive.read(metadata))
    problems = [f"the wheel lacks {name}" for name in lacking(names, IN_WHEEL)]
    problems += [f"README.md has the relative link {link}" for link in relative_links(message.get_payload())]
    for field in ("Author", "Keywords", "Classifier", "Requires-Python", "License"):
        problems += [] if message.get(field) or message.get(f"{field}-Expression") else [f"no {field}"]
    if os.environ.get("TFOPT_REPOSITORY") and not message.get("Project-URL"):
        problems.append("no Project-URL, although TFOPT_REPOSITORY is set")
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(sources) as archive:
            archive.extractall(place, filter="data")
        (root,) = pathlib.Path(place).iterdir()
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        problems += [f"the source archive lacks {name}" for name in lacking(names, IN_SOURCES)]
        if problems:
            raise SystemExit("\n".join(problems))
        number, outcome = collected(root, python), passed(root, python)
    print(f"{wheel.name} and {sources.name} are complete")
    print(f"{number} tests are found in the sources; of {', '.join(RUN)}: {outcome}")
    if not message.get("Project-URL"):
        print("README links became text: TFOPT_REPOSITORY, which holds the repository's address, is not set")


if __name__ == "__main__":
    main(sys.argv[1], os.path.abspath(sys.argv[2]))

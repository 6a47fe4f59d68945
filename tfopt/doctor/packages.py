"""Python and packages: are they there, in versions that go together, and can they be imported?"""

import importlib.util
import pathlib
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires, version

from tfopt._optional import is_installed
from tfopt.doctor import builds
from tfopt.doctor.finding import Finding
from tfopt.doctor.frameworks import keras_home

# Module -> distribution. What tfopt imports only where it is used, and tfopt itself:
_MODULES = {
    "sklearn.tree": "scikit-learn",
    "PIL.Image": "pillow",
    "matplotlib.pyplot": "matplotlib",
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "tensorflow_metadata.proto.v0.schema_pb2": "tensorflow-metadata",
    "tfopt.optimizers": "tfopt",
}
_OPTIONAL = {"scikit-learn", "matplotlib", "ai-edge-litert"}  # absent without an extra
# where tfopt cannot be imported, one of these is to blame, the first of them rather than the last:
_CAUSES = {
    "numpy": "numpy",
    "h5py": "h5py",
    "scipy.optimize": "scipy",
    "simplejpeg": "simplejpeg",
    "tensorflow": "tensorflow",
    "keras": "keras",
}
_BACKENDS = ("jax", "torch", "openvino")
_LIMIT_SECONDS = 300.0
_REASON = re.compile(r"^[\w.]*(?:Error|Exception|Exit)\b", re.MULTILINE)


def versions() -> Iterator[Finding]:
    """Python, and every requirement of tfopt and of TensorFlow, such as that on numpy's version."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    if importlib.util.find_spec("packaging") is None:
        yield Finding("packaging", "broken", "not installed", "pip install packaging")
        return
    known: set[str] = set()
    frameworks = [*builds.installed("tensorflow", version), *builds.installed("keras", version)]
    for owner in ("tfopt", *frameworks):
        try:
            needs = list(_requirements(owner))
        except PackageNotFoundError:
            if owner == "tfopt":
                fix = "pip install -e . in the folder of its sources"
                yield Finding("tfopt", "warning", "not installed: what it needs is not checked", fix)
            continue
        for name, wanted in needs:
            finding = _version(name, wanted)
            if name not in known and (owner == "tfopt" or name == "numpy" or finding.status != "ok"):
                known.add(name)
                yield finding
    yield from builds.plugins(version)
    yield from _extras()


# Extra -> what it is for. That one is absent is no fault: the main job does without.
_EXTRAS = {
    "report": "the map of images in a report, and plots",
    "search": "`tfopt search`: keras-tuner imports it",
    "litert": "running .tflite files without TensorFlow",
    "parquet": "Parquet files",
    "heif": "HEIC pictures, as telephones take them",
}


def _extras() -> Iterator[Finding]:
    """What `pip install tfopt` leaves out."""
    try:
        core = {name for name, _ in _requirements("tfopt")}
        needs = [(e, *each) for e in _EXTRAS for each in _requirements("tfopt", e) if each[0] not in core]
    except PackageNotFoundError:
        return
    for extra, name, wanted in needs:
        if builds.installed(name, version):
            yield _version(name, wanted)
        else:
            yield Finding(name, "ok", f'not installed: {_EXTRAS[extra]}. pip install "tfopt[{extra}]"')


def _requirements(owner: str, extra: str = "") -> Iterator[tuple[str, str]]:
    """(name, versions) of what a package needs, with one of its extras."""
    from packaging.requirements import Requirement

    for line in requires(owner) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name, str(requirement.specifier)


def _version(name: str, wanted: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    fix = f'pip install "{name}{wanted}"'
    found = builds.installed(name, version)
    if not found:
        return Finding(name, "broken", "not installed", fix)
    conflict = builds.conflict(name, found, fix)
    if conflict is not None:
        return conflict
    distribution, number = next(iter(found.items()))
    fits = SpecifierSet(wanted).contains(number, prereleases=True)
    if distribution == name:
        return Finding(name, "ok", number) if fits else _unfit(name, number, wanted, fix)
    status, told = builds.status(distribution, fits)
    fix = f"pip uninstall {distribution}; {fix}"  # both would write the same files
    if status == "broken":
        return _unfit(name, number + told, wanted, fix)
    return Finding(name, status, number + told, fix if status == "warning" else "")


def _unfit(name: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(name, "broken", f"{found}, tested with {wanted}", fix)


def imports() -> Iterator[Finding]:
    """What cannot be imported, tried in other processes, which a broken extension module may crash.

    Modules built for another numpy fail on import, with messages that do not say so.
    """
    for finding in _try(_MODULES):
        causes = list(_try(_CAUSES)) if finding.subject == "import tfopt" else []
        yield from causes or [finding]


def _try(modules: dict[str, str]) -> Iterator[Finding]:
    wanted = [module for module in modules if modules[module] not in _OPTIONAL or is_installed(module)]
    children = {module: _start(module) for module in wanted if module not in sys.modules}
    told = set()
    for module, child in children.items():
        try:
            errors = child.communicate(timeout=_LIMIT_SECONDS)[1]
        except subprocess.TimeoutExpired:
            child.kill()
            errors = child.communicate()[1] + f"\nTimeoutError: not done within {_LIMIT_SECONDS:g} s"
        detail = _reason(errors, child.returncode) if child.returncode else ""
        if detail and detail not in told:  # Keras fails as TensorFlow does
            told.add(detail)
            package = module.split(".")[0]
            yield Finding(f"import {package}", "broken", detail, _fix(package, modules[module], detail))


def _start(module: str) -> subprocess.Popen[str]:
    """A process that imports a module as this one would."""
    code = f"import sys; sys.path[:] = {sys.path!r}; import {module}"
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _reason(errors: str, code: int) -> str:
    """The first line of the last error, or how the process ended."""
    if code == -signal.SIGILL:
        return "it crashed with SIGILL: it was built for a processor with other instructions"
    found = list(_REASON.finditer(errors))
    if found:
        return errors[found[-1].start() :].splitlines()[0]
    return f"it crashed with {signal.Signals(-code).name}" if code < 0 else errors.strip()[-300:]


def _fix(package: str, name: str, detail: str) -> str:
    missing = re.search(r"No module named '(\w+)", detail)
    if missing and missing[1] in _BACKENDS:
        return "export KERAS_BACKEND=tensorflow"
    if missing:
        return f"pip install {name if missing[1] == package else missing[1]}"
    if name == "tensorflow-metadata" and "protobuf" in detail.lower():
        return f'pip install "{name}{_wanted(name)}"'
    if re.search("Invalid `.*` configuration", detail):
        return f"mend or remove {keras_home() / 'keras.json'}"
    hiding = _hiding(package, name)
    if hiding:
        return f"rename or remove {hiding}: Python finds it in place of the installed package"
    return f"pip install --force-reinstall --no-cache-dir {name} (it must match numpy)"


def _wanted(name: str) -> str:
    """The versions of a package that tfopt asks for."""
    try:
        return dict(_requirements("tfopt")).get(name, "")
    except PackageNotFoundError:
        return ""


def _hiding(package: str, name: str) -> pathlib.Path | None:
    """The file that is imported although the installed package is another."""
    spec = importlib.util.find_spec(package)
    try:
        installed = pathlib.Path(str(distribution(name).locate_file(package)))
    except PackageNotFoundError:
        return None
    if spec is None or spec.origin is None or not installed.is_dir():
        return None
    origin = pathlib.Path(spec.origin)
    return None if origin.is_relative_to(installed) else origin

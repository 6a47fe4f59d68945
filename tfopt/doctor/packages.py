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

from tfopt.doctor.finding import Finding
from tfopt.doctor.frameworks import keras_home

# Module -> distribution. What tfopt imports only where it is used, and tfopt itself:
_MODULES = {
    "sklearn.tree": "scikit-learn",
    "PIL.Image": "pillow",
    "matplotlib.pyplot": "matplotlib",
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "tfopt.optimizers": "tfopt",
}
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
    """Python, and every requirement of tfopt and of TensorFlow, such as that on numpy's version.

    Without tensorboard, which TF 2.21 no longer brings, keras-tuner fails with errors that do not say so.
    """
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    if importlib.util.find_spec("packaging") is None:
        yield Finding("packaging", "broken", "not installed", "pip install packaging")
        return
    known: set[str] = set()
    for owner in ("tfopt", "tensorflow", "keras"):
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


def _requirements(owner: str) -> Iterator[tuple[str, str]]:
    """(name, versions) of what a package needs."""
    from packaging.requirements import Requirement

    for line in requires(owner) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name, str(requirement.specifier)


def _version(name: str, wanted: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    fix = f'pip install "{name}{wanted}"'
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "broken", "not installed", fix)
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return Finding(name, "ok", found)
    return Finding(name, "broken", f"{found}, tested with {wanted}", fix)


def imports() -> Iterator[Finding]:
    """What cannot be imported, tried in other processes, which a broken extension module may crash.

    Modules built for another numpy fail on import, with messages that do not say so.
    """
    for finding in _try(_MODULES):
        causes = list(_try(_CAUSES)) if finding.subject == "import tfopt" else []
        yield from causes or [finding]


def _try(modules: dict[str, str]) -> Iterator[Finding]:
    children = {module: _start(module) for module in modules if module not in sys.modules}
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
    if re.search("Invalid `.*` configuration", detail):
        return f"mend or remove {keras_home() / 'keras.json'}"
    hiding = _hiding(package, name)
    if hiding:
        return f"rename or remove {hiding}: Python finds it in place of the installed package"
    return f"pip install --force-reinstall --no-cache-dir {name} (it must match numpy)"


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

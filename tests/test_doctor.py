"""`diagnose`: silent where all is well, and each known trap is found with its fix."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import keras
import pytest
import tensorflow as tf

from tfopt import _surroundings, doctor
from tfopt.cli import main
from tfopt.doctor import machine, packages


@pytest.fixture(autouse=True, scope="module")
def loaded():
    """What is imported already is not tried in another process."""
    for module in packages._MODULES:
        importlib.import_module(module)


def finding(subject):
    found = [entry for entry in doctor.diagnose() if entry.subject == subject]
    return found[0] if found else None


def test_a_sound_environment_is_not_broken():
    findings = doctor.diagnose()
    assert not doctor.is_broken(findings), [entry for entry in findings if entry.status == "broken"]
    assert {"python", "tensorflow", "keras", "tensorboard", "CPU"} <= {entry.subject for entry in findings}
    assert {"tensorflow-metal", "CUDA"}.isdisjoint(entry.subject for entry in findings)
    assert all(bool(entry.fix) == (entry.status != "ok") for entry in findings)
    assert json.loads(json.dumps([entry.as_dict() for entry in findings]))[0]["status"] == "ok"


@pytest.fixture
def installed(monkeypatch):
    """Changes what is installed: distribution=version, None for absent, "_" for "-" in names."""

    def change(**versions):
        changed = {name.replace("_", "-") if name != "tf_keras" else name: v for name, v in versions.items()}
        real = packages.version

        def version(name):
            if changed.get(name, "") is None:
                raise PackageNotFoundError(name)
            return changed.get(name) or real(name)

        monkeypatch.setattr(packages, "version", version)

    return change


def test_a_missing_requirement_is_broken(installed):
    installed(keras_tuner=None)
    assert finding("keras-tuner").status == "broken" and "pip install" in finding("keras-tuner").fix
    assert doctor.is_broken(doctor.diagnose())


def test_a_missing_extra_is_no_fault_and_names_its_install_line(installed):
    installed(matplotlib=None, tensorboard=None)
    for name, extra in (("matplotlib", "report"), ("tensorboard", "search")):
        assert finding(name).status == "ok" and f'pip install "tfopt[{extra}]"' in finding(name).detail
    assert not doctor.is_broken(packages.versions())


@pytest.mark.parametrize(
    ("versions", "status", "detail", "fix"),
    [
        ({"tensorflow_cpu": "2.20.0"}, "ok", "2.20.0 (tensorflow-cpu)", ""),
        ({"tensorflow_intel": "2.18.0"}, "ok", "2.18.0 (tensorflow-intel)", ""),
        ({"tf_nightly": "2.23.0.dev20261101"}, "warning", "untested", "uninstall tf-nightly; pip install"),
        ({"tensorflow_macos": "2.16.2"}, "broken", "2.16.2 (tensorflow-macos), tested with", "uninstall"),
        ({}, "broken", "not installed", "pip install"),
    ],
)
def test_other_distributions_of_tensorflow_are_known(versions, status, detail, fix, installed):
    installed(tensorflow=None, **versions)
    found = finding("tensorflow")
    assert found.status == status and detail in found.detail and fix in found.fix


def test_two_distributions_of_tensorflow_are_broken(installed):
    installed(tf_nightly="2.23.0")
    assert finding("tensorflow").status == "broken" and "write the same files" in finding("tensorflow").detail
    assert finding("tensorflow").fix.startswith(
        'pip uninstall tensorflow tf-nightly; pip install "tensorflow'
    )


def test_plugins_that_do_not_fit_are_warned_of(installed, monkeypatch):
    assert finding("tensorflow-metal") is None and finding("CUDA") is None
    monkeypatch.setattr(packages.builds.ctypes.util, "find_library", lambda name: None)
    for cuda in ("nvidia_cudnn_cu12", "nvidia_cudnn_cu13"):
        installed(**{"tensorflow_metal": "1.2.0", cuda: "9.3"})
        assert finding("tensorflow-metal").status == finding("CUDA").status == "warning"


def test_a_protobuf_that_breaks_tensorflow_datasets_names_the_version_to_install():
    detail = (
        "google.protobuf.runtime_version.VersionError: Detected incompatible Protobuf Gencode/Runtime "
        "versions when loading tensorflow_metadata/proto/v0/anomalies.proto: gencode 6.31.1 runtime 5.29.6."
    )
    assert packages._reason(f"Traceback (most recent call last):\n  File\n{detail}\n", 1) == detail
    fix = packages._fix("tensorflow_metadata", "tensorflow-metadata", detail)
    assert re.fullmatch(r'pip install "tensorflow-metadata(<1\.18,>=1\.17|>=1\.17,<1\.18)"', fix)


def test_untested_version_is_broken(monkeypatch):
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "3.0.0" if name == "keras" else real(name))
    assert finding("keras").status == "broken" and "3.0.0" in finding("keras").detail


def test_versions_that_tensorflow_does_not_take(monkeypatch):
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "1.25.0" if name == "numpy" else real(name))
    assert finding("numpy").status == "broken" and "numpy>=1.26" in finding("numpy").fix


def doctor_command(*options, **variables):
    """Exit code and findings by subject of the command in a process of its own."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    command = [sys.executable, "-m", "tfopt", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = {entry["subject"]: entry for entry in json.loads(done.stdout)}
    return done.returncode, found, {name for name, entry in found.items() if entry["status"] == "broken"}


@pytest.mark.process
def test_it_runs_where_tensorflow_cannot_be_imported(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    wrong = "raise ImportError('libcudart.so.12: cannot open shared object file')"
    (tmp_path / "tensorflow" / "__init__.py").write_text(wrong)
    abi = "numpy.dtype size changed, may indicate binary incompatibility"
    (tmp_path / "h5py.py").write_text(f"raise ValueError({abi!r})")
    (tmp_path / "sklearn.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    code, found, broken = doctor_command(PYTHONPATH=str(tmp_path), KERAS_BACKEND="torch")
    assert code == 1
    culprits = ("tensorflow", "keras", "h5py", "sklearn")
    assert broken == {*(f"import {name}" for name in culprits), "keras backend"}
    assert "libcudart.so.12" in found["import tensorflow"]["detail"]
    assert str(tmp_path / "tensorflow") in found["import tensorflow"]["fix"], "it is what hides the real one"
    assert abi in found["import h5py"]["detail"] and "SIGILL" in found["import sklearn"]["detail"]
    assert found["keras backend"]["fix"] == "export KERAS_BACKEND=tensorflow"
    assert found["python"]["status"] == found["CPU"]["status"] == "ok", "the rest is told all the same"


@pytest.mark.full
@pytest.mark.process
@pytest.mark.parametrize(
    ("variables", "broken"),
    [
        ({}, set()),
        ({"KERAS_BACKEND": "jax"}, {"import keras", "keras backend"}),
        ({"TF_USE_LEGACY_KERAS": "1"}, {"tf.keras"}),
    ],
)
def test_the_command_in_other_environments(variables, broken):
    code, found, bad = doctor_command(**variables)
    assert (code, bad) == (int(bool(broken)), broken)
    assert found["TF_USE_LEGACY_KERAS"]["fix"] if "tf.keras" in broken else len(found) > 15


@pytest.mark.parametrize(
    ("detail", "fix"),
    [
        ("ImportError: numpy.core.multiarray failed to import", "pip install --force-reinstall"),
        ("ModuleNotFoundError: No module named 'optree.ops'", "pip install optree"),
        ("ModuleNotFoundError: No module named 'keras'", "pip install keras"),
        ("ValueError: Invalid `floatx` configuration. Expected one of", "mend or remove .*keras.json"),
    ],
)
def test_the_fix_fits_the_error(detail, fix):
    assert re.match(fix, packages._fix("keras", "keras", detail))


def test_legacy_keras(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    assert finding("TF_USE_LEGACY_KERAS").status == "warning"
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    assert finding("TF_USE_LEGACY_KERAS") is None
    monkeypatch.setattr(tf.keras, "Model", object)
    assert finding("tf.keras").status == "broken" and "before" in finding("tf.keras").fix


def test_keras_settings(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    monkeypatch.setattr(keras.config, "floatx", lambda: "float16")
    assert finding("image_data_format").status == "broken" and finding("floatx").status == "warning"


def test_driver_without_gpu(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert finding("GPU").status == "warning" and "tfopt[gpu]" in finding("GPU").fix


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}, 0.5),
        ({}, None),
    ],
)
def test_container_quota(monkeypatch, files, cpus):
    monkeypatch.setattr(_surroundings, "system_text", lambda path: files.get(path.rpartition("/")[2], ""))
    assert _surroundings.usable_cpus() == (cpus or len(os.sched_getaffinity(0)))
    assert finding("threads").status == ("ok" if cpus is None else "warning")


def test_low_memory(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 1_000_000)
    assert finding("memory").status == "warning" and "container's limit" in finding("memory").fix


def test_low_disk_and_unwritable_folder(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    for free, status in ((1e8, "broken"), (1e9, "warning"), (1e10, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert finding("working folder").status == status

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "not" / "there"))
    assert finding("weights cache").status == "broken" and str(tmp_path) in finding("weights cache").detail
    assert "KERAS_HOME" in finding("weights cache").fix and "TMPDIR" in finding("temporary folder").fix
    assert finding("measurements cache").status == "warning"  # as on a home that is read-only


def test_the_command_exits_with_1_where_something_is_broken(monkeypatch, capsys):
    assert main(["doctor"]) == 0
    assert "ok       python: " in capsys.readouterr().out
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert main(["doctor", "--json"]) == 1
    found = {entry["subject"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert (
        found["image_data_format"]["status"] == "broken"
        and "channels_last" in found["image_data_format"]["fix"]
    )
    assert main(["doctor"]) == 1
    assert "broken   image_data_format: channels_first\n         fix: set " in capsys.readouterr().out

"""`diagnose`: silent where all is well, and each known trap is found with its fix."""

import importlib
import json
import os
import shutil
from importlib.metadata import PackageNotFoundError

import keras
import pytest
import tensorflow as tf

from tfopt import doctor
from tfopt.cli import main


def finding(subject):
    found = [entry for entry in doctor.diagnose() if entry.subject == subject]
    return found[0] if found else None


def test_a_sound_environment_is_not_broken():
    findings = doctor.diagnose()
    assert not doctor.is_broken(findings), [entry for entry in findings if entry.status == "broken"]
    assert {"python", "tensorflow", "keras", "tensorboard", "CPU"} <= {entry.subject for entry in findings}
    assert all(bool(entry.fix) == (entry.status != "ok") for entry in findings)
    assert json.loads(json.dumps([entry.as_dict() for entry in findings]))[0]["status"] == "ok"


def test_missing_tensorboard_is_broken(monkeypatch):
    real = doctor.version

    def version(name):
        if name == "tensorboard":
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    assert finding("tensorboard").status == "broken" and "pip install" in finding("tensorboard").fix
    assert doctor.is_broken(doctor.diagnose())


def test_untested_version_is_broken(monkeypatch):
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "3.0.0" if name == "keras" else real(name))
    assert finding("keras").status == "broken" and "3.0.0" in finding("keras").detail


def test_module_built_for_another_numpy(monkeypatch):
    real = importlib.import_module

    def import_module(name):
        if name == "h5py":
            raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert finding("import h5py").status == "broken" and "--force-reinstall" in finding("import h5py").fix
    assert finding("import sklearn") is None


def test_legacy_keras(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    assert finding("TF_USE_LEGACY_KERAS").status == "warning"
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    assert finding("TF_USE_LEGACY_KERAS") is None
    monkeypatch.setattr(tf.keras, "__version__", "2.21.0")
    assert finding("tf.keras").status == "broken" and "before" in finding("tf.keras").fix


def test_keras_settings(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    monkeypatch.setattr(keras.config, "floatx", lambda: "float16")
    assert finding("image_data_format").status == "broken" and finding("floatx").status == "warning"


def test_driver_without_gpu(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert finding("GPU").status == "warning" and "tfopt[gpu]" in finding("GPU").fix


@pytest.mark.parametrize(("quota", "cpus"), [("max 100000", None), ("50000 100000", 0.5)])
def test_container_quota(monkeypatch, quota, cpus):
    monkeypatch.setattr(doctor, "_read", lambda path: quota if path.endswith("cpu.max") else "")
    monkeypatch.setattr(os, "cpu_count", lambda: len(os.sched_getaffinity(0)))
    assert doctor.usable_cpus() == (cpus or len(os.sched_getaffinity(0)))
    assert finding("threads").status == ("ok" if cpus is None else "warning")


def test_low_memory(monkeypatch):
    monkeypatch.setattr(doctor, "_read", lambda path: "MemAvailable: 1000 kB" if "meminfo" in path else "")
    assert finding("memory").status == "warning"


def test_low_disk_and_unwritable_folder(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    for free, status in ((1e8, "broken"), (1e9, "warning"), (1e10, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert finding("working folder").status == status

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "not" / "there"))
    assert finding("weights cache").status == "broken" and str(tmp_path) in finding("weights cache").detail


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

"""Shared set-up: two logical CPU devices before TensorFlow starts, fixed seeds, paths of real data."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import pytest
import tensorflow as tf
import versions

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)

import tfopt  # registers every serialisable class
from tfopt.distribute import multiworker, replicas


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests that `make test-versions` runs on every combination of versions."""
    for item in items:
        if versions.is_marked(item.path.name, item.name):
            item.add_marker(pytest.mark.versions)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Every test starts from the same seed, with no layer names or graphs left over."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def little_garbage_collection():
    """What TensorFlow keeps of the graphs of one file is not searched for garbage in all that follow."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def two_replicas():
    """MirroredStrategy over two logical CPUs: one per process, several in one process fail."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def mended(two_replicas):
    """Keras as `make_strategy` mends it for several workers and replicas; afterwards as it was."""
    multiworker.mend(two_replicas)
    replicas.mend()
    yield
    tfopt.distribute.restore_keras()


def _path_from(variable: str) -> str:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set")
    return path


@pytest.fixture(scope="session")
def flowers_dir() -> str:
    """Folder with train/ and test/ of real photographs (12 classes); skipped without."""
    return _path_from("TFOPT_FLOWERS")


@pytest.fixture(scope="session")
def mobilenet_weights() -> str:
    """ImageNet weights of MobileNet alpha 0.25 without top; skipped without."""
    return _path_from("TFOPT_WEIGHTS")


@pytest.fixture(scope="session")
def lite0_path() -> str:
    """EfficientNet-Lite0 with its ImageNet classifier as a .keras file; skipped without."""
    return _path_from("TFOPT_LITE0")

"""make_strategy and describe on one machine: what is chosen, what is refused, and that training works."""

import logging
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.distribute import describe, make_strategy
from tfopt.distribute import devices as hardware
from tfopt.distribute import precision as policies
from tfopt.distribute.strategy import _choose


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def fitted(strategy) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 6)).astype("float32")
    y = x @ rng.normal(size=(6, 2)).astype("float32")
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


def test_auto_on_a_cpu_is_the_default_strategy_and_says_why(caplog):
    with caplog.at_level(logging.INFO, "tfopt.distribute"):
        strategy = make_strategy()
    assert strategy is tf.distribute.get_strategy()
    assert "no GPU is visible" in caplog.text
    assert describe(strategy).devices == ("CPU:0",)
    with strategy.scope():
        assert not tf.distribute.has_strategy()  # Keras takes its fast path


def test_mirrored_on_logical_cpus_equals_one_device(two_replicas):
    one, other = fitted(make_strategy()), fitted(make_strategy("cpu", devices=["cpu:1"]))
    for strategy in (two_replicas, make_strategy(devices=["/CPU:0", "CPU:1"])):
        for weights in zip(one, fitted(strategy), other):
            np.testing.assert_allclose(weights[1], weights[0], atol=1e-5)
            np.testing.assert_array_equal(weights[2], weights[0])


def test_describe_says_what_holds(policy):
    description = describe(make_strategy("mirrored", devices=2, precision="mixed_bfloat16"))
    assert (description.replicas, description.devices) == (2, ("CPU:0", "CPU:1"))
    assert str(description) == "MirroredStrategy, 2 replicas on CPU:0, CPU:1, mixed_bfloat16"


@pytest.mark.parametrize(
    ("gpus", "devices", "expected"),
    [
        (0, None, "cpu"),
        (1, None, "gpu"),
        (4, None, "mirrored"),
        (4, ["GPU:2"], "gpu"),
        (1, ["CPU:0"], "cpu"),
        (4, ["GPU:1", "GPU:3"], "mirrored"),
    ],
)
def test_auto_chooses_by_devices(monkeypatch, gpus, devices, expected):
    monkeypatch.setattr(hardware, "count", lambda kind: gpus if kind == "GPU" else 1)
    assert _choose("auto", devices)[0] == expected
    assert _choose("cpu", devices)[0] == "cpu"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"name": "cuda"}, ValueError, "'auto', 'cpu'"),
        ({"name": "gpu"}, ValueError, "sees no GPU"),
        ({"name": "mirrored"}, ValueError, "devices=2"),
        ({"devices": ["GPU:0"]}, ValueError, "among CPU:0, CPU:1"),
        ({"devices": ["gpu0"]}, ValueError, "Received: devices='gpu0'"),
        ({"devices": []}, ValueError, "non-empty"),
        ({"devices": ["CPU:0", "cpu:0"]}, ValueError, "repetitions"),
        ({"devices": 0}, ValueError, ">= 1"),
        ({"devices": 1.5}, TypeError, "integer"),
        ({"name": "cpu", "devices": 2}, ValueError, "one CPU"),
        ({"devices": 3}, RuntimeError, "already initialized. Call `make_strategy` first"),
        ({"threads": 1}, RuntimeError, "already initialized. Call `make_strategy` first"),
        ({"threads": 0}, ValueError, "threads"),
        ({"precision": "float16"}, ValueError, "mixed_float16"),
    ],
)
def test_bad_arguments_are_refused_with_a_fix(arguments, error, text):
    tf.constant(0) + 1  # TensorFlow runs
    with pytest.raises(error, match=text):
        make_strategy(**arguments)


def test_inside_another_scope_is_refused(two_replicas):
    with two_replicas.scope(), pytest.raises(RuntimeError, match="inside the scope"):
        make_strategy()


@pytest.mark.parametrize(
    ("kind", "capabilities", "flags", "expected"),
    [
        ("TPU", [], set(), "mixed_bfloat16"),
        ("GPU", [(9, 0), (8, 0)], set(), "mixed_bfloat16"),
        ("GPU", [(8, 0), (7, 5)], set(), "mixed_float16"),
        ("GPU", [(6, 1)], set(), "float32"),
        ("CPU", [], {"avx512f", "avx512_bf16"}, "float32"),
        ("CPU", [], {"amx_bf16"}, "mixed_bfloat16"),
    ],
)
def test_auto_precision_follows_the_hardware(monkeypatch, kind, capabilities, flags, expected):
    monkeypatch.setattr(policies, "_compute_capabilities", lambda: capabilities)
    monkeypatch.setattr(policies, "_cpu_flags", lambda: flags)
    assert policies.fast_policy(kind) == expected


def test_precision_changes_only_when_asked(policy, monkeypatch):
    make_strategy()
    assert keras.config.dtype_policy().name == "float32"
    monkeypatch.setattr(policies, "_cpu_flags", lambda: {"amx_bf16"})
    make_strategy(precision="auto")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


@pytest.mark.process
def test_settings_hold_in_a_fresh_process():
    code = (
        "import tfopt, tensorflow as tf\n"
        "from tfopt.distribute.devices import have_started\n"
        "before = have_started()\n"
        "strategy = tfopt.distribute.make_strategy(devices=3, threads=2)\n"
        "print(tfopt.distribute.describe(strategy), tf.config.threading.get_inter_op_parallelism_threads())\n"
        "tfopt.distribute.make_strategy('cpu', threads=2)\n"  # the number that it has
        "print(before, have_started())"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=600)
    assert output.splitlines() == [
        "MirroredStrategy, 3 replicas on CPU:0, CPU:1, CPU:2, float32, 2 threads 2",
        "False True",
    ]

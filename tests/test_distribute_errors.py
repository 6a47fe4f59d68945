"""What cannot work is refused in words: clusters from the environment, peers, scopes, options of Keras."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import tfopt
from tfopt.distribute import make_strategy, multiworker, replicas, spawn
from tfopt.distribute._environment import reserved_addresses
from tfopt.distribute.cluster import Cluster, read_cluster, wait_for_peers

WORKERS = ["a.example:5000", "b.example:5000", "b.example:5001"]
SLURM = {
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "n[01-02,07],gpu-3.lan",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2),2,1",
    "SLURM_PROCID": "3",
    "SLURM_JOB_ID": "40123",
}


def tf_config(cluster, task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_clusters_are_read_from_tf_config():
    found = read_cluster(tf_config({"worker": WORKERS}, {"type": "worker", "index": 2}))
    assert found == Cluster(tuple(WORKERS), 2, 1, 2, "TF_CONFIG")
    with_chief = {"chief": WORKERS[:1], "worker": WORKERS[1:]}
    assert read_cluster(tf_config(with_chief, {"type": "worker", "index": 0})).index == 1
    assert read_cluster(tf_config(with_chief, {"type": "chief", "index": 0})).index == 0
    assert read_cluster(tf_config({"worker": WORKERS[:1]}, {"type": "worker", "index": 0})) is None
    assert read_cluster({"TF_CONFIG": "{}"}) is None and read_cluster({}) is None


def test_clusters_are_read_from_slurm():
    found = read_cluster(SLURM)
    port = 20000 + 40123 % 20000
    assert found.workers == tuple(
        f"{host}:{port + k}" for host, k in [("n01", 0), ("n02", 0), ("n07", 0), ("n07", 1), ("gpu-3.lan", 0)]
    )
    assert (found.index, found.local_index, found.local_workers) == (3, 1, 2)
    assert read_cluster({"SLURM_STEP_NUM_TASKS": "1"}) is None
    one_node = SLURM | {"SLURM_STEP_NODELIST": "n1", "SLURM_STEP_TASKS_PER_NODE": "5"}
    assert read_cluster(one_node).local_workers == 5
    both = SLURM | tf_config({"worker": WORKERS}, {"type": "worker", "index": 0})
    assert read_cluster(both).source == "TF_CONFIG"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"TF_CONFIG": "{'cluster'"}, r"TF_CONFIG is malformed.*\"host:port\".*Received: TF_CONFIG="),
        ({"TF_CONFIG": "[1]"}, "malformed"),
        (tf_config({"worker": ["a", "b"]}, {"type": "worker", "index": 0}), "malformed"),
        (tf_config({"worker": WORKERS}, {"type": "worker", "index": 3}), "worker 3 must be among"),
        (tf_config({"worker": WORKERS}, {"type": "worker", "index": "x"}), "malformed"),
        (tf_config({"worker": WORKERS}, {"type": "evaluator", "index": 0}), "malformed"),
        (tf_config({"worker": WORKERS, "ps": ["c:1"]}, {"type": "ps", "index": 0}), "--data-workers"),
        (SLURM | {"SLURM_PROCID": "5"}, "SLURM_PROCID is malformed: an integer below 5"),
        (SLURM | {"SLURM_STEP_NODELIST": "n[01-x]"}, "SLURM_STEP_NODELIST is malformed"),
        (SLURM | {"SLURM_STEP_NODELIST": "n[07-01]"}, "SLURM_STEP_NODELIST is malformed"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "two"}, r"such as 2\(x3\),1"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "5"}, "4 nodes but task counts for 1"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "no SLURM_STEP_NODELIST. Start the script with `srun`"),
    ],
)
def test_malformed_environments_are_refused(environment, text, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=text):
        make_strategy()


def test_parameter_servers_are_refused_with_alternatives():
    with pytest.raises(ValueError, match=r'make_strategy\("multiworker"\).*`tfopt launch --data-workers M`'):
        make_strategy("parameter_server")


def test_multiworker_needs_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="`tfopt launch -n 2 script.py`"):
        make_strategy("multiworker")


def test_a_missing_peer_is_named_after_the_time_limit():
    with reserved_addresses(2) as (own, missing):
        begin = time.monotonic()
        text = f"Worker 0 could not reach {missing} within 0.5 s.*TF_CONFIG.*connect_seconds"
        with pytest.raises(TimeoutError, match=text):
            wait_for_peers(Cluster((own, missing), 0, 0, 2, "TF_CONFIG"), 0.5)
        assert time.monotonic() - begin < 5


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"port \d+ \({address}\) is taken"):
            wait_for_peers(Cluster((address, "127.0.0.1:1"), 0, 0, 2, "TF_CONFIG"), 1.0)


@pytest.mark.process
def test_a_cluster_after_tensorflow_has_started_is_refused():
    code = "import tensorflow as tf, tfopt; tf.constant(1) + 1; tfopt.distribute.make_strategy()"
    with reserved_addresses(1) as (own,), socket.create_server(("127.0.0.1", 0)) as peer:
        workers = [own, f"127.0.0.1:{peer.getsockname()[1]}"]
        environment = os.environ | tf_config({"worker": workers}, {"type": "worker", "index": 0})
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert "already initialized. Call `make_strategy` first" in done.stderr.splitlines()[-1]


@pytest.mark.process
def test_a_missing_tpu_is_refused_with_alternatives():
    code = "import tfopt; tfopt.distribute.make_strategy('tpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert "The TPU 'local' could not be initialized" in done.stderr
    assert '`make_strategy("cpu")` trains without one' in done.stderr


def network() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


DATA = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")


def test_models_and_optimizers_from_outside_the_scope_are_refused(two_replicas, mended):
    outside = network()
    with two_replicas.scope():
        outside.compile("sgd", "mse")
    with pytest.raises(ValueError, match="The model `.*` was made outside of `strategy.scope"):
        outside.fit(*DATA, verbose=0)
    with two_replicas.scope():
        inside = network()
    inside.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    with pytest.raises(ValueError, match="The optimizer `.*` was made outside of `strategy.scope"):
        inside.fit(*DATA, verbose=0)


@pytest.mark.parametrize(
    ("options", "optimizer", "text"),
    [
        ({"steps_per_execution": 2}, {}, "Use steps_per_execution=1"),
        ({"jit_compile": True}, {}, "Use jit_compile=False"),
        ({}, {"gradient_accumulation_steps": 2}, "tfopt.optimizers.GradientAccumulation"),
        ({}, {"use_ema": True, "ema_overwrite_frequency": 1}, "tfopt.callbacks.WeightAveraging"),
    ],
)
def test_what_keras_cannot_do_on_replicas_is_refused(options, optimizer, text, two_replicas, mended):
    with two_replicas.scope():
        model = network()
        model.compile(keras.optimizers.Adam(**optimizer), "mse", **{"jit_compile": False, **options})
    with pytest.raises(ValueError, match=text):
        model.fit(*DATA, verbose=0)


def test_the_mend_is_removable_and_pinned_to_the_versions_it_was_checked_on(two_replicas):
    """A new Keras fails here first: run `make test-versions` and the worker tests, then add its version."""
    assert keras.__version__.rsplit(".", 1)[0] in ("3.12", "3.13", "3.14", "3.15", "3.16")
    trainer, theirs = multiworker.trainer, multiworker._Trainer
    before = trainer.reduce_per_replica, theirs._maybe_symbolic_build, theirs._get_metrics_result_or_logs
    seeds = keras.random.SeedGenerator.next
    assert multiworker.mend(two_replicas) == ["_maybe_symbolic_build", "BatchNormalization"]
    replicas.mend()
    assert theirs._maybe_symbolic_build is not before[1] and keras.random.SeedGenerator.next is not seeds
    tfopt.distribute.restore_keras()
    after = trainer.reduce_per_replica, theirs._maybe_symbolic_build, theirs._get_metrics_result_or_logs
    assert after == before and keras.random.SeedGenerator.next is seeds


@pytest.mark.parametrize(
    ("function", "options", "text"),
    [
        (lambda: 1, {}, "top level of a module"),
        (print, {"workers": 0}, "workers"),
        (print, {"timeout_seconds": 0.0}, "timeout_seconds"),
    ],
)
def test_spawn_refuses_what_it_cannot_run(function, options, text):
    with pytest.raises((ValueError, TypeError), match=text):
        spawn(function, **options)


@pytest.mark.process
def test_spawn_reports_failures_and_ends_at_its_time_limit():
    with pytest.raises(RuntimeError, match=r"Worker \d failed with exit code 1:(.|\n)*ZeroDivisionError"):
        spawn(divmod, 2, args=(1, 0))
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="within 2 s"):
        spawn(time.sleep, 2, args=(60,), timeout_seconds=2.0)
    assert time.monotonic() - begin < 20
    assert spawn(divmod, 2, args=(7, 2)) == [(3, 1), (3, 1)]


@pytest.mark.process
def test_spawned_workers_end_with_their_parent(tmp_path):
    code = "import time; from tfopt.distribute import spawn; spawn(time.sleep, 2, args=(600,), output=None)"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        children = f"/proc/{parent.pid}/task/{parent.pid}/children"
        deadline = time.monotonic() + 120
        while len(found := pathlib.Path(children).read_text().split()) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        parent.kill()
    assert len(found) == 2
    deadline = time.monotonic() + 60  # they must have started Python to notice
    while any(map(is_running, found)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(is_running, found))


def is_running(process: str) -> bool:
    stat = pathlib.Path("/proc") / process / "stat"
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"

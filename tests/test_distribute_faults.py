"""Workers that are killed, stopped or preempted: what is restarted ends bit-identical, nothing hangs."""

import io
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from workers import killed

from tfopt.distribute import launch
from tfopt.distribute._environment import reserved_addresses

pytestmark = pytest.mark.process
SCRIPT = str(pathlib.Path(__file__).parent / "workers" / "killed.py")
KILL, TERM, STOP = 9, 15, 19
UPDATES = 32


def train(
    folder: pathlib.Path, kind: str, *deaths: str, restarts: int | None = None
) -> list[dict[str, np.ndarray]]:
    """What each worker ends with; one restart after every death."""
    output = io.StringIO()
    command = [SCRIPT, str(folder), kind, *deaths]
    restarts = len(deaths) if restarts is None else restarts
    code = launch(command, max_restarts=restarts, grace_seconds=1.0, output=output, log_dir=folder)
    assert code == 0, output.getvalue()[-4000:]
    return [dict(np.load(folder / f"end-{worker}.npz")) for worker in range(2)]


def assert_identical(found: list[dict], expected: list[dict]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    result = train(tmp_path_factory.mktemp("whole"), "sharded")
    assert all(UPDATES in array for worker in result for array in worker.values() if array.ndim == 0)
    return result


def test_killed_and_preempted_workers_end_like_an_uninterrupted_run(whole, tmp_path):
    found = train(tmp_path, "sharded", f"0:5:{KILL}", f"1:13:{TERM}")
    assert_identical(found, whole)
    for worker in range(2):  # both heard of the signal that one of them got
        log = (tmp_path / f"worker-{worker}.log").read_text()
        assert re.search(r"^Resume: stops in epoch \d", log, re.MULTILINE), log


@pytest.mark.parametrize("worker", [0, 1], ids=["chief", "worker"])
@pytest.mark.parametrize(
    "number",
    [KILL, pytest.param(STOP, marks=pytest.mark.full)],
    ids=["killed", "silent"],  # silent as a machine without power: its peers see no closed connection
)
def test_a_dead_peer_ends_the_others(number, worker, tmp_path):
    with reserved_addresses(2) as addresses:
        command = [sys.executable, "-m", "tfopt", "launch", "--grace", "0", "--log-dir", str(tmp_path)]
        script = [SCRIPT, str(tmp_path), "sharded", f"{worker}:9:{number}"]
        launchers = [
            subprocess.Popen([*command, "--hosts", ",".join(addresses), "--index", str(index), *script])
            for index in range(2)
        ]
        try:
            code = launchers[1 - worker].wait(timeout=240)
            ended = time.time()
        finally:
            for launcher in launchers:
                launcher.terminate()
                launcher.wait(timeout=60)
    assert code not in (0, 128 + TERM)
    assert ended - os.path.getmtime(tmp_path / "died") < 15


@pytest.mark.full
@pytest.mark.parametrize("worker", [0, 1], ids=["chief", "worker"])
def test_a_slow_peer_is_waited_for(worker, whole, tmp_path):
    begin = time.monotonic()
    assert_identical(train(tmp_path, "sharded", f"{worker}:9:0", restarts=0), whole)
    assert time.monotonic() - begin > 30


def test_one_process_saves_on_term_at_the_next_batch_and_goes_on(tmp_path, monkeypatch):
    killed.main(tmp_path / "whole", "sharded")
    monkeypatch.setenv("TFOPT_ATTEMPT", "0")
    with pytest.raises(SystemExit) as ended:
        killed.main(tmp_path / "ended", "sharded", f"0:5:{TERM}")
    assert ended.value.code == 128 + TERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setenv("TFOPT_ATTEMPT", "1")
    killed.main(tmp_path / "ended", "sharded", f"0:5:{TERM}")
    found, expected = (dict(np.load(tmp_path / name / "end-0.npz")) for name in ("ended", "whole"))
    assert_identical([found], [expected])


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sharded", "pipeline", "arrays"])
def test_ten_kills_at_random_points(kind, tmp_path):
    expected = train(tmp_path / "whole", kind)
    draw = random.Random(0)
    updates = sorted(draw.sample(range(1, UPDATES), 10 if kind == "sharded" else 3))
    deaths = [f"{draw.randrange(2)}:{update}:{KILL}" for update in updates]
    assert_identical(train(tmp_path / "killed", kind, *deaths), expected)

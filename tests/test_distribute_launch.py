"""`tfopt launch`: what it gives to workers, how it ends them, restarts, logs; mostly with plain scripts."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tfopt.distribute import launch
from tfopt.distribute._environment import own_index, reserved_addresses, worker_environment
from tfopt.distribute._isolation import private_network
from tfopt.distribute.launching import python_arguments

pytestmark = pytest.mark.process

TASK = "import json, os; task = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


@pytest.fixture
def run(tmp_path):
    """Launches a script given by its text: exit code, output, seconds."""

    def call(text: str, **options) -> tuple[int, str, float]:
        script = tmp_path / "script.py"
        script.write_text(TASK + text)
        output = io.StringIO()
        begin = time.monotonic()
        code = launch([str(script), str(tmp_path)], output=output, **options)
        return code, output.getvalue(), time.monotonic() - begin

    return call


def test_workers_get_addresses_threads_and_prefixes(run):
    code, output, _ = run(
        "import sys\n"
        "threads = os.environ['TF_NUM_INTRAOP_THREADS']\n"
        "print(json.dumps([task, os.environ['TF_CONFIG'], threads, sys.argv[1:]]))",
        workers=3,
    )
    assert code == 0
    lines = dict(line.removeprefix("[").split("] ", 1) for line in output.splitlines())
    found = {name: json.loads(text) for name, text in lines.items()}
    assert {name: task for name, (task, *_) in found.items()} == {"0": 0, "1": 1, "2": 2}
    configs = [json.loads(config) for _, config, *_ in found.values()]
    addresses = configs[0]["cluster"]["worker"]
    assert all(config["cluster"]["worker"] == addresses for config in configs)
    assert len(set(addresses)) == 3 and all(address.startswith("127.0.0.1:") for address in addresses)
    share = str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert all(threads == share and len(arguments) == 1 for *_, threads, arguments in found.values())


def test_the_first_failure_ends_all_with_its_code(run):
    code, output, seconds = run(
        "import sys, time\n"
        "time.sleep(0.3) if task else time.sleep(60)\n"
        "print('failing', flush=True)\nsys.exit(7)"
    )
    assert code == 7 and seconds < 20
    assert output == "[1] failing\n"


def test_a_worker_that_ignores_term_is_killed_after_the_grace_and_its_children_too(run, tmp_path):
    code, _, seconds = run(
        "import pathlib, signal, subprocess, sys, time\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "if task == 0:\n"
        "    signal.signal(signal.SIGTERM, lambda *_: (here / 'asked').touch())\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, 1);'"
        "                              'time.sleep(60)'])\n"
        "    (here / 'child').write_text(str(child.pid))\n"
        "    while True: time.sleep(0.1)\n"
        "while not (here / 'child').exists(): time.sleep(0.05)\n"
        "time.sleep(0.3)\nos.kill(os.getpid(), signal.SIGKILL)",
        grace_seconds=1.0,
    )
    assert code == 128 + signal.SIGKILL and 1.0 < seconds < 20
    assert (tmp_path / "asked").exists()
    child = int((tmp_path / "child").read_text())
    assert _ends(child), f"process {child} lives on"


def test_what_a_failed_worker_leaves_behind_is_ended(run, tmp_path):
    code, _, _ = run(
        "import pathlib, subprocess, sys\n"
        "if task == 0:\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    (pathlib.Path(sys.argv[1]) / 'child').write_text(str(child.pid))\n"
        "    sys.exit(5)"
    )
    assert code == 5
    assert _ends(int((tmp_path / "child").read_text()))


def _ends(process: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for, within 5 s."""
    for _ in range(100):
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_restarts_number_their_attempts_and_append_to_logs(run, tmp_path):
    logs = tmp_path / "logs"
    code, output, _ = run(
        "import sys\nattempt = os.environ['TFOPT_ATTEMPT']\nprint('attempt', attempt, flush=True)\n"
        "sys.exit(3 if task and attempt != '2' else 0)",
        max_restarts=3,
        log_dir=logs,
    )
    assert code == 0
    assert (logs / "worker-1.log").read_text() == "attempt 0\nattempt 1\nattempt 2\n"
    assert "[1] attempt 2" in output and "attempt 3" not in output
    code, _, _ = run("import sys\nsys.exit(4 if task else 0)", max_restarts=1)
    assert code == 4


def test_a_signal_to_the_launcher_ends_the_workers_without_a_restart(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        TASK + "import time\nprint(os.getpid(), os.environ['TFOPT_ATTEMPT'], flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-m", "tfopt", "launch", "-n", "2", "--max-restarts", "5", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        workers = [launcher.stdout.readline().split() for _ in range(2)]
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=30) == 128 + signal.SIGTERM
        assert launcher.stdout.read() == ""
    assert [attempt for *_, attempt in workers] == ["0", "0"]
    assert all(_ends(int(process)) for _, process, _ in workers)


def test_the_command_passes_flags_of_the_script_through(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TASK + "import sys\nprint(sys.argv[1:])\nsys.exit(9)")
    command = [sys.executable, "-m", "tfopt", "launch", "-n", "1", "--log-dir", str(tmp_path / "logs")]
    done = subprocess.run([*command, str(script), "--epochs", "3", "-n", "5"], capture_output=True, text=True)
    assert done.returncode == 9
    assert done.stdout == "[0] ['--epochs', '3', '-n', '5']\n"
    assert (tmp_path / "logs" / "worker-0.log").exists()


def test_one_worker_per_host(run):
    hosts = ["127.0.0.1:5001", "192.0.2.7:5001"]  # the second is nobody's (RFC 5737)
    assert own_index(hosts) == 0
    code, output, _ = run("print(os.environ['TF_CONFIG'])", hosts=hosts)
    assert code == 0
    config = json.loads(output.removeprefix("[0] "))
    assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 0}}
    code, output, _ = run("print(task)", hosts=hosts, index=1)
    assert (code, output) == (0, "[1] 1\n")


ISOLATED = (
    "import pathlib, socket, sys, time\n"
    "here = pathlib.Path(sys.argv[1])\n"
    "if task == 0:\n"
    "    server = socket.create_server(('0.0.0.0', 0))\n"  # as TensorFlow's, on all interfaces
    "    (here / 'port.part').write_text(str(server.getsockname()[1]))\n"
    "    (here / 'port.part').rename(here / 'port')\n"
    "    server.accept()\n"
    "    while not (here / 'tried').exists(): time.sleep(0.05)\n"
    "else:\n"
    "    while not (here / 'port').exists(): time.sleep(0.05)\n"
    "    socket.create_connection(('127.0.0.1', int((here / 'port').read_text())), timeout=30)\n"
)


def test_isolated_workers_reach_each_other_and_nobody_reaches_them(run, tmp_path):
    try:
        with private_network():
            pass
    except RuntimeError as error:
        pytest.skip(str(error))
    refused = []

    def knock():
        while not (tmp_path / "port").exists():
            time.sleep(0.05)
        try:
            socket.create_connection(("127.0.0.1", int((tmp_path / "port").read_text())), timeout=5).close()
        except OSError:
            refused.append(True)
        (tmp_path / "tried").touch()

    stranger = threading.Thread(target=knock, daemon=True)
    stranger.start()
    code, output, _ = run(ISOLATED, isolate=True)
    assert (code, output, refused) == (0, "", [True])


def test_launcher_and_spawn_do_not_import_tensorflow():
    """It takes seconds and 600 MB, in the launcher and in every spawned process that may not need it."""
    code = (
        "import sys, tfopt.cli.launch, tfopt.distribute.spawning; from tfopt.distribute import launch\n"
        "launch(['-c', 'pass'], output=None)\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gpus_are_counted_by_the_driver(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: str(tool))
    given = [worker_environment(["a:1", "b:1"], k, k, 2)["CUDA_VISIBLE_DEVICES"] for k in range(2)]
    assert given == ["0", "1"]


def test_a_system_without_namespaces_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="it needs Linux with `unshare`.*firewall"):
        launch(["script.py"], isolate=True)


def test_open_ports_are_announced_unless_nobody_reaches_them(run, caplog):
    run("pass")
    assert "listen on all network interfaces, without authentication" in caplog.text
    caplog.clear()
    run("pass", workers=1)
    assert not caplog.text


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["finetune", "--data", "x"], ["-m", "tfopt", "finetune", "--data", "x"]),
        (["tfopt", "lr-find"], ["-m", "tfopt", "lr-find"]),
        (["train.py", "-n", "3"], ["train.py", "-n", "3"]),
        (["-m", "package.module"], ["-m", "package.module"]),
    ],
)
def test_commands_of_tfopt_are_launched_by_name(command, expected):
    assert python_arguments(command) == python_arguments(expected) == expected


def test_a_script_named_like_a_command_is_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "finetune").write_text("")
    assert python_arguments(["finetune"]) == ["finetune"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"data_workers": 1.5}, "data_workers"),
        ({"grace_seconds": -1.0}, "grace_seconds"),
        ({"hosts": ["192.0.2.7:1", "192.0.2.8:1"]}, r"\(none are\).*`index`"),
        ({"hosts": ["127.0.0.1:1", "127.0.0.1:2"]}, r"\(several are\)"),
        ({"hosts": ["127.0.0.1:1", "192.0.2.7:1"], "index": 2}, "index"),
        ({"hosts": ["somewhere"], "index": 0}, "host:port"),
        ({"hosts": [], "index": 0}, "hosts"),
        ({"hosts": ["a:1", "b:1"], "index": 0, "isolate": True}, "isolate"),
        ({"hosts": ["a:1", "b:1"], "index": 0, "data_workers": 1}, "TFOPT_DATA_SERVICE"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises((ValueError, TypeError), match=text):
        launch(["script.py"], **options)


def test_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    given = [worker_environment(["a:1", "b:1"], k, k, 2)["CUDA_VISIBLE_DEVICES"] for k in range(2)]
    assert given == ["4,6", "5,7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")  # fewer than workers: all see it
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(["a:1", "b:1"], 0, 0, 2)


def test_ports_are_free_and_stay_reserved():
    with reserved_addresses(4) as addresses:
        ports = [int(address.rsplit(":", 1)[1]) for address in addresses]
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", ports[0]))
            other.listen()
        assert len(set(ports)) == 4

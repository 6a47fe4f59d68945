"""`tfopt doctor --cluster`: several workers, as threads, tell each other what they have."""

import json
import pathlib
import socket
import threading

import pytest

from tfopt.cli import main
from tfopt.distribute.cluster import Cluster
from tfopt.doctor import is_broken, workers


def addresses(count):
    """Ports that are free."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return found


def together(places, running=None, seconds=20.0, **options):
    """The findings of each worker that runs; options are lists, an entry for each worker, or one for all."""
    found = {}

    def work(index):
        own = {name: each[index] if isinstance(each, list) else each for name, each in options.items()}
        cluster = Cluster(places, index, index, len(places), "TF_CONFIG")
        found[index] = workers.check_cluster(cluster, seconds=seconds, **own)

    indices = range(len(places)) if running is None else running
    threads = [threading.Thread(target=work, args=(index,), name=str(index)) for index in indices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_workers_that_are_alike_are_fine_and_leave_nothing_behind(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.jpg").write_bytes(b"picture")
    found = together(addresses(3), data=str(tmp_path / "data"), folder=str(tmp_path / "runs"))
    assert found[0] == found[1] == found[2] and not is_broken(found[0])
    assert [finding.status for finding in found[0]] == ["ok"] * 6
    assert [finding.subject for finding in found[0]][3:] == ["versions", "data", "shared folder"]
    assert "files 1" in found[0][4].detail and list((tmp_path / "runs").iterdir()) == []


def test_differences_are_named_with_the_worker(tmp_path, monkeypatch):
    for name, content in (("a", b"picture"), ("b", b"other picture")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(content)
    real = workers._versions

    def versions():
        return real() | ({"keras": "2.15.0"} if threading.current_thread().name == "1" else {})

    monkeypatch.setattr(workers, "_versions", versions)
    folders = [str(tmp_path / name) for name in "aab"]
    found = together(addresses(3), data=folders, folder=folders)[0]
    states = {finding.subject: finding for finding in found}
    assert is_broken(found) and states["versions"].status == states["data"].status == "broken"
    assert "worker 1" in states["versions"].detail and "'keras': '2.15.0'" in states["versions"].detail
    assert "worker 2" in states["data"].detail and "copy" in states["data"].fix.lower()
    assert states["shared folder"].status == "warning" and "worker 2" in states["shared folder"].detail
    assert all(bool(finding.fix) == (finding.status != "ok") for finding in found)


def test_a_worker_that_does_not_answer_is_named(monkeypatch):
    places = addresses(3)
    found = together(places, running=[0, 1], seconds=1.0)
    broken = {finding.subject: finding.detail for finding in found[0] if finding.status == "broken"}
    assert broken[f"worker 2 ({places[2]})"] == "does not answer the chief"
    assert places[2] in broken[f"worker 1 ({places[1]})"]
    monkeypatch.setattr(workers, "_ask", lambda *_: {})
    (alone,) = together(places, running=[1], seconds=0.2)[1]
    assert alone.status == "broken" and "the chief has told no result" in alone.detail


def test_missing_data_is_broken_also_if_it_is_missing_everywhere(tmp_path):
    found = together(addresses(2), data=str(tmp_path / "nothing"))[0]
    assert found[-1].status == "broken" and "nothing" in found[-1].detail


def test_a_clock_that_is_off_is_a_warning(monkeypatch):
    class Clock:
        monotonic, sleep = staticmethod(workers.time.monotonic), staticmethod(workers.time.sleep)

        @staticmethod
        def time():
            is_chief = threading.current_thread().name == "0"
            return workers_time() + (0 if is_chief else 100)

    workers_time = workers.time.time
    monkeypatch.setattr(workers, "time", Clock)
    found = together(addresses(2))[0]
    assert found[1].status == "warning" and "+100.0 s" in found[1].detail and "chrony" in found[1].fix


def test_the_command_needs_workers_and_tells_once(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert main(["doctor", "--cluster"]) == 1
    assert "srun tfopt doctor --cluster" in capsys.readouterr().err
    places = addresses(2)
    config = {"cluster": {"worker": list(places)}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    other = threading.Thread(target=together, args=(places, [1]), kwargs={"folder": str(tmp_path)}, name="1")
    other.start()
    assert main(["doctor", "--cluster", "--output", str(tmp_path), "--timeout", "20", "--json"]) == 0
    other.join()
    subjects = [finding["subject"] for finding in json.loads(capsys.readouterr().out)]
    assert subjects == [
        *(f"worker {i} ({place})" for i, place in enumerate(places)),
        "versions",
        "shared folder",
    ]
    assert pathlib.Path(tmp_path).is_dir()


@pytest.mark.parametrize("content", [b"", b"[]\n", b"not json\n"])
def test_strange_questions_do_no_harm(content):
    (place,) = addresses(1)
    with workers._Server(place, None):
        host, port = place.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(content)
        assert workers._ask(place, {"ask": "time"})["time"] > 0

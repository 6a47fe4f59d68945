"""`tfopt doctor --cluster`: whether the workers of a job reach each other and are alike, before it begins."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import secrets
import socket
import threading
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import Any, final

from tfopt.distribute.cluster import Cluster, answers, listen, split_address
from tfopt.doctor.finding import Finding

PACKAGES = ("tfopt", "tensorflow", "keras", "numpy")
MOST_SECONDS_APART = 2.0  # of clocks: logs, certificates and `make` go wrong beyond
_LINE = 2**24  # bytes of an answer at most
_MARK = ".tfopt-doctor-"


def check_cluster(
    cluster: Cluster, *, data: str | None = None, folder: str | None = None, seconds: float = 60.0
) -> list[Finding]:
    """Compares the workers of a cluster; each of them calls it, and all get the same findings.

    It listens at the port that each worker has in the cluster, which is free again when it returns, and needs
    no TensorFlow.

    Args:
        cluster: Which workers there are, and which this process is.
        data: Folder or file that all workers must have with the same content: names and sizes are compared.
        folder: Folder that all workers must share, such as that of `--output`; small files are written there
            and deleted again.
        seconds: How long to wait for workers that do not answer.
    """
    deadline = time.monotonic() + seconds
    with _Server(cluster.workers[cluster.index], folder) as server:
        server.report = _report(cluster, server, data, deadline)
        server.is_ready.set()
        if cluster.index:
            server.is_over.wait(max(0.0, deadline - time.monotonic()) + seconds)
            return server.findings or [_silent_chief(cluster)]
        reports = _reports(cluster, server, deadline)
        findings = _compared(cluster, reports, data, folder)
        text = [finding.as_dict() for finding in findings]
        for index, address in enumerate(cluster.workers[1:], 1):
            if reports[index]:
                _ask(address, {"ask": "end", "findings": text})
        return findings


def _reports(cluster: Cluster, server: "_Server", deadline: float) -> list[dict[str, Any]]:
    """What each worker says of itself; nothing for those that do not answer."""
    reports = [server.report]
    for address in cluster.workers[1:]:
        found = _ask(address, {"ask": "report"}, max(5.0, deadline - time.monotonic() + 5.0))
        if found:
            started = time.time()
            theirs = _ask(address, {"ask": "time"}).get("time", started)
            found["apart"] = theirs - (started + time.time()) / 2
        reports.append(found)
    for index, address in enumerate(cluster.workers):  # after all reports: by now every mark is written
        if reports[index]:
            reports[index]["marks"] = _ask(address, {"ask": "marks"}).get("marks", [])
    return reports


def _compared(
    cluster: Cluster, reports: list[dict[str, Any]], data: str | None, folder: str | None
) -> list[Finding]:
    findings = []
    names = [f"worker {index} ({address})" for index, address in enumerate(cluster.workers)]
    for name, report in zip(names, reports):
        if not report:
            fix = "Start it, open its port in the firewall, and check its address in TF_CONFIG or --hosts."
            findings.append(Finding(name, "broken", "does not answer the chief", fix))
            continue
        apart = report.get("apart", 0.0)
        unreached = ", ".join(cluster.workers[index] for index in report["unreached"])
        if unreached:
            fix = "Open these ports between the workers: each sends gradients to others."
            findings.append(Finding(name, "broken", f"does not reach {unreached}", fix))
        elif abs(apart) > MOST_SECONDS_APART:
            fix = "Synchronize the clocks, as with chrony or systemd-timesyncd."
            findings.append(Finding(name, "warning", f"its clock is {apart:+.1f} s from the chief's", fix))
        else:
            findings.append(Finding(name, "ok", f"host {report['host']}, clock {apart:+.2f} s"))
    present = {name: report for name, report in zip(names, reports) if report}
    findings.append(_same(present, "versions", "Install the same versions on all workers."))
    if data is not None:
        fix = "Copy the data again, or read it from a folder that all workers share."
        findings.append(_same(present, "data", fix))
    if folder is not None:
        findings.append(_shared(present, folder))
    return findings


def _same(reports: dict[str, Any], key: str, fix: str) -> Finding:
    """Whether all workers report the same."""
    values = {name: json.dumps(report[key], sort_keys=True) for name, report in reports.items()}
    usual, _ = Counter(values.values()).most_common(1)[0]
    others = [name for name, value in values.items() if value != usual]
    text = ", ".join(f"{name} {value}" for name, value in json.loads(usual).items())
    if not others:
        missing = json.loads(usual).get("missing")
        return Finding(key, "broken" if missing else "ok", text, fix if missing else "")
    found = json.loads(values[others[0]])
    different = {name: found.get(name) for name in found if found.get(name) != json.loads(usual).get(name)}
    detail = f"differ on {', '.join(others)}: {different} instead of {text}"
    return Finding(key, "broken", detail, fix)


def _shared(reports: dict[str, Any], folder: str) -> Finding:
    wanted = {report["mark"] for report in reports.values()}
    lacking = [name for name, report in reports.items() if not wanted <= set(report["marks"])]
    if not lacking:
        return Finding("shared folder", "ok", f"{folder} is one folder for all")
    fix = "With --output on the chief's own disk this is no fault; to resume on another machine, share it."
    return Finding("shared folder", "warning", f"{folder} is another folder on {', '.join(lacking)}", fix)


def _silent_chief(cluster: Cluster) -> Finding:
    fix = "Its own output says what it misses; check that it runs `tfopt doctor --cluster`, too."
    return Finding(f"worker 0 ({cluster.workers[0]})", "broken", "the chief has told no result", fix)


def _report(cluster: Cluster, server: "_Server", data: str | None, deadline: float) -> dict[str, Any]:
    """What this worker finds on its own machine, and which others it does not reach."""
    missing = [index for index in range(len(cluster.workers)) if index != cluster.index]
    while missing and time.monotonic() < deadline:
        missing = [index for index in missing if not answers(cluster.workers[index])]
        time.sleep(0.1 if missing else 0.0)
    return {
        "host": socket.gethostname(),
        "versions": _versions(),
        "data": None if data is None else _listing(data),
        "unreached": missing,
        "mark": server.mark,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _listing(path: str) -> dict[str, Any]:
    """Number, size and a hash of the names and sizes of all files."""
    root = pathlib.Path(path).expanduser()
    if not root.exists():
        return {"missing": str(root)}
    files = [root] if root.is_file() else sorted(each for each in root.rglob("*") if each.is_file())
    sizes = [file.stat().st_size for file in files]
    digest = hashlib.blake2b(digest_size=8)
    for file, size in zip(files, sizes):
        digest.update(f"{file.relative_to(root)} {size}\n".encode(errors="surrogateescape"))
    return {"files": len(files), "bytes": sum(sizes), "names": digest.hexdigest()}


def _ask(address: str, question: dict[str, Any], seconds: float = 10.0) -> dict[str, Any]:
    """The answer of a worker, or nothing."""
    try:
        with socket.create_connection(split_address(address), timeout=seconds) as connection:
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as lines:
                found = json.loads(lines.readline(_LINE))
            return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


@final
class _Server:
    """Answers the other workers at this worker's address, while it is entered."""

    def __init__(self, address: str, folder: str | None) -> None:
        self._socket, self._folder = listen(address), folder
        self.mark, self.report = secrets.token_hex(8), {"mark": ""}
        self.is_ready, self.is_over = threading.Event(), threading.Event()
        self.findings: list[Finding] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Server":
        if self._folder is not None:
            pathlib.Path(self._folder).expanduser().mkdir(parents=True, exist_ok=True)
            self._path.write_text(self.mark, encoding="utf-8")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept`, which else would keep the port
        self._socket.close()
        self._thread.join(5.0)
        if self._folder is not None:
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> pathlib.Path:
        return pathlib.Path(self._folder or "").expanduser() / f"{_MARK}{self.mark}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
            question = json.loads(lines.readline(_LINE) or b"{}")
            if not isinstance(question, dict):
                return
            connection.sendall(json.dumps(self._answer(question)).encode() + b"\n")
            if question.get("ask") == "end":
                self.is_over.set()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        kind = question.get("ask")
        if kind == "report":
            self.is_ready.wait()
            return self.report
        if kind == "marks" and self._folder is not None:
            names = os.listdir(pathlib.Path(self._folder).expanduser())
            return {"marks": [name.removeprefix(_MARK) for name in names if name.startswith(_MARK)]}
        if kind == "end":
            self.findings = [Finding(**each) for each in question.get("findings", [])]
        return {"time": time.time()}

"""`tfopt doctor`: what is wrong with this environment, and how to mend it."""

import argparse
import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfopt.doctor import Finding


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "doctor",
        help="what is wrong with this environment?",
        description="Checks versions, devices and known traps, and says how to mend each.",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    cluster = command.add_argument_group("workers")
    cluster.add_argument(
        "--cluster",
        action="store_true",
        help="compare the workers that TF_CONFIG or Slurm names: connections, versions, clocks, data. Start "
        "it on all of them, as a training: srun tfopt doctor --cluster",
    )
    cluster.add_argument("--data", metavar="PATH", help="files that all workers must have alike")
    cluster.add_argument("--output", metavar="FOLDER", help="folder that all workers must share")
    cluster.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="to wait for a worker (default: 60)"
    )
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from tfopt.doctor import diagnose, is_broken

    findings = _of_cluster(parsed) if parsed.cluster else diagnose()
    if findings is None:
        return 0
    if parsed.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:<8} {finding.subject}: {finding.detail}")
            if finding.fix:
                print(f"{'':<8} fix: {finding.fix}")
    return 1 if is_broken(findings) else 0


def _of_cluster(parsed: argparse.Namespace) -> "list[Finding] | None":
    """What the workers find together; None on a worker whose chief says it.

    Raises:
        ValueError: If the environment names no other worker.
    """
    from tfopt.distribute.cluster import read_cluster
    from tfopt.doctor.workers import check_cluster

    cluster = read_cluster(os.environ)
    if cluster is None:
        raise ValueError(
            "--cluster compares several workers, and neither TF_CONFIG nor Slurm names them. Start it as a "
            "training: `srun tfopt doctor --cluster`, or on each machine "
            "`tfopt launch --hosts A:PORT,B:PORT --index I doctor --cluster`."
        )
    found = check_cluster(cluster, data=parsed.data, folder=parsed.output, seconds=parsed.timeout)
    return found if cluster.index == 0 or "the chief has told no result" in found[0].detail else None

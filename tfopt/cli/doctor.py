"""`tfopt doctor`: what is wrong with this environment, and how to mend it."""

import argparse
import dataclasses
import json
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "doctor",
        help="what is wrong with this environment?",
        description="Checks versions, devices and known traps, and says how to mend each.",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from tfopt.doctor import diagnose, is_broken

    findings = diagnose()
    if parsed.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:<8} {finding.subject}: {finding.detail}")
            if finding.fix:
                print(f"{'':<8} fix: {finding.fix}")
    return 1 if is_broken(findings) else 0

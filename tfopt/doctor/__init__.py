"""`tfopt doctor`: what this environment has, what is wrong with it and how to mend it.

Nothing here imports TensorFlow or Keras before another process has shown that they can be imported.
"""

from collections.abc import Sequence

from tfopt.doctor import frameworks, machine, packages
from tfopt.doctor.finding import Finding

__all__ = ["Finding", "diagnose", "is_broken"]


def diagnose() -> list[Finding]:
    """Looks at packages, devices, threads, folders and known traps, and returns one finding for each.

    Use it when something does not work, and paste its output into a bug report. It changes nothing and
    needs no network. The command exits with status 1 if `is_broken` says so.

    Example:
        >>> from tfopt.doctor import diagnose
        >>> [finding.subject for finding in diagnose()][0]
        'python'
    """
    imports = list(packages.imports())
    findings = [*packages.versions(), *imports, *frameworks.environment()]
    if not is_broken(imports):
        findings += [*frameworks.settings(), *frameworks.gpus()]
    return [*findings, *machine.processors(), *machine.memory(), *machine.folders()]


def is_broken(findings: Sequence[Finding]) -> bool:
    """Whether anything will fail."""
    return any(finding.status == "broken" for finding in findings)

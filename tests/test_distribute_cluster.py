"""examples/cluster/: the job descriptions parse, and what they start finds the workers they describe."""

import argparse
import pathlib
import re
import shlex
import subprocess

import pytest

from tfopt.cli import launch as command
from tfopt.distribute._environment import check_hosts, check_index

FOLDER = pathlib.Path(__file__).parent.parent / "examples" / "cluster"


def documents(name: str) -> list[dict]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def check_pod(template: dict) -> dict:
    """What Kubernetes wants of every pod; returns the one container."""
    (container,) = template["spec"]["containers"]
    assert {"name", "image", "command", "ports"} <= container.keys()
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", container["image"]), "a fixed version"
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert all(isinstance(value, str) for value in container["resources"]["requests"].values())
    return container


def test_the_slurm_script_starts_one_worker_per_task():
    text = (FOLDER / "slurm.sh").read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    assert options["signal"] == "TERM@60" and "requeue" in options
    assert re.search(r"^srun --kill-on-bad-exit=1 python", text, re.MULTILINE)


def test_the_tfjob_has_workers_only():
    (job,) = documents("tfjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    replicas = job["spec"]["tfReplicaSpecs"]
    assert set(replicas) == {"Worker"} and replicas["Worker"]["replicas"] > 1
    assert replicas["Worker"]["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    container = check_pod(replicas["Worker"]["template"])
    assert container["name"] == "tensorflow"  # the operator finds the container by this name
    assert container["ports"][0]["name"] == "tfjob-port"


def test_the_kubernetes_job_launches_every_worker_at_its_address():
    service, policy, job = documents("kubernetes_job.yaml")
    assert (service["kind"], policy["kind"], job["kind"]) == ("Service", "NetworkPolicy", "Job")
    name, spec = job["metadata"]["name"], job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    container = check_pod(spec["template"])
    start, words = shlex.split(container["args"][0])[:3], shlex.split(container["args"][0])[3:]
    assert start == ["exec", "tfopt", "launch"]
    parsed = parse(words)
    pod, domain = f"{name}-{{}}.{spec['template']['spec']['subdomain']}", service["metadata"]["name"]
    port = container["ports"][0]["containerPort"]
    assert parsed.hosts == [f"{pod.format(k)}:{port}" for k in range(spec["completions"])]
    assert pod.endswith(f".{domain}") and service["spec"]["clusterIP"] == "None"
    check_hosts(parsed.hosts)
    assert check_index(3, parsed.hosts) == 3 and parsed.script == "train.py"
    labels = {"job-name": name}
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of `tfopt launch`, as in the fourth pod."""
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    return parser.parse_args(["launch", *(word.replace("$JOB_COMPLETION_INDEX", "3") for word in words)])

"""A program: two API replicas, two conductors, two Ray nodes and an agent, as docker-compose.yml has them; and a job.

python compose_job.py FOLDER DATABASE_URL      prints one JSON object
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from compose_stack import BIN, Stack
from isolation import bring_up_loopback
from whole_job import data_set, network, probed, until

from netlathe import Client

PARTS = ("ray-head", "ray-worker", "api-1", "api-2", "conductor-1", "conductor-2")
JOB: dict[str, Any] = {
    "name": "through-compose",
    "model": "stripes",
    "dataset": "stripes",
    "limits": {"max_accuracy_drop": 0.3},
    "methods": ["filter_prune"],
    "strategies": ["random"],
    "budget": {"evaluations": 8, "wall_s": 600, "finalists": 1},
    "training": {"epochs": 1, "augment": "none"},
}


def up(stack: Stack) -> None:
    """What `docker compose up` does, in the order that depends_on allows."""
    stack.run("migrate")
    for name in PARTS:
        stack.start(name)
        if name == "ray-head":
            stack.await_healthy(name)
    for name in ("ray-worker", "api-1", "api-2"):
        stack.await_healthy(name)


def enrolled(stack: Stack, client: Client) -> str:
    """The device of an agent that has used its token; the token is made by the command that docs/compose.md has."""
    command = [str(BIN / "netlathe"), *["tokens", "create", "compose", "--kind", "enrolment", "--days", "1"]]
    known = {"NETLATHE_URL": client.url, "NETLATHE_TOKEN": (stack.folder / "data" / "user-token").read_text().strip()}
    made = subprocess.run(command, env=known, capture_output=True, text=True, check=True)
    stack.keep_secret("enrolment_token", made.stdout)
    stack.start("agent")
    until(lambda: len(client.devices.list()) == 1, "the device")
    (device,) = client.devices.list()
    client.devices.import_table(device.name, probed())
    return device.name


def main(folder: Path, database_url: str, isolated: bool) -> dict[str, Any]:
    arguments = {"agent": ["--machine", "bench", "--runtime", "simulated"]}
    with Stack(folder, database_url, isolated, arguments=arguments) as stack:
        up(stack)
        with stack.client("api-1") as one, stack.client("api-2") as other:
            until(lambda: other.ready()["executor"] == "ok" and other.ready()["conductors"] == 2, "the conductors")
            device = enrolled(stack, one)
            for name, content in (("stripes.onnx", network()), ("stripes.npz", data_set())):
                (folder / name).write_bytes(content)
            one.models.create(folder / "stripes.onnx", "stripes")
            other.datasets.create(folder / "stripes.npz", "stripes")
            job = other.jobs.create(targets=[{"device": device, "max_latency_ratio": 0.85}], **JOB)
            ended = one.jobs.wait(job.id)
            (folder / "kept").mkdir()
            files = other.jobs.download(job.id, folder / "kept")
            told = {
                "state": ended.state,
                "verdict": ended.verdict,
                "failure": None if ended.failure is None else vars(ended.failure),
                "ready": one.ready(),
                "evaluations": [[each.fidelity, each.status] for each in other.jobs.evaluations(job.id)],
                "files": sorted(path.name for path in files),
                "logs": {name: stack.log(name)[-1500:] for name in ("conductor-1", "conductor-2", "agent")},
            }
        return {**told, "ended": stack.end()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], bring_up_loopback())) + "\n")

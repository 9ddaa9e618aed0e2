"""What the tests of agents, leases and devices share: an agent spoken by hand, blocks of known latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.testclient import TestClient

from hw_profiles.ops import Constant, Op, OpNode, TensorSpec
from service.files.secret_values import new_secret
from service.store import Store, tokens
from service.store.devices import work_items

OFFER = {"name": "simulated", "version": "1", "settings": {"threads": 1, "kind": "simulated"}}


def enrolment(machine: str = "bench", **changes: Any) -> dict[str, Any]:
    """The body of an enrolment."""
    body = {
        "protocol": 1,
        "name": f"{machine}-agent",
        "machine": machine,
        "runtimes": [OFFER],
        "self_test": {"ok": True},
        "fingerprint": machine,
    }
    return body | changes


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def enrolment_token(store: Store, name: str = "first") -> str:
    """A one-time enrolment token."""
    secret = new_secret("enrolment")
    with store.begin() as tx:
        tokens.create(tx, "enrolment", name, secret)
    return secret


class HandAgent:
    """An agent without a runtime: every request by hand, with latencies that the test chooses."""

    def __init__(self, http: TestClient, store: Store, machine: str = "bench", **changes: Any) -> None:
        self.http = http
        secret = enrolment_token(store, f"for-{machine}")
        answer = http.post("/api/v1/agents", json=enrolment(machine, **changes), headers=bearer(secret))
        assert answer.status_code == 201, answer.text
        self.id: str = answer.json()["agent_id"]
        self.secret: str = answer.json()["token"]
        self.device_ids: list[str] = answer.json()["device_ids"]

    @property
    def device_id(self) -> str:
        return self.device_ids[0]

    def call(self, method: str, path: str, body: object = None) -> Any:
        return self.http.request(method, f"/api/v1{path}", json=body, headers=bearer(self.secret))

    def ask(self, max_items: int = 64) -> Any:
        body = {"agent_id": self.id, "device_ids": self.device_ids, "max_items": max_items}
        return self.call("POST", "/leases", body)

    def lease(self, max_items: int = 64) -> dict[str, Any]:
        answer = self.ask(max_items)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def put(self, lease: Mapping[str, Any], key: str, result: Mapping[str, Any]) -> Any:
        return self.call("PUT", f"/leases/{lease['id']}/results/{key}", result)

    def put_ok(self, lease: Mapping[str, Any], key: str, latency_us: float = 10.0) -> None:
        answer = self.put(lease, key, block_result(lease["epoch"], latency_us))
        assert answer.status_code == 200, answer.text

    def beat(self, lease_id: str | None = None) -> str:
        answer = self.call("POST", f"/agents/{self.id}/heartbeat", {"state": "working", "lease_id": lease_id})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["action"])

    def finish(self, lease: Mapping[str, Any], latency_us: Mapping[str, float] | None = None) -> None:
        """Report every anchor and item of a lease of blocks, and complete it."""
        known = latency_us or {}
        for item in [*lease["anchors"], *lease["items"]]:
            self.put_ok(lease, item["key"], known.get(item["key"], 10.0))
        answer = self.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]})
        assert answer.status_code == 200, answer.text


def bursts(latency_us: float, rounds: int = 5) -> dict[str, Any]:
    """Bursts that all take the same time."""
    return {"minima_us": [latency_us] * rounds, "medians_us": [latency_us] * rounds}


def block_result(epoch: int, latency_us: float) -> dict[str, Any]:
    """The result of a block of this latency: one and four copies behind a call of 70 us."""
    return {"epoch": epoch, "bursts": bursts(70.0 + 4 * latency_us), "single": bursts(70.0 + latency_us)}


def network_result(epoch: int, latency_us: float) -> dict[str, Any]:
    return {"epoch": epoch, "bursts": bursts(latency_us)}


def conv(out_channels: int, in_channels: int = 4) -> Op:
    """A small convolution."""
    return Op.of(
        [OpNode("Conv", ("in", "weight"), ("out",), (("pads", (1, 1, 1, 1)),))],
        inputs={"in": (TensorSpec((1, in_channels, 8, 8)), "conv")},
        constants={"weight": Constant(TensorSpec((out_channels, in_channels, 3, 3)))},
        outputs=["out"],
        opset=17,
    )


def fill(store: Store, device_id: str, ops: Sequence[Op]) -> None:
    """Ask for rows, the first op first."""
    with store.begin() as tx:
        work_items.fill(tx, device_id, ops, [float(len(ops) - i) for i in range(len(ops))])

"""The wire types: bounds, unknown keys in answers, round trips."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import BurstProtocol, Sample
from hw_profiles.wire.enrolment import Enrolled, RuntimeOffer
from hw_profiles.wire.heartbeat import Heartbeat, HeartbeatAnswer
from hw_profiles.wire.lease import Lease, LeaseRequest, Protocol
from hw_profiles.wire.result import Bursts, Completion, Result, Surrender

LEASE: dict[str, Any] = {
    "id": "lse_1",
    "epoch": 3,
    "device_id": "dev_1",
    "items": [{"key": "a", "kind": "block", "sha256": "0" * 64, "single_sha256": "1" * 64, "expected_us": 5.0}],
    "protocol": {"min_rounds": 5, "max_rounds": 5},
    "anchors": [],
    "expires_at": "2026-01-01T00:00:30+00:00",
}


def test_a_lease_is_read_with_keys_of_a_later_version() -> None:
    later = json.loads(json.dumps(LEASE | {"colour": "red"}))
    later["items"][0]["flavour"] = "sweet"
    lease = Lease.from_json(later)
    assert lease.items[0].files == ("0" * 64, "1" * 64)
    assert lease.protocol.bursts() == BurstProtocol(min_rounds=5, max_rounds=5)
    assert Lease.from_json(lease.to_json()) == lease


@pytest.mark.parametrize("missing", ["id", "epoch", "items", "protocol"])
def test_a_lease_without_a_field_is_refused(missing: str) -> None:
    with pytest.raises(InvalidInput, match=missing):
        Lease.from_json({name: value for name, value in LEASE.items() if name != missing})


def test_no_object_at_all() -> None:
    with pytest.raises(InvalidInput, match="must be an object"):
        HeartbeatAnswer.from_json(["continue"])


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(InvalidInput, match="continue, cancel, drain"):
        HeartbeatAnswer.from_json({"action": "explode"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e12, True])
def test_impossible_timings_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="minima_us"):
        Bursts((value,), (1.0,))
    with pytest.raises(InvalidInput, match="medians_us"):
        Bursts((1.0,), (value,))


def test_bursts_carry_a_sample_there_and_back() -> None:
    sample = Sample("a", (1.0, 2.0), (3.0, 4.0), {"suspect": "unsettled"})
    assert Bursts.from_json(json.loads(json.dumps(Bursts.of(sample).to_json()))).sample("a") == sample


def test_an_offer_is_the_device_it_was_made_of() -> None:
    device = DeviceConfig("bench", "cpu", "onnxruntime", "1.31.1", 2, options=(("a", "b"),))
    assert RuntimeOffer.of(device).device("bench") == device


def test_the_protocol_of_the_wire_is_the_timing_protocol() -> None:
    protocol = BurstProtocol(seed=7, min_rounds=20)
    assert Protocol.of(protocol).bursts() == protocol
    with pytest.raises(InvalidInput, match="max_rounds"):
        Protocol(min_rounds=9, max_rounds=3)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Result(1), "bursts"),
        (lambda: Result(1, bursts=Bursts((1.0,), (1.0,)), failure="crash"), "bursts"),
        (lambda: Result(1, failure="bored"), "failure"),
        (lambda: Result(1, failure="crash", single=Bursts((1.0,), (1.0,))), "single"),
        (lambda: Result(1, failure="crash", reason="x" * 2001), "reason"),
        (lambda: Heartbeat("idle", done=-1), "done"),
        (lambda: Heartbeat("idle", temperature_c=math.nan), "temperature_c"),
        (lambda: Heartbeat("asleep"), "state"),
        (lambda: LeaseRequest("agt_1", ()), "device_ids"),
        (lambda: LeaseRequest("agt_1", ("dev_1",), 65), "max_items"),
        (lambda: Completion(1, elapsed_s=math.inf), "elapsed_s"),
        (lambda: Surrender(1, "no spaces"), "error_class"),
    ],
)
def test_each_message_names_the_wrong_field(make: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field


def test_a_token_is_not_shown() -> None:
    assert "nl_a_secret" not in repr(Enrolled("agt_1", "nl_a_secret", ("dev_1",)))

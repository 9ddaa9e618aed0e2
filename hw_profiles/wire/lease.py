"""A lease: work that the server gives to an agent for one of its devices."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal, Self, get_args

from hw_profiles.device import ONNX, SUFFIX_PATTERN
from hw_profiles.timing.protocol import BurstProtocol
from hw_profiles.wire.bounds import DIGEST, MAX_BURSTS, MAX_ITEMS, MAX_LATENCY_US
from hw_profiles.wire.message import Message, in_range, known, matches, one_of, short

ItemKind = Literal["block", "network", "fusion", "check"]
ITEM_KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
_SUFFIX = re.compile(SUFFIX_PATTERN)


@dataclass(frozen=True)
class LeaseRequest(Message):
    """`POST /leases`. `kinds` has the kinds of items that the agent handles; if it is missing, the agent can only time
    models.
    """

    agent_id: str
    device_ids: tuple[str, ...]
    max_items: int = MAX_ITEMS
    kinds: tuple[ItemKind, ...] = ("block", "network")

    def __post_init__(self) -> None:
        short("agent_id", self.agent_id, 64)
        in_range("device_ids", len(self.device_ids), 1, 64)
        for device_id in self.device_ids:
            short("device_ids", device_id, 64)
        in_range("max_items", self.max_items, 1, MAX_ITEMS)
        for kind in self.kinds:
            one_of("kinds", kind, ITEM_KINDS)


@dataclass(frozen=True)
class Item(Message):
    """One model to time, or (`fusion`) a network whose fused kernels are to be found, or (`check`) a network to convert
    and run.

    `sha256` is the digest of the file. A block also has `single_sha256`, for the same model with one copy of the block;
    the block's latency is the slope between the two models. For a check, `single_sha256` is the digest of the file of
    samples (`hw_profiles.wire.arrays`). `expected_us` is a guess at the time of one run, from which deadlines are set.
    `suffix` is the ending of a network's file: `.onnx`, or the ending of the engine's own files.
    """

    key: str
    kind: ItemKind
    sha256: str
    single_sha256: str | None = None
    expected_us: float | None = None
    suffix: str = ONNX

    def __post_init__(self) -> None:
        matches("key", self.key, re.compile(r"[A-Za-z0-9_.-]{1,80}"))
        one_of("kind", self.kind, ITEM_KINDS)
        matches("sha256", self.sha256, DIGEST)
        if self.single_sha256 is not None:
            matches("single_sha256", self.single_sha256, DIGEST)
        if self.expected_us is not None:
            in_range("expected_us", self.expected_us, 0, MAX_LATENCY_US)
        matches("suffix", self.suffix, _SUFFIX)

    @property
    def files(self) -> tuple[str, ...]:
        """Digests of all files of this item."""
        return (self.sha256,) if self.single_sha256 is None else (self.sha256, self.single_sha256)


@dataclass(frozen=True)
class Protocol(Message):
    """`hw_profiles.timing.protocol.BurstProtocol` on the wire."""

    warm_runs: int = 1
    timed_runs: int = 6
    min_rounds: int = 5
    max_rounds: int = 60
    round_step: int = 5
    split_half: float = 0.01
    round_s: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("warm_runs", "timed_runs", "min_rounds", "max_rounds", "round_step"):
            in_range(name, getattr(self, name), 0, MAX_BURSTS)
        in_range("split_half", self.split_half, 0, 1)
        in_range("round_s", self.round_s, 0, 60)
        in_range("seed", self.seed, 0, 2**63 - 1)
        self.bursts()

    @classmethod
    def of(cls, protocol: BurstProtocol) -> Protocol:
        """Return the wire form of a protocol."""
        return cls(**asdict(protocol))

    def bursts(self) -> BurstProtocol:
        """Return the protocol itself; making it does the remaining checks."""
        return BurstProtocol(**asdict(self))


@dataclass(frozen=True)
class Lease(Message):
    """Work for one device, valid until `expires_at` (ISO 8601, UTC); each heartbeat extends it.

    The agent returns `epoch` with every result, so that the server can refuse results of an agent that lost the lease.
    `anchors` are blocks of known latency; their results are sent first and give the session's scale.
    """

    id: str
    epoch: int
    device_id: str
    items: tuple[Item, ...]
    protocol: Protocol
    anchors: tuple[Item, ...]
    expires_at: str

    @classmethod
    def from_json(cls, data: object) -> Self:
        found = known(cls, data)
        for name in ("items", "anchors"):
            found[name] = tuple(Item.from_json(item) for item in found[name])
        found["protocol"] = Protocol.from_json(found["protocol"])
        return cls(**found)

"""The agents' REST types, version 1 of the protocol; the routes use these same classes.

Frozen dataclasses that check themselves, so that the agent needs no schema library; the service reads the same classes
through pydantic, which sees `__pydantic_config__` and refuses unknown keys. Every number from an agent is checked to be
finite and bounded, because an agent may be wrong or lie.

Agents ignore unknown keys in answers (`from_json`); version 1 only gains optional fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, Self, get_args

from hw_profiles.device import NAME_PATTERN, ONNX, SUFFIX_PATTERN, DeviceConfig, DeviceKind
from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import BurstProtocol, Sample
from hw_profiles.wire.message import Message, in_range, known, matches, one_of, short

PROTOCOL = 1
HEARTBEAT_S = 10.0
LEASE_S = 30.0
MAX_ITEMS = 64
MAX_LATENCY_US = 3.6e9
"""An hour for one run: a larger value is an error of the agent, not a slow device."""
MAX_BURSTS = 10_000
MAX_NODES = 100_000
"""Maximum number of nodes of one network; an answer that names more is wrong."""

AgentState = Literal["idle", "working", "draining"]
Action = Literal["continue", "cancel", "drain", "removed"]
ItemKind = Literal["block", "network", "fusion", "check"]
ITEM_KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
FailureKind = Literal["error", "crash", "timeout"]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

_MACHINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_NAME = re.compile(NAME_PATTERN)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(SUFFIX_PATTERN)


@dataclass(frozen=True)
class RuntimeSettings(Message):
    """One way to run a runtime; `options` are the runtime's own settings by name, `suffix` the ending of its file
    names.
    """

    threads: int
    dtype: str = "fp32"
    kind: DeviceKind = "cpu"
    emulated: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ONNX

    def __post_init__(self) -> None:
        in_range("threads", self.threads, 1, 1024)
        one_of("kind", self.kind, get_args(DeviceKind))
        matches("dtype", self.dtype, _NAME)
        in_range("options", len(self.options), 0, 64)
        for name, value in self.options.items():
            short("options", name, 64)
            short(f"options.{name}", value, 256)
        matches("suffix", self.suffix, _SUFFIX)


@dataclass(frozen=True)
class RuntimeOffer(Message):
    """A runtime, its version and one set of settings: one device."""

    name: str
    version: str
    settings: RuntimeSettings

    def __post_init__(self) -> None:
        matches("name", self.name, _NAME)
        short("version", self.version, 64)

    @classmethod
    def of(cls, device: DeviceConfig) -> RuntimeOffer:
        """Make the offer of a device configuration."""
        settings = RuntimeSettings(
            device.threads, device.dtype, device.kind, device.emulated, dict(device.options), device.suffix
        )
        return cls(device.runtime, device.runtime_version, settings)

    def device(self, machine: str) -> DeviceConfig:
        """Return the device configuration that is offered. Raises InvalidInput if its name is not valid."""
        return DeviceConfig(
            machine=machine,
            kind=self.settings.kind,
            runtime=self.name,
            runtime_version=self.version,
            threads=self.settings.threads,
            dtype=self.settings.dtype,
            emulated=self.settings.emulated,
            options=tuple(sorted(self.settings.options.items())),
            suffix=self.settings.suffix,
        )


@dataclass(frozen=True)
class SelfTest(Message):
    """The agent's findings when it timed a model of one node with each runtime; `facts` describe the machine.

    `null_us`: quiet latency of that model by device name, microseconds.
    """

    ok: bool
    detail: str = ""
    null_us: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        short("detail", self.detail)
        in_range("null_us", len(self.null_us), 0, 256)
        for name, value in self.null_us.items():
            in_range(f"null_us.{name:.64}", value, 0, MAX_LATENCY_US)
        in_range("facts", len(self.facts), 0, 64)
        for name, text in self.facts.items():
            short("facts", name, 64)
            short(f"facts.{name}", text, 256)


@dataclass(frozen=True)
class Enrolment(Message):
    """`POST /agents`, and `PUT /agents/{id}` when an enrolled agent starts again.

    `name` is the agent's name; `machine` is part of its devices' names. `fingerprint` distinguishes two machines with
    the same name.
    """

    protocol: int
    name: str
    machine: str
    runtimes: tuple[RuntimeOffer, ...]
    self_test: SelfTest
    fingerprint: str = ""

    def __post_init__(self) -> None:
        in_range("protocol", self.protocol, 0, 1_000_000)
        matches("name", self.name, _NAME)
        matches("machine", self.machine, _MACHINE)
        in_range("runtimes", len(self.runtimes), 1, 64)
        short("fingerprint", self.fingerprint, 64)


@dataclass(frozen=True)
class Enrolled(Message):
    """The answer to an enrolment: `device_ids` in the order of the offered runtimes; `token` is empty in the answer to
    PUT.
    """

    agent_id: str
    token: str = field(repr=False)
    device_ids: tuple[str, ...]
    heartbeat_s: float = HEARTBEAT_S

    def __post_init__(self) -> None:
        in_range("heartbeat_s", self.heartbeat_s, 0.01, 3600)

    @classmethod
    def from_json(cls, data: object) -> Self:
        found = known(cls, data)
        return cls(**{**found, "device_ids": tuple(str(item) for item in found["device_ids"])})


@dataclass(frozen=True)
class Heartbeat(Message):
    """`POST /agents/{id}/heartbeat`: `done` of `total` models of the lease, if there is one."""

    state: AgentState
    lease_id: str | None = None
    done: int = 0
    total: int = 0
    temperature_c: float | None = None
    load: float | None = None

    def __post_init__(self) -> None:
        one_of("state", self.state, get_args(AgentState))
        if self.lease_id is not None:
            short("lease_id", self.lease_id, 64)
        in_range("done", self.done, 0, 1e9)
        in_range("total", self.total, 0, 1e9)
        if self.temperature_c is not None:
            in_range("temperature_c", self.temperature_c, -100, 500)
        if self.load is not None:
            in_range("load", self.load, 0, 1e6)


@dataclass(frozen=True)
class HeartbeatAnswer(Message):
    """The server's instruction. `cancel`: drop the lease. `drain`: finish it and take no more. `removed`: the devices
    with these ids were deleted and must not be requested again; repeated until the agent announces itself again.
    """

    action: Action
    device_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("action", self.action, get_args(Action))


@dataclass(frozen=True)
class LeaseRequest(Message):
    """`POST /leases`. `kinds`: the kinds of items that the agent handles; an agent that does not send it only times."""

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
    """One model to time, or (`fusion`) a network whose fused kernels are wanted, or (`check`) one to convert and run.

    `sha256` is the file. A block also has `single_sha256`, the same model with one copy of the block, and its latency
    is the slope between the two; for a check, `single_sha256` is the file of samples (`hw_profiles.wire.arrays`).
    `expected_us`: a guess of one run, for deadlines. `suffix`: of a network, `.onnx` or the ending of the engine's own
    files.
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
        matches("sha256", self.sha256, _DIGEST)
        if self.single_sha256 is not None:
            matches("single_sha256", self.single_sha256, _DIGEST)
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
        """Return the protocol itself, which checks the rest."""
        return BurstProtocol(**asdict(self))


@dataclass(frozen=True)
class Lease(Message):
    """Work for one device until `expires_at` (ISO 8601, UTC), extended by each heartbeat.

    `epoch` is returned with every result, so that results of an agent that lost the lease are refused. `anchors` are
    blocks of known latency; their results are sent first and give the session's scale.
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


@dataclass(frozen=True)
class Bursts(Message):
    """Raw bursts of one model in the order of rounds, microseconds; `extra` as in `Sample`."""

    minima_us: tuple[float, ...]
    medians_us: tuple[float, ...]
    extra: Mapping[str, str | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        in_range("minima_us", len(self.minima_us), 1, MAX_BURSTS)
        if len(self.minima_us) != len(self.medians_us):
            raise InvalidInput(
                "medians_us", len(self.medians_us), f"must have as many values as minima, {len(self.minima_us)}"
            )
        for name in ("minima_us", "medians_us"):
            for value in getattr(self, name):
                in_range(name, value, 1e-6, MAX_LATENCY_US)
        in_range("extra", len(self.extra), 0, 32)
        for key, entry in self.extra.items():
            short("extra", key, 64)
            if isinstance(entry, str):
                short(f"extra.{key}", entry, 256)
            elif not isinstance(entry, bool):
                in_range(f"extra.{key}", entry, -1e15, 1e15)

    @classmethod
    def from_json(cls, data: object) -> Self:
        found = known(cls, data)
        return cls(tuple(found["minima_us"]), tuple(found["medians_us"]), found.get("extra", {}))

    @classmethod
    def of(cls, sample: Sample) -> Bursts:
        """Return the bursts of a sample."""
        return cls(sample.minima_us, sample.medians_us, sample.extra)

    def sample(self, key: str) -> Sample:
        """Return these bursts as a sample with this key."""
        return Sample(key, self.minima_us, self.medians_us, self.extra)


@dataclass(frozen=True)
class Converted(Message):
    """The result of a check: digests of the engine's own file and of its outputs, both uploaded before."""

    sha256: str
    outputs_sha256: str

    def __post_init__(self) -> None:
        for name in ("sha256", "outputs_sha256"):
            matches(name, getattr(self, name), _DIGEST)


@dataclass(frozen=True)
class Result(Message):
    """`PUT /leases/{id}/results/{key}`: `bursts` (and `single` for a block), `fused` for a fusion, `converted` for a
    check, or `failure`.

    `fused`: the sets of node names that run as one kernel.
    """

    epoch: int
    bursts: Bursts | None = None
    single: Bursts | None = None
    failure: FailureKind | None = None
    reason: str = ""
    fused: tuple[tuple[str, ...], ...] | None = None
    converted: Converted | None = None

    def __post_init__(self) -> None:
        in_range("epoch", self.epoch, 0, 2**53)
        short("reason", self.reason)
        if self.failure is not None:
            one_of("failure", self.failure, FAILURE_KINDS)
        if sum(part is not None for part in (self.bursts, self.fused, self.converted, self.failure)) != 1:
            raise InvalidInput("bursts", self.bursts, "needs exactly one of bursts, fused, converted and failure")
        if self.fused is not None:
            in_range("fused", sum(map(len, self.fused)), 1, MAX_NODES)
            for name in (name for names in self.fused for name in names):
                short("fused", name)
        if self.single is not None and self.bursts is None:
            raise InvalidInput("single", None, "is allowed only with bursts")


@dataclass(frozen=True)
class Completion(Message):
    """`POST /leases/{id}/complete`."""

    epoch: int
    done: int = 0
    failed: int = 0
    elapsed_s: float = 0.0

    def __post_init__(self) -> None:
        in_range("epoch", self.epoch, 0, 2**53)
        in_range("done", self.done, 0, MAX_ITEMS * 2)
        in_range("failed", self.failed, 0, MAX_ITEMS * 2)
        in_range("elapsed_s", self.elapsed_s, 0, 1e7)


@dataclass(frozen=True)
class Surrender(Message):
    """`POST /leases/{id}/fail`: the agent gives the lease back; `error_class` says why in one word.

    `cancelled` and `drained` do not count as attempts; anything else counts as an attempt of each open item.
    """

    epoch: int
    error_class: str
    detail: str = ""

    def __post_init__(self) -> None:
        in_range("epoch", self.epoch, 0, 2**53)
        matches("error_class", self.error_class, re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}"))
        short("detail", self.detail)

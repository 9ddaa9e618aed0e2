"""Messages of enrolment: what the agent can run, its self-test, and the server's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, get_args

from hw_profiles.device import NAME_PATTERN, ONNX, SUFFIX_PATTERN, DeviceConfig, DeviceKind
from hw_profiles.wire.bounds import HEARTBEAT_S, MAX_LATENCY_US
from hw_profiles.wire.message import Message, in_range, known, matches, one_of, short

_MACHINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_NAME = re.compile(NAME_PATTERN)
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
    """An offer of one device: a runtime, its version and one set of settings."""

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
    """The results of timing a one-node model with each of the agent's runtimes; `facts` describes the machine.

    `null_us` is the quiet latency of this model in microseconds, by device name.
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
    """The answer to an enrolment. `device_ids` are in the order of the offered runtimes; `token` is empty in the answer
    to PUT.
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

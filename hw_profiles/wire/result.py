"""Results of a lease (bursts, fused sets, converted files and failures), and the messages that end a lease."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import Sample
from hw_profiles.wire.bounds import DIGEST, MAX_BURSTS, MAX_ITEMS, MAX_LATENCY_US, MAX_NODES
from hw_profiles.wire.message import Message, in_range, known, matches, one_of, short

FailureKind = Literal["error", "crash", "timeout"]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)


@dataclass(frozen=True)
class Bursts(Message):
    """Raw bursts of one model, in microseconds and in the order of rounds; `extra` is the same as in `Sample`."""

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
    """The result of a check: the digests of the engine's own file and of its outputs; both files are uploaded first."""

    sha256: str
    outputs_sha256: str

    def __post_init__(self) -> None:
        for name in ("sha256", "outputs_sha256"):
            matches(name, getattr(self, name), DIGEST)


@dataclass(frozen=True)
class Result(Message):
    """`PUT /leases/{id}/results/{key}`. A result has `bursts` (and `single` for a block), `fused` for a fusion,
    `converted` for a check, or `failure`.

    `fused` has the sets of node names that run as one kernel.
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

    `cancelled` and `drained` do not count as attempts; any other class counts as one attempt at each unfinished item.
    """

    epoch: int
    error_class: str
    detail: str = ""

    def __post_init__(self) -> None:
        in_range("epoch", self.epoch, 0, 2**53)
        matches("error_class", self.error_class, re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}"))
        short("detail", self.detail)

"""DeviceConfig: one configuration of one machine; each latency table belongs to one configuration."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from hw_profiles.errors import InvalidInput

DeviceKind = Literal["cpu", "gpu", "mobile", "simulated"]
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
"""Pattern for the names of devices and of everything else that users name."""
_NAME = re.compile(NAME_PATTERN)
ONNX = ".onnx"
SUFFIX_PATTERN = r"\.[a-z0-9]{1,15}"
_SUFFIX = re.compile(SUFFIX_PATTERN)


@dataclass(frozen=True)
class DeviceConfig:
    """A machine, a runtime and the runtime's settings. Latencies of different configurations are never mixed.

    `threads` is part of the identity and is never interpolated; `emulated` marks a device whose figures say nothing
    about real speed (an ARM runtime under qemu); `options` are the runtime's own settings as sorted (name, value)
    pairs. `suffix` is the ending of the engine's file names; `.onnx` means that the engine reads ONNX files unchanged.

    Raises InvalidInput if a name does not match `[a-z0-9][a-z0-9._-]{0,63}` or a count is below 1.
    """

    machine: str
    kind: DeviceKind
    runtime: str
    runtime_version: str
    threads: int = 1
    dtype: str = "fp32"
    emulated: bool = False
    options: tuple[tuple[str, str], ...] = ()
    suffix: str = ONNX

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InvalidInput("threads", self.threads, "must be at least 1")
        if self.kind not in get_args(DeviceKind):
            raise InvalidInput("kind", self.kind, f"must be one of {', '.join(get_args(DeviceKind))}")
        if not _NAME.fullmatch(self.name):
            raise InvalidInput("name", self.name, f"must match {_NAME.pattern}")
        if tuple(sorted(self.options)) != self.options:
            raise InvalidInput("options", self.options, "must be sorted by name")
        if not _SUFFIX.fullmatch(self.suffix):
            raise InvalidInput("suffix", self.suffix, f"must match {_SUFFIX.pattern}")

    @property
    def name(self) -> str:
        """`<machine>-<runtime>-t<threads>-<dtype>`; a new version of the runtime changes the id, but not the name."""
        return f"{self.machine}-{self.runtime}-t{self.threads}-{self.dtype}"

    @cached_property
    def config_id(self) -> str:
        """sha256 (hex) of the canonical JSON; it differs if any setting or version differs."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal configuration."""
        return {
            "machine": self.machine,
            "kind": self.kind,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "threads": self.threads,
            "dtype": self.dtype,
            "emulated": self.emulated,
            "options": [list(pair) for pair in self.options],
            # omitted for .onnx, so that older configurations keep their ids
            **({} if self.suffix == ONNX else {"suffix": self.suffix}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeviceConfig:
        """Read the output of `to_json`. Raises InvalidInput if a field is missing, unknown or wrong."""
        try:
            options = tuple((str(name), str(value)) for name, value in data.get("options", ()))
            return cls(**{**data, "options": options})
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput("device", dict(data), f"not a device configuration: {error}") from error

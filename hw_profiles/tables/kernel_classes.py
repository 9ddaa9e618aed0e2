"""KernelClasses: the channel counts that run the same kernel work on a device, as learned by `probe.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hw_profiles.errors import InvalidInput
from hw_profiles.tables.features import Features


@dataclass(frozen=True)
class KernelClasses:
    """Alignment rules of dense convolutions. The default is trivial: every channel count is its own class.

    The cost of output channels grows in steps of `out_step`. Below `in_threshold`, every input channel adds cost. From
    this threshold on, multiples of `in_modulus` take the fast path, with steps of `in_step`, and all other counts take
    a slower path on which every channel adds cost. `slow_path` is the cost of the slow path divided by the cost of the
    fast path (1 if there is no cliff).
    """

    out_step: int = 1
    in_step: int = 1
    in_modulus: int = 1
    in_threshold: int = 0
    slow_path: float = 1.0

    def __post_init__(self) -> None:
        for name in ("out_step", "in_step", "in_modulus"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, getattr(self, name), "must be at least 1")

    @property
    def trivial(self) -> bool:
        return self.out_step == 1 and self.in_step == 1 and self.in_modulus == 1

    def is_slow(self, in_channels: int) -> bool:
        """Return True if this many input channels take the slow path."""
        return in_channels >= self.in_threshold and in_channels % self.in_modulus != 0

    def effective_in(self, in_channels: int) -> int:
        """Return the input channels that the kernel pays for."""
        if in_channels < self.in_threshold or self.is_slow(in_channels):
            return in_channels
        return _ceil(in_channels, self.in_step)

    def effective_out(self, out_channels: int) -> int:
        """Return the output channels that the kernel pays for."""
        return _ceil(out_channels, self.out_step)

    def class_of(self, features: Features) -> str | None:
        """Return one string for all ops that run the same kernel work; None if the rules do not apply."""
        if self.trivial or features["groups"] != 1 or not features["kind"].startswith("conv"):
            return None
        channels_in, channels_out = features["in_channels"], features["out_channels"]
        parts = (
            features["shape_class"],
            features["kernel"],
            self.effective_in(channels_in),
            "slow" if self.is_slow(channels_in) else "fast",
            self.effective_out(channels_out),
            # if the last step is only partly filled, the output must be cropped, which costs time
            "full" if channels_out % self.out_step == 0 else "partial",
        )
        return "/".join(str(part) for part in parts)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes equal classes."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KernelClasses:
        """Read the output of `to_json`. Raises InvalidInput on unknown or wrong fields."""
        try:
            return cls(**data)
        except TypeError as error:
            raise InvalidInput("classes", dict(data), str(error)) from error


def _ceil(count: int, step: int) -> int:
    return -(-count // step) * step

"""Checkpoint: the state of a training run, as safetensors bytes with a JSON header, never as a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.network import Array

FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that the next step depends on. No random generator is stored, because draws depend only on the seed
    and the step.

    Attributes:
        step: number of completed steps.
        fingerprint: fingerprint of the network, the recipe and the data, which must be the same for training to resume.
        weights: constant name -> value, including running statistics.
        momentum: weight name -> momentum buffer.
        state: other arrays of the training run, see `compress.training.fit.Training.state`.
        beside: arrays that the caller keeps here, which training does not read.
    """

    step: int
    fingerprint: str
    weights: Mapping[str, Array]
    momentum: Mapping[str, Array]
    state: Mapping[str, Array] = field(default_factory=dict)
    beside: Mapping[str, Array] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the checkpoint as the bytes of a safetensors file."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {f"weights/{name}": value for name, value in self.weights.items()}
        arrays |= {f"momentum/{name}": value for name, value in self.momentum.items()}
        arrays |= {f"state/{name}": value for name, value in self.state.items()}
        arrays |= {f"beside/{name}": value for name, value in self.beside.items()}
        header = {"format": FORMAT, "step": str(self.step), "fingerprint": self.fingerprint}
        data: bytes = save({name: np.asarray(value, order="C") for name, value in arrays.items()}, header)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the checkpoint from the bytes of `to_bytes`.

        Raises:
            InvalidInput: the bytes are not a checkpoint, or are in another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}")
            step, fingerprint = int(header["step"]), str(header["fingerprint"])
        except (SafetensorError, ValueError, KeyError) as error:
            raise InvalidInput("checkpoint", None, f"not a readable checkpoint: {error}") from error
        roles = ("weights", "momentum", "state", "beside")
        return cls(step, fingerprint, *(_under(arrays, f"{role}/") for role in roles))


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

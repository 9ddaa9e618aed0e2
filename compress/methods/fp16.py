"""fp16: store the weights of layers as float16 and widen them when the file is loaded. This halves the file.

A Cast follows each weight. Runtimes fold it when they load the file and run the float32 kernels, so the network does
not get faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.edit import replaced
from compress.graph.fold import fold_norms
from compress.graph.groups import layer_name, unknown_layer
from compress.graph.names import Names
from compress.half_floats import nearest_half
from compress.method import MethodFamily, Stage, Widths
from compress.network import Array, Network, Node
from compress.pruning.effective_weights import Weights, layer_weights
from compress.task import Targets
from search.space import Choice, Doc, Knob, Values

KNOB = "fp16"
OPTIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Settings:
    """Settings of fp16."""

    keep_float: Annotated[tuple[str, ...], Doc("names of layers whose weights stay in float32")] = ()


@dataclass(frozen=True)
class HalfOperator:
    """Operator that leaves the network in fp32 or stores its layer weights as float16."""

    settings: Settings
    option: str
    stage: Stage = "storage"

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        """Return the network with norms folded and a Cast behind each weight.

        Raises:
            InvalidInput: `keep_float` names a layer that the network lacks, or onnxruntime does not run the result.
        """
        if not self.projected(network):
            return network
        self._check_kept(network)
        folded = fold_norms(network)
        # The Cast's output takes the weight's name, so that its readers do not change.
        names = Names(folded)
        halves = {name: names.new(f"{name}/half") for name in self.projected(folded)}
        casts = [
            Node("Cast", names.new(f"{name}/widened"), (half,), (name,), {"to": int(TensorProto.FLOAT)})
            for name, half in halves.items()
        ]
        constants = {half: nearest_half(folded.constants[name]).astype(np.float16) for name, half in halves.items()}
        rest = {name: value for name, value in folded.constants.items() if name not in halves}
        return replaced(replace(folded, constants=rest), (), casts, constants)

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """Return the weights rounded to float16; numbers beyond the range of float16 become its largest number."""
        return {**weights, **{name: nearest_half(weights[name]) for name in self.projected(network)}}

    def projected(self, network: Network) -> tuple[str, ...]:
        """Return all layer weights that `keep_float` does not name and that the file did not store as float16.

        Small weights are stored as float16 too, because widths must not change the number of kernels.
        """
        names = layer_weights(network) if self.option == "fp16" else ()
        kept = self.settings.keep_float
        return tuple(name for name in names if layer_name(name) not in kept and name not in network.halves)

    def _check_kept(self, network: Network) -> None:
        known = [layer_name(name) for name in layer_weights(network)]
        for name in self.settings.keep_float:
            if name not in known:
                raise unknown_layer(name, known)


@dataclass(frozen=True)
class Fp16:
    """Method with one knob: layer weights are stored in float32 or in float16."""

    settings: Settings

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """Return one choice, or no choice if the network has no layer weights."""
        found = HalfOperator(self.settings, "fp16").projected(network)
        return (Choice(KNOB, OPTIONS, ordered=False),) if found else ()

    def gather(self, network: Network, images: NDArray[np.float32], targets: Targets | None, seed: int) -> Evidence:
        """Return no evidence, because the operators need none."""
        return Evidence()

    def bind(self, values: Values) -> HalfOperator:
        """Return the operator, for fp32 if the knob has no value."""
        option = values.get(KNOB, OPTIONS[0])
        if option not in OPTIONS:
            raise InvalidInput(KNOB, option, f"must be one of {', '.join(OPTIONS)}")
        return HalfOperator(self.settings, str(option))


METHOD = MethodFamily(
    "fp16",
    "Store the weights as 16-bit floats and widen them when the file is loaded. This halves the size, not the latency.",
    "IEEE 754-2008 binary16",
    Settings,
    Fp16,
    lowers=("size_bytes", "stored_bytes"),
)

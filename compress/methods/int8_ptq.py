"""int8_ptq: static post-training quantisation, calibrated on real images. It takes seconds and needs no training.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018; per-channel weights as in Krishnamoorthi, arXiv 1806.08342.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.groups import unknown_layer
from compress.graph.rewrites import rewritten
from compress.method import MethodFamily, Stage, Widths
from compress.network import Array, Network
from compress.pruning.effective_weights import Weights
from compress.quantising.calibration import Clipping, calibrate
from compress.quantising.precision import HEAVY, choose, layer_names
from compress.quantising.quantise import Activations, on_grid, quantise, weight_axis
from compress.task import Targets
from search.space import Bounds, Choice, Doc, Knob, Values

KNOB = "int8_ptq"
OPTIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Settings:
    """Settings of int8_ptq."""

    images: Annotated[int, Doc("number of real images for measuring the activations' ranges"), Bounds(1, 10_000)] = 256
    clipping: Annotated[
        Clipping,
        Doc("choice of a range: all values seen, all except the rarest, or the range with the least error"),
    ] = "minmax"
    percentile: Annotated[
        float, Doc("share of the values inside the range, in percent, if clipping is percentile"), Bounds(90.0, 100.0)
    ] = 99.99
    activations: Annotated[
        Activations, Doc("type of the activations: uint8 is faster on x86, int8 on some ARM runtimes")
    ] = "uint8"
    bits_w: Annotated[
        int, Doc("bits of the weights: use 7 for x86 processors without VNNI, whose sums saturate"), Bounds(2, 8)
    ] = 8
    keep_float: Annotated[tuple[str, ...], Doc("names of layers that stay in floating point")] = ()


@dataclass(frozen=True)
class Int8Operator:
    """Operator that leaves the network in fp32 or quantises it."""

    settings: Settings
    option: str
    stage: Stage = "precision"

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        """Return the network with batch norms folded, calibrated, and with QuantizeLinear / DequantizeLinear pairs.

        Raises:
            InvalidInput: the evidence has no images, or `keep_float` names a layer that the network lacks.
        """
        if self.option == "fp32":
            return network
        if evidence.images is None:
            raise InvalidInput("images", None, "int8_ptq needs real images for calibration")
        self._check_kept(network)
        folded = rewritten(fold_norms(network))  # because Slice and Pad would break the integer kernels' layout
        precision = choose(folded, self.settings.keep_float)
        images = evidence.images[: self.settings.images]
        ranges = calibrate(folded, precision.calibrated, images, self.settings.clipping, self.settings.percentile)
        return quantise(folded, precision, ranges, self.settings.activations, self.settings.bits_w)

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """Return the weights rounded to the grid of levels that the largest weight of each output channel spans."""
        axes = self._axes(network)
        return {**weights, **{name: on_grid(weights[name], axis, self.settings.bits_w) for name, axis in axes.items()}}

    def projected(self, network: Network) -> tuple[str, ...]:
        """Return the weights of the layers that run in int8."""
        return tuple(self._axes(network))

    def _axes(self, network: Network) -> dict[str, int]:
        """Return weight -> axis of its output channels, for every layer that runs in int8."""
        if self.option == "fp32":
            return {}
        chosen = choose(network, self.settings.keep_float).nodes
        nodes = [node for node in network.nodes if node.name in chosen and node.op_type in HEAVY]
        return {node.inputs[1]: weight_axis(node) for node in nodes}

    def _check_kept(self, network: Network) -> None:
        known = {name for node in network.nodes for name in layer_names(node)}
        for name in self.settings.keep_float:
            if name not in known:
                raise unknown_layer(name, [layer_names(node)[-1] for node in network.nodes if node.op_type in HEAVY])


@dataclass(frozen=True)
class Int8Ptq:
    """Method with one knob: the whole network runs in fp32 or in int8."""

    settings: Settings

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """Return one choice, or no choice if no layer can be quantised."""
        return (Choice(KNOB, OPTIONS, ordered=False),) if choose(network, self.settings.keep_float).nodes else ()

    def gather(self, network: Network, images: NDArray[np.float32], targets: Targets | None, seed: int) -> Evidence:
        """Gather the images that ranges are measured on."""
        return Evidence(images=images[: self.settings.images])

    def bind(self, values: Values) -> Int8Operator:
        """Return the operator, for fp32 if the knob has no value (because the network has no layer to quantise)."""
        option = values.get(KNOB, OPTIONS[0])
        if option not in OPTIONS:
            raise InvalidInput(KNOB, option, f"must be one of {', '.join(OPTIONS)}")
        return Int8Operator(self.settings, str(option))


METHOD = MethodFamily(
    "int8_ptq",
    "Quantise weights and activations to 8 bits, calibrated on real images; no training.",
    "Jacob et al., CVPR 2018; Krishnamoorthi, arXiv 1806.08342",
    Settings,
    Int8Ptq,
    lowers=("latency_ms", "size_bytes", "stored_bytes"),
)

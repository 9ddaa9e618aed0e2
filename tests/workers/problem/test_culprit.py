"""The knob because of which a device refuses a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.network import Network
from compress.scheme import Scheme
from search.space import Choice, Space, Values
from workers.errors import NetworkRefused
from workers.ports import FusedSets
from workers.problem.builder import ProblemBuilder
from workers.problem.culprit import culprit
from workers.problem.kernel_space import KernelSpace, fused_here


class Refusing:
    """Stands for the networks of a space, of which a device refuses some."""

    def __init__(self, refuses: Callable[[Values], bool]) -> None:
        widths = [Choice(name, (1, 2, 4), True) for name in ("a", "b", "c")]
        self.levelled = (*widths, Choice("precision", ("fp32", "int8"), False))
        self.space = Space(self.levelled)
        self.refuses = refuses


CUT: Values = {"a": 1, "b": 2, "c": 1, "precision": "int8"}


@pytest.mark.parametrize(
    ("refuses", "found"),
    [
        (lambda values: values["b"] < 4, "b"),
        (lambda values: values["precision"] == "int8", "precision"),
        (lambda values: values["precision"] == "int8" and values["c"] < 4, "c"),
        (lambda values: values["a"] < 4 and values["b"] < 4, "b"),
        (lambda values: True, None),
    ],
)
def test_the_first_knob_at_which_the_device_refuses_is_found(
    refuses: Callable[[Values], bool], found: str | None
) -> None:
    knob = culprit(cast("KernelSpace", Refusing(refuses)), CUT)
    assert (None if knob is None else knob.name) == found


def kernels(trained: Network, left_out: dict[str, tuple[str, ...]]) -> KernelSpace:
    """The networks of a scheme with int8, which the device cannot load."""
    blocks = prunable_blocks(trained)
    evidence = Evidence(np.zeros((4, 1, 8, 8), np.float32), {block.name: np.ones(block.width) for block in blocks})
    widths = {block.name: (block.width // 2, block.width) for block in blocks}

    def fuse(runtime: str, networks: list[Network]) -> list[FusedSets]:
        for network in networks:
            if any(node.op_type == "QuantizeLinear" for node in network.nodes):
                raise NetworkRefused("dev_1", "no int8", network)
        return list(fused_here(runtime, networks))

    scheme = Scheme.of([("filter_prune", {}), ("int8_ptq", {})])
    return KernelSpace(fold_norms(trained), scheme, widths, evidence, ["simulated"], fuse, left_out)  # type: ignore[arg-type]  # lists


def test_a_refusal_tells_the_values_of_the_network_and_ends_without_its_option(trained: Network) -> None:
    space = kernels(trained, {})
    with pytest.raises(NetworkRefused, match="no int8") as refusal:
        ProblemBuilder(space)
    assert refusal.value.values is not None
    assert refusal.value.values["int8_ptq"] == "int8"
    knob = culprit(space, refusal.value.values)
    assert knob is not None
    assert knob.name == "int8_ptq"
    builder = ProblemBuilder(kernels(trained, {"int8_ptq": ("int8",)}))
    assert builder.settings == ({"int8_ptq": "fp32"},)

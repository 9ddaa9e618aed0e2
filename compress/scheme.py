"""Scheme: methods in order, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from compress import methods
from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.method import STAGES, Method, Operator, Stage, Widths
from compress.network import Array, Network
from compress.pruning.effective_weights import Weights
from compress.task import Targets
from search.space import Knob, Values, check_settings


@dataclass(frozen=True)
class BoundScheme:
    """The operators of a scheme, bound to one set of values. Itself an operator of each of its stages."""

    operators: tuple[Operator, ...]

    def rewrite(self, network: Network, evidence: Evidence, *stages: Stage) -> Network:
        """The network compressed by every operator of these stages, of all where none is named, in their order.

        Raises:
            InvalidInput: as the operators.
        """
        for step in self.steps(*stages):
            network = step.rewrite(network, evidence)
        return network

    def steps(self, *stages: Stage) -> tuple[Operator, ...]:
        """The operators in the order of application: by stage, then as the scheme names them."""
        ordered = sorted(self.operators, key=lambda operator: STAGES.index(operator.stage))
        return tuple(operator for operator in ordered if not stages or operator.stage in stages)

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """Every operator's projection, in the order of `steps`: zeros first, then what holds the rest to fewer bits.

        Raises:
            InvalidInput: as the operators.
        """
        made = dict(weights)
        for step in self.steps():
            made = step.project(network, made)
        return made

    def projected(self, network: Network) -> tuple[str, ...]:
        """The layer weights that any operator holds to its set."""
        return tuple(dict.fromkeys(name for step in self.steps() for name in step.projected(network)))


@dataclass(frozen=True)
class Scheme:
    """Methods in the order of the job."""

    methods: tuple[Method, ...]

    @classmethod
    def of(cls, named: Iterable[tuple[str, Mapping[str, object]]]) -> Self:
        """The scheme of (name, settings) pairs, as a job names them.

        Raises:
            InvalidInput: an unknown method, or one named twice (this folder's);
                unknown or wrong settings (that of search.space).
        """
        made: dict[str, Method] = {}
        for name, given in named:
            if name in made:
                raise InvalidInput("methods", name, f"method {name} is named twice")
            family = methods.load(name)
            made[name] = family.make(check_settings(family.settings, given))
        return cls(tuple(made.values()))

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """The knobs of all methods, in their order."""
        return tuple(knob for method in self.methods for knob in method.knobs(network, widths))

    def gather(
        self,
        network: Network,
        images: NDArray[np.float32],
        targets: Targets | None = None,
        seed: int = 0,
    ) -> Evidence:
        """What all methods need to know of the network, once.

        Args:
            images: (N, *input_shape) float32, real data; targets: of these, None where they are not known.
        """
        gathered = (method.gather(network, images, targets, seed) for method in self.methods)
        return reduce(Evidence.joined, gathered, Evidence())

    def bind(self, values: Values) -> BoundScheme:
        """Every method bound to its part of the values.

        Raises:
            InvalidInput: a value that no knob has.
        """
        return BoundScheme(tuple(method.bind(values) for method in self.methods))

"""Scheme: several methods in order, used as one method."""

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
    """The operators of a scheme, bound to one set of values. It is used like an operator."""

    operators: tuple[Operator, ...]

    def rewrite(self, network: Network, evidence: Evidence, *stages: Stage) -> Network:
        """Return the network after every operator of these stages, in order; of all stages if none is named.

        Raises:
            InvalidInput: an operator refuses its values, the network or the evidence.
        """
        for step in self.steps(*stages):
            network = step.rewrite(network, evidence)
        return network

    def steps(self, *stages: Stage) -> tuple[Operator, ...]:
        """Return the operators in the order of application: by stage, then in the scheme's order."""
        ordered = sorted(self.operators, key=lambda operator: STAGES.index(operator.stage))
        return tuple(operator for operator in ordered if not stages or operator.stage in stages)

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """Return the weights after every operator's projection, in the order of `steps`: zeros first, then fewer bits.

        Raises:
            InvalidInput: an operator refuses its values, the network or the evidence.
        """
        made = dict(weights)
        for step in self.steps():
            made = step.project(network, made)
        return made

    def projected(self, network: Network) -> tuple[str, ...]:
        """Return the layer weights that any operator's projection constrains."""
        return tuple(dict.fromkeys(name for step in self.steps() for name in step.projected(network)))


@dataclass(frozen=True)
class Scheme:
    """The methods of a job, in the job's order."""

    methods: tuple[Method, ...]

    @classmethod
    def of(cls, named: Iterable[tuple[str, Mapping[str, object]]]) -> Self:
        """Return the scheme with these methods, given as (name, settings) pairs like the methods of a job.

        Raises:
            InvalidInput: a method is unknown or named twice (compress.errors), or settings are unknown or wrong
                (search.errors).
        """
        made: dict[str, Method] = {}
        for name, given in named:
            if name in made:
                raise InvalidInput("methods", name, f"method {name} is named twice")
            family = methods.load(name)
            made[name] = family.make(check_settings(family.settings, given))
        return cls(tuple(made.values()))

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """Return the knobs of all methods, in their order."""
        return tuple(knob for method in self.methods for knob in method.knobs(network, widths))

    def gather(
        self,
        network: Network,
        images: NDArray[np.float32],
        targets: Targets | None = None,
        seed: int = 0,
    ) -> Evidence:
        """Gather the evidence that all methods need about the network, once.

        Args:
            images: (N, *input_shape) float32, real data; targets: the images' targets, None if they are not known.
        """
        gathered = (method.gather(network, images, targets, seed) for method in self.methods)
        return reduce(Evidence.joined, gathered, Evidence())

    def bind(self, values: Values) -> BoundScheme:
        """Bind every method to its part of the values.

        Raises:
            InvalidInput: no knob has such a value.
        """
        return BoundScheme(tuple(method.bind(values) for method in self.methods))

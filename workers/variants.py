"""Variants: the network under each setting of the knobs that are no widths (fp32 or int8), taken apart.

A width changes the size of a kernel; a setting such as int8 changes which kernels there are. So each setting
has kernels of its own, and the tables of a problem get the setting as leading axes. A density (a Float) puts
weights to zero and changes no kernel: it is no axis of any table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from compress.cost import Cost, cost
from compress.evidence import Evidence
from compress.method import Widths
from compress.network import Network
from compress.op_templates import held_before, op_templates, ops
from compress.scheme import Scheme
from hw_profiles.ops import Op
from hw_profiles.runtimes import load as load_runtime
from search.space import Choice, Float, Space, Value, Values
from workers.errors import InvalidInput
from workers.kernels import Kernel, kernels

FusedSets = tuple[frozenset[str], ...]


@dataclass(frozen=True, eq=False)
class Variant:
    """One setting: the uncut network under it, what that is, and its kernels by runtime.

    `tied`: by runtime and kernel, which constants of its op an earlier kernel holds as well.
    """

    setting: Mapping[str, Value]
    network: Network
    whole: Cost
    kernels: Mapping[str, tuple[Kernel, ...]]
    tied: Mapping[str, tuple[frozenset[int], ...]]


class Anatomy:
    """Rewrites a network at any values of a scheme's knobs, and takes what comes out apart.

    Args:
        network: the uncut network.
        scheme: the job's methods.
        widths: block -> widths worth trying, ascending.
        evidence: enough for the methods to run; which channels stay does not matter here.
        runtimes: names of the runtimes whose kernels are wanted; none: one kernel per node.

    Raises:
        InvalidInput: the methods find no knob to turn, or one that is neither a choice nor a density.
    """

    def __init__(
        self, network: Network, scheme: Scheme, widths: Widths, evidence: Evidence, runtimes: Sequence[str] = ()
    ) -> None:
        self.network = network
        self.scheme = scheme
        self._evidence = evidence
        self._runtimes = tuple(dict.fromkeys(runtimes)) or ("",)
        self._fused: dict[tuple[str, tuple[Value, ...]], FusedSets] = {}
        found = scheme.knobs(network, widths)
        if not found:
            raise InvalidInput("methods", [], "no method finds anything to change in this network")
        self.space = Space(found)
        choices = [knob for knob in found if isinstance(knob, Choice)]
        self.densities = tuple(knob for knob in found if isinstance(knob, Float))
        if len(choices) + len(self.densities) < len(found):
            raise InvalidInput("methods", self.space.names, "a knob is neither a choice nor a density")
        self.settings = tuple(knob for knob in choices if not knob.ordered)
        self.widths = tuple(knob for knob in choices if knob.ordered)

    def rewritten(self, values: Values) -> Network:
        """The network at these values, its weights not refitted: right in shape and speed."""
        return self.scheme.bind(values).rewrite(self.network, self._evidence)

    def ops(self, network: Network, values: Values, runtime: str) -> tuple[Op, ...]:
        """The kernels of a network that `rewritten`, or training after it, made at these values."""
        return ops(network, self._fused_sets(values, runtime))

    def variants(self) -> tuple[Variant, ...]:
        """Every setting, in the order of the settings' options; minutes for large networks.

        Raises:
            InvalidInput: see `kernels`.
        """
        full: dict[str, Value] = {knob.name: knob.options[-1] for knob in self.widths}
        made = []
        for options in product(*(knob.options for knob in self.settings)):
            setting: dict[str, Value] = {knob.name: o for knob, o in zip(self.settings, options, strict=True)}
            network = self.rewritten({**full, **setting})
            surveyed = {runtime: self._survey(setting, runtime) for runtime in self._runtimes}
            tied = {runtime: self._tied(network, setting, runtime) for runtime in self._runtimes}
            made.append(Variant(setting, network, cost(network), surveyed, tied))
        return tuple(made)

    def _tied(self, network: Network, setting: Values, runtime: str) -> tuple[frozenset[int], ...]:
        return held_before(op_templates(network, self._fused_sets(setting, runtime)))

    def _survey(self, setting: Mapping[str, Value], runtime: str) -> tuple[Kernel, ...]:
        def make_ops(widths: Values) -> tuple[Op, ...]:
            values = {**setting, **widths}
            return self.ops(self.rewritten(values), values, runtime)

        return kernels(make_ops, self.widths)

    def _fused_sets(self, values: Values, runtime: str) -> FusedSets:
        """Which nodes run as one: asked of the runtime once per setting, since widths do not change it."""
        chosen = tuple(values[knob.name] for knob in self.settings)
        if not runtime:
            return ()
        if (runtime, chosen) not in self._fused:
            full = {knob.name: knob.options[-1] for knob in self.widths}
            whole = self.rewritten({**values, **full})
            self._fused[runtime, chosen] = load_runtime(runtime).fused(whole.save())
        return self._fused[runtime, chosen]

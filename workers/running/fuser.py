"""Fuser: a job's devices are asked what their runtimes run as one kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from compress.network import Network
from workers.errors import MeasurementFailed
from workers.ports import FusedSets
from workers.running.context import Context


class Fuser:
    """Answers as `workers.problem.kernel_space.Fuse` wants it.

    A device works at one thing at a time and may wait for this machine to be quiet: nothing is computed while it is
    asked, so that neither waits for the other.
    """

    def __init__(self, context: Context, device_ids: Sequence[str]) -> None:
        self._context = context
        # Of several devices with one runtime the first one answers for all.
        found = {context.ports.table(device_id).device.runtime: device_id for device_id in reversed(device_ids)}
        self._devices = dict(reversed(found.items()))
        self._held: ExitStack | None = None

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the runtimes that can be asked about."""
        return tuple(self._devices)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """As `Context.computing`, interrupted whenever a device is asked."""
        self._held = ExitStack()
        self._held.enter_context(self._context.computing())
        try:
            yield
        finally:
            self._held.close()
            self._held = None

    def __call__(self, runtime: str, networks: Sequence[Network]) -> Sequence[FusedSets]:
        """The fused sets of each network.

        Raises:
            DeviceOffline, MeasurementFailed, Halted: as `Ports.fused`.
        """
        device_id = self._devices[runtime]
        if self._held is not None:
            self._held.close()
        told = self._asked(device_id, networks)
        if self._held is not None:
            self._held.enter_context(self._context.computing())
        return [_checked(device_id, network, sets) for network, sets in zip(networks, told, strict=True)]

    def _asked(self, device_id: str, networks: Sequence[Network]) -> Sequence[FusedSets]:
        patience_s = self._context.plan.effort.device_wait_s
        return self._context.ports.fused(device_id, [network.save() for network in networks], patience_s)


def _checked(device_id: str, network: Network, sets: FusedSets) -> FusedSets:
    """The sets in the network's own nodes: the Casts of weights that are stored as float16 are the file's alone."""
    told = Counter(name for names in sets for name in names)
    known, casts = {node.name for node in network.nodes}, network.casts
    wrong = sorted(set(told) - known - casts) + [name for name, n in told.items() if n > 1]
    if wrong:
        raise MeasurementFailed(device_id, f"it told of node {wrong[0]!r}, which is not there or in two kernels")
    return tuple(own for names in sets if (own := frozenset(names) - casts))

"""Fuser: asks a job's devices which nodes their runtimes run as one kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from compress.network import Network
from hw_profiles.timing.protocol import Failure
from workers.errors import MeasurementFailed, NetworkRefused
from workers.ports import FusedSets
from workers.running.context import Context


class Fuser:
    """An implementation of `workers.problem.kernel_space.Fuse` that asks devices.

    A device does one thing at a time, and may wait until this machine is quiet. So this process computes nothing while
    it waits for a device; otherwise, each might wait for the other.
    """

    def __init__(self, context: Context, device_ids: Sequence[str]) -> None:
        self._context = context
        # If several devices have the same runtime, the first device answers for all.
        found = {context.ports.table(device_id).device.runtime: device_id for device_id in reversed(device_ids)}
        self._devices = dict(reversed(found.items()))
        self._held: ExitStack | None = None

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the runtimes that can be asked."""
        return tuple(self._devices)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Hold `Context.computing`, but release it whenever a device is asked."""
        self._held = ExitStack()
        self._held.enter_context(self._context.computing())
        try:
            yield
        finally:
            self._held.close()
            self._held = None

    def __call__(self, runtime: str, networks: Sequence[Network]) -> Sequence[FusedSets]:
        """Return the fused sets of each network.

        Raises:
            NetworkRefused: the device cannot load a network.
            DeviceOffline, MeasurementFailed, Halted: see `Ports.fused`.
        """
        device_id = self._devices[runtime]
        if self._held is not None:
            self._held.close()
        told = self._asked(device_id, networks)
        if self._held is not None:
            self._held.enter_context(self._context.computing())
        return [_checked(device_id, network, sets) for network, sets in zip(networks, told, strict=True)]

    def _asked(self, device_id: str, networks: Sequence[Network]) -> Sequence[FusedSets | Failure]:
        patience_s = self._context.plan.effort.device_wait_s
        return self._context.ports.fused(device_id, [network.save() for network in networks], patience_s)


def _checked(device_id: str, network: Network, sets: FusedSets | Failure) -> FusedSets:
    """Return the sets without nodes that exist only in the file, such as Casts of weights stored as float16."""
    if isinstance(sets, Failure):
        raise NetworkRefused(device_id, sets.reason, network)
    told = Counter(name for names in sets for name in names)
    known, casts = {node.name for node in network.nodes}, network.casts
    wrong = sorted(set(told) - known - casts) + [name for name, n in told.items() if n > 1]
    if wrong:
        raise MeasurementFailed(device_id, f"it reported node {wrong[0]!r}, which does not exist or is in two kernels")
    return tuple(own for names in sets if (own := frozenset(names) - casts))

"""A device that exists only as arithmetic, with known true latencies, the noise of a shared machine, and a virtual
clock.

It behaves like the server CPU under onnxruntime with one thread, whose `classes` are in the rows of
benchmarks/predictor_accuracy.py: the cost of output channels rises in steps of 16, and input channels that are not a
multiple of 4 leave the fast path. The other figures were chosen: a call costs 70 us, bursts of contention make
everything twice as slow, and a session is off by up to 2.5 %. Everything is a function of the seed and of the number of
earlier sessions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes import Arrays, Progress, Runtime
from hw_profiles.runtimes.simulated.kernels import Shapes, kernel_us, patterns
from hw_profiles.timing.bursts import run_bursts
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample


@dataclass
class VirtualClock:
    """A clock that advances only while a simulated run takes time. It is called like time.perf_counter.

    Time is divided into episodes of `episode_s`; in some of them, drawn by the seed, every run takes `contention` times
    as long. Each run also jitters upwards by about half a percent.
    """

    seed: int
    contention: float = 2.0
    contended_share: float = 0.4
    episode_s: float = 0.3
    now_s: float = 0.0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def __call__(self) -> float:
        return self.now_s

    def run(self, latency_s: float) -> None:
        """Advance the clock by one run whose undisturbed latency is given."""
        slow = self.contention if self._contended() else 1.0
        self.now_s += latency_s * slow * (1.0 + 0.005 * abs(self._rng.standard_normal()))

    def sleep(self, elapsed_s: float) -> None:
        """Advance the clock by idle time."""
        self.now_s += elapsed_s

    def _contended(self) -> bool:
        episode = int(self.now_s / self.episode_s)
        return float(np.random.default_rng([self.seed, episode]).random()) < self.contended_share


@dataclass
class SimulatedRuntime(Runtime):
    """Times models on a virtual clock. Its figures should equal `truth_us`, apart from the session's factor in [1 -
    drift, 1 + drift].
    """

    seed: int = 0
    out_step: int = 16
    in_modulus: int = 4
    overhead_us: float = 70.0
    contention: float = 2.0
    drift: float = 0.025
    sessions: int = 0
    name: str = "simulated"

    def version(self) -> str:
        return "1"

    def configs(self, machine: str) -> list[DeviceConfig]:
        return [DeviceConfig(machine, "simulated", self.name, self.version())]

    def truth_us(self, model: bytes) -> float:
        """Return the undisturbed latency of `model`: the cost of a call plus the sum of its kernels.

        Raises InvalidInput if the model cannot be read or its shapes are not fixed.
        """
        parsed = _parse(model)
        shapes = Shapes(parsed)
        nodes = {node.name: node for node in parsed.graph.node}
        kernels = [
            kernel_us([nodes[name] for name in names], shapes, self.out_step, self.in_modulus)
            for names in self.fused(model)
        ]
        return self.overhead_us + math.fsum(kernels)

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        parsed = _parse(file)
        outputs = [output.name for output in parsed.graph.output]
        running = ReferenceEvaluator(parsed)
        return dict(zip(outputs, running.run(outputs, dict(inputs)), strict=True))

    def time(
        self,
        files: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        rng = np.random.default_rng([self.seed, self.sessions])
        clock = VirtualClock(int(rng.integers(2**31)), self.contention)
        factor = 1.0 + self.drift * (2 * rng.random() - 1)
        self.sessions += 1
        latencies_s: dict[str, float] = {}
        failures: dict[str, Failure] = {}
        for key, model in files.items():
            try:
                latencies_s[key] = self.truth_us(model) * factor * 1e-6
            except InvalidInput as error:
                failures[key] = Failure(key, str(error), "load")
        calls = {key: _Call(clock, latency_s) for key, latency_s in latencies_s.items()}
        results = run_bursts(calls, protocol, clock=clock, sleep=clock.sleep, progress=progress)
        return {key: failures.get(key) or results[key] for key in files}

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        parsed = _parse(model)
        names = [node.name for node in parsed.graph.node]
        if len(set(names)) < len(names) or "" in names:
            raise InvalidInput("model", "", "fused sets need unique, non-empty node names")
        return tuple(frozenset(names[index] for index in indices) for indices in patterns(parsed.graph))


RUNTIME = SimulatedRuntime()


@dataclass(frozen=True)
class _Call:
    clock: VirtualClock
    latency_s: float

    def __call__(self) -> None:
        self.clock.run(self.latency_s)


def _parse(model: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's own class differs between its implementations
        seen = hashlib.sha256(model).hexdigest()[:16]
        raise InvalidInput("model", seen, f"not an ONNX file: {error}") from error

"""Two probe curves, latency against output and against input channels, and the kernel classes learned from them.

Nothing about a device's alignment is assumed: each rule is a model of the curve, and the model with the smallest
Bayesian information criterion (Schwarz 1978) wins. A straight line is one of the models, so a device without steps or
cliffs gets trivial classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Constant, Op, OpNode, TensorSpec
from hw_profiles.tables.calibration import Array
from hw_profiles.tables.kernel_classes import KernelClasses

# One point past two steps of 32 (or four of 16): the minimum at which a step of 32 is seen twice.
LIMIT = 65
# The channel count of a probe that stays fixed, and the probe's height and width; at these sizes, steps were clearly
# visible.
OTHER_CHANNELS, SIZE = 32, 16
STEPS = (1, 2, 4, 8, 16, 32)
MODULI = (2, 4, 8, 16, 32)
# Residuals below this share of the mean are noise; without this floor, the criterion would prefer models that fit
# noise.
NOISE = 0.004
# Minimum ratio of the slow path's cost to the fast path's cost for the difference to count as a cliff.
CLIFF = 1.1


def probe_op(in_channels: int, out_channels: int, size: int = SIZE) -> Op:
    """Return a 3x3 convolution with ReLU that follows another convolution, at `size` x `size`."""
    return Op.of(
        [
            OpNode("Conv", ("in", "weight", "bias"), ("sum",), (("pads", (1, 1, 1, 1)),)),
            OpNode("Relu", ("sum",), ("out",)),
        ],
        inputs={"in": (TensorSpec((1, in_channels, size, size)), "blocked")},
        constants={
            "weight": Constant(TensorSpec((out_channels, in_channels, 3, 3))),
            "bias": Constant(TensorSpec((out_channels,))),
        },
        outputs=["out"],
        opset=17,
    )


@dataclass(frozen=True)
class Curves:
    """Latencies in microseconds, by number of output channels and by number of input channels."""

    out_us: Mapping[int, float]
    in_us: Mapping[int, float]


@dataclass(frozen=True)
class Probe:
    """The ops of the two curves, by channel count."""

    out: Mapping[int, Op]
    into: Mapping[int, Op]

    @property
    def ops(self) -> tuple[Op, ...]:
        """All ops to time, without duplicates."""
        return tuple({op.key: op for op in (*self.out.values(), *self.into.values())}.values())

    def curves(self, latency_us: Mapping[str, float]) -> Curves:
        """Return the curves that these latencies (by op key) form. Points without a latency are left out.

        Raises InvalidInput if fewer than half of the points of a curve have a latency.
        """
        return Curves(*(_curve(ops, latency_us) for ops in (self.out, self.into)))

    def learn(self, latency_us: Mapping[str, float]) -> KernelClasses:
        """Learn the classes from latencies (by op key) with the rule of this module.

        Raises InvalidInput if fewer than half of the points of a curve have a latency.
        """
        drawn = self.curves(latency_us)
        return learn(drawn.out_us, drawn.in_us)


def probe(limit: int = LIMIT) -> Probe:
    """Return the probe with channel counts 1 to `limit` on both curves."""
    counts = range(1, limit + 1)
    return Probe(
        out={count: probe_op(OTHER_CHANNELS, count) for count in counts},
        into={count: probe_op(count, OTHER_CHANNELS) for count in counts},
    )


def _curve(ops: Mapping[int, Op], latency_us: Mapping[str, float]) -> dict[int, float]:
    found = {count: latency_us[op.key] for count, op in ops.items() if op.key in latency_us}
    if 2 * len(found) < len(ops):
        raise InvalidInput(
            "latency_us", len(found), f"must have at least half of the {len(ops)} points of a probe curve"
        )
    return found


def learn(out_us: Mapping[int, float], in_us: Mapping[int, float]) -> KernelClasses:
    """Learn kernel classes from two curves: latency by output channels and latency by input channels."""
    out_step = _best_step(*_arrays(out_us.items()))
    counts, latencies = _arrays(in_us.items())
    in_step, modulus, threshold, slow_path = _best_cliff(counts, latencies)
    return KernelClasses(out_step, in_step, modulus, threshold, slow_path)


def _arrays(points: Iterable[tuple[int, float]]) -> tuple[Array, Array]:
    counts, latencies = np.array(sorted(points), dtype=np.float64).T
    return counts, latencies


def _best_step(counts: Array, latencies: Array) -> int:
    """Return the step whose constant pieces explain the curve best; step 1 stands for a straight line."""
    noise = NOISE * float(latencies.mean())
    scores = {step: _criterion([_steps(counts, latencies, step)], len(counts), noise) for step in STEPS}
    return min(scores, key=lambda step: scores[step])


def _best_cliff(counts: Array, latencies: Array) -> tuple[int, int, int, float]:
    """Return (step, modulus, threshold, price of the slow path) of the input curve."""
    noise = NOISE * float(latencies.mean())
    step = _best_step(counts, latencies)
    best_score = _criterion([_steps(counts, latencies, step)], len(counts), noise)
    best = (step, 1, 0, 1.0)
    for modulus in MODULI:
        for threshold in sorted({modulus, *(t for t in (4, 8, 16, 32) if t >= modulus)}):
            below = counts < threshold
            slow = ~below & (counts % modulus != 0)
            fast = ~below & ~slow
            if slow.sum() < 4 or fast.sum() < 4:
                continue
            sides = [_line(counts[part], latencies[part]) for part in (below, slow)]
            price = _price(counts, latencies, fast, slow)
            for step in STEPS:
                pieces = [*sides, _steps(counts[fast], latencies[fast], step)]
                score = _criterion(pieces, len(counts), noise)
                if score < best_score and price >= CLIFF:
                    # Fast counts are multiples of the modulus, so a step finer than the modulus makes no difference.
                    best_score, best = score, (max(step, modulus), modulus, threshold, price)
    return best


def _price(counts: Array, latencies: Array, fast: np.ndarray, slow: np.ndarray) -> float:
    """Return the median cost of the slow points relative to the fast curve, which is interpolated between its
    points.
    """
    return float(np.median(latencies[slow] / np.interp(counts[slow], counts[fast], latencies[fast])))


def _steps(counts: Array, latencies: Array, step: int) -> tuple[float, int]:
    """Return (sum of squared residuals, number of parameters) of constant pieces of `step` channels, or of a line if
    `step` is 1.
    """
    if step == 1:
        return _line(counts, latencies)
    pieces = np.ceil(counts / step)
    names = np.unique(pieces)
    residual = sum(float(np.sum((latencies[pieces == n] - latencies[pieces == n].mean()) ** 2)) for n in names)
    return residual, len(names)


def _line(counts: Array, latencies: Array) -> tuple[float, int]:
    """Return (sum of squared residuals, number of parameters) of a straight line."""
    if len(counts) < 3:
        return 0.0, len(counts)
    fitted = np.polynomial.Polynomial.fit(counts, latencies, 1)
    return float(np.sum((latencies - fitted(counts)) ** 2)), 2


def _criterion(pieces: list[tuple[float, int]], points: int, noise: float) -> float:
    """Return the Bayesian information criterion of a model of one curve whose pieces are independent."""
    residual = sum(part for part, _ in pieces) + points * noise**2
    return points * float(np.log(residual / points)) + sum(k for _, k in pieces) * float(np.log(points))

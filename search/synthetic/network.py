"""A synthetic residual network with staircase latencies and a known true score.

Many layers share each stream (by residual adds); each inner knob is between two layers of one stream. The shapes
follow experience with real networks: a few knobs hold most of the sensitivity, damage grows faster than the cut,
cutting two neighbours hurts more than the sum of both cuts, 8-bit arithmetic lowers the score little, and a kernel's
time is a staircase in the number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput
from search.space import Choice, Features, Knob, Space
from search.terms import Term, Terms

PRECISION = "precision"


@dataclass(frozen=True)
class Layer:
    """A convolution from knob `source` to knob `target` on side x side pixels; `source` None means the image, `target`
    None the classes.
    """

    source: str | None
    target: str | None
    side: int


@dataclass(frozen=True)
class Kernels:
    """The kernels of one device: channels are padded to tiles, and each call has an overhead."""

    tile_in: int
    tile_out: int
    ms_per_mega_mac: float
    overhead_ms: float
    int8_factor: float


@dataclass(frozen=True, eq=False)
class SyntheticNetwork:
    """Layers, widths and a score model drawn from `seed`, with `knob_count` width knobs of `level_count` levels."""

    seed: int
    knob_count: int = 8
    level_count: int = 8
    precision: bool = True

    def __post_init__(self) -> None:
        if self.knob_count < 2 or self.level_count < 2:
            raise InvalidInput("knob_count", self.knob_count, "needs at least two knobs with at least two levels each")

    @property
    def stream_count(self) -> int:
        return max(1, self.knob_count // 4)

    @cached_property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Allowed widths of each knob, in ascending order; each stream is twice as wide as the one before."""
        names = [f"stream{i}" for i in range(self.stream_count)]
        names += [f"inner{i}" for i in range(self.knob_count - self.stream_count)]
        return {name: self._options(32 * 2 ** self._stream_of(name)) for name in names}

    def _stream_of(self, name: str) -> int:
        return int(name.removeprefix("stream").removeprefix("inner")) % self.stream_count

    def _options(self, width: int) -> tuple[int, ...]:
        return tuple(int(w) for w in np.unique(np.linspace(width / 4, width, self.level_count).round()))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        found = [Layer(None, "stream0", 32)]
        for i in range(self.stream_count):
            side = max(32 // 2**i, 4)
            if i:
                found.append(Layer(f"stream{i - 1}", f"stream{i}", side))
            for name in self.widths:
                if name.startswith("inner") and self._stream_of(name) == i:
                    found += [Layer(f"stream{i}", name, side), Layer(name, f"stream{i}", side)]
        return (*found, Layer(f"stream{self.stream_count - 1}", None, 1))

    @cached_property
    def space(self) -> Space:
        knobs: list[Knob] = [
            Choice(name, options, True, self._features(name), "width", self._made_by(name))
            for name, options in self.widths.items()
        ]
        if self.precision:
            knobs.append(Choice(PRECISION, ("fp32", "int8"), ordered=False))
        return Space(tuple(knobs))

    def _made_by(self, name: str) -> tuple[str, ...]:
        return tuple(f"layer{i}" for i, layer in enumerate(self.layers) if layer.target == name)

    def _features(self, name: str) -> Features:
        """Return facts about a width knob, similar to those of a real network."""
        macs = [float(layer.side**2 * np.prod([grid.max() for grid in self._grid(layer)])) for layer in self.layers]
        touching = [i for i, layer in enumerate(self.layers) if name in (layer.source, layer.target)]
        made = [i for i in touching if self.layers[i].target == name]
        first = self.layers[made[0]]
        return {
            "index": float(made[0]),
            "channels": float(self.widths[name][-1]),
            "input_channels": float(self._grid(first)[0].max()),
            "kernel": 3.0,
            "stride": 1.0,
            "height": float(first.side),
            "width": float(first.side),
            "layers": float(len(made)),
            "readers": float(len(touching) - len(made)),
            "share_of_macs": sum(macs[i] for i in touching) / sum(macs),
        }

    def latency(self, kernels: Kernels) -> Terms:
        """Return, as terms, the latency in milliseconds on a device with these kernels."""

        def time_ms(layer: Layer, c_in: NDArray[np.float64], c_out: NDArray[np.float64]) -> NDArray[np.float64]:
            tiles = np.ceil(c_in / kernels.tile_in) * np.ceil(c_out / kernels.tile_out)
            macs = 9.0 * layer.side**2 * tiles * kernels.tile_in * kernels.tile_out
            return np.asarray(kernels.overhead_ms + macs / 1e6 * kernels.ms_per_mega_mac)

        terms = [self._term(layer, time_ms(layer, *self._grid(layer))) for layer in self.layers]
        return self._terms(terms, kernels.int8_factor, offset=0.02)

    @cached_property
    def macs(self) -> Terms:
        terms = [self._term(x, 9.0 * x.side**2 * np.prod(self._grid(x), axis=0)) for x in self.layers]
        return self._terms(terms, 1.0)

    @cached_property
    def size_bytes(self) -> Terms:
        terms = [self._term(x, 36.0 * np.prod(self._grid(x), axis=0)) for x in self.layers]
        return self._terms(terms, 0.26, offset=2048.0)

    def _grid(self, layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the input and output channels at every level of the layer's knobs, with one axis per knob."""
        c_in = np.array(self.widths[layer.source] if layer.source else (3,), dtype=float)
        c_out = np.array(self.widths[layer.target] if layer.target else (10,), dtype=float)
        return np.broadcast_to(c_in[:, None], (len(c_in), len(c_out))), np.broadcast_to(c_out, (len(c_in), len(c_out)))

    def _term(self, layer: Layer, table: NDArray[np.float64]) -> Term:
        knobs = tuple(name for name in (layer.source, layer.target) if name is not None)
        return Term(knobs, table.reshape([len(self.widths[name]) for name in knobs]))

    def _terms(self, terms: Sequence[Term], int8_factor: float, offset: float = 0.0) -> Terms:
        if self.precision:
            factors = np.array([1.0, int8_factor])
            terms = [Term((*term.knobs, PRECISION), term.table_ms[..., None] * factors) for term in terms]
        return Terms(self.space.names, offset, 1.0, tuple(terms))

    @cached_property
    def accuracy(self) -> AccuracyModel:
        rng = np.random.default_rng([self.seed, 1])
        names = list(self.widths)
        count = len(names)
        neighbours = np.zeros((count, count))
        for layer in self.layers:
            if layer.source and layer.target:
                pair = names.index(layer.source), names.index(layer.target)
                neighbours[pair] = rng.exponential(0.04)
        return AccuracyModel(
            keep=[np.array(options) / options[-1] for options in self.widths.values()],
            sensitivity=0.12 * rng.lognormal(-0.5, 1.0, count),
            curvature=rng.uniform(1.0, 4.0, count),
            neighbours=neighbours,
            int8_loss=float(rng.uniform(0.0, 0.01)),
        )


@dataclass(frozen=True, eq=False)
class AccuracyModel:
    """Model of the score (n,) at (n, d) levels, between chance and the original's score, without noise."""

    keep: Sequence[NDArray[np.float64]]
    sensitivity: NDArray[np.float64]
    curvature: NDArray[np.float64]
    neighbours: NDArray[np.float64]
    int8_loss: float
    original: float = 0.92
    chance: float = 0.10

    def __call__(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        count = len(self.keep)
        cut = np.stack([1.0 - self.keep[k][levels[:, k]] for k in range(count)], axis=1)
        alone = np.expm1(self.curvature * cut) / np.expm1(self.curvature)
        loss = alone @ self.sensitivity + ((cut @ self.neighbours) * cut).sum(axis=1)
        if levels.shape[1] > count:
            loss = loss + levels[:, count] * self.int8_loss * (1.0 + cut.mean(axis=1))
        return np.asarray(self.chance + (self.original - self.chance) * np.exp(-loss))

"""The proof without hardware: on a device with known truth the whole chain reaches the published accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
from hw_networks import ResidualNetwork, random_networks
from scipy.stats import kendalltau

from hw_profiles.ops import Op
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables import calibration
from hw_profiles.tables.anchors import Session, session
from hw_profiles.tables.features import features_of
from hw_profiles.tables.probe import probe
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.timing.copies_timing import slope_models, slope_timing
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample

BLOCKS, NETWORKS = BurstProtocol(), BurstProtocol(min_rounds=20, split_half=0.015)


class Bench:
    """A simulated machine with anchors: every measurement is a session with a drift of its own."""

    def __init__(self, seed: int) -> None:
        self.runtime = SimulatedRuntime(seed=seed)
        self.device = self.runtime.configs("sim")[0]
        self._anchors = {f"anchor {i}": n.model() for i, n in enumerate(random_networks(3, seed=99))}
        self._reference = self._quiet(self.runtime.time(self._anchors, self.device, NETWORKS))

    def networks_us(self, networks: Sequence[ResidualNetwork]) -> np.ndarray:
        """Whole networks, scaled by the anchors of their session; shape (networks,)."""
        models = {str(index): network.model() for index, network in enumerate(networks)}
        quiet = self._quiet(self.runtime.time({**models, **self._anchors}, self.device, NETWORKS))
        return np.array([quiet[key] for key in models]) * self._session(quiet).scale

    def rows(self, ops: Iterable[Op]) -> list[Row]:
        """Slope rows, measured in batches of 64 as a lease would be, scaled by the anchors of their session."""
        pending = list({op.key: op for op in ops}.values())
        return [row for start in range(0, len(pending), 64) for row in self._batch(pending[start : start + 64])]

    def _batch(self, ops: Sequence[Op]) -> list[Row]:
        models = {(op.key, part): model for op in ops for part, model in enumerate(slope_models(op))}
        named = {f"{key}:{part}": model for (key, part), model in models.items()}
        results = self.runtime.time({**named, **self._anchors}, self.device, BLOCKS)
        scale = self._session(self._quiet(results)).scale
        rows = []
        for op in ops:
            low, high = results[f"{op.key}:0"], results[f"{op.key}:1"]
            assert isinstance(low, Sample)
            assert isinstance(high, Sample)
            rows.append(Row.of(op, slope_timing(low, high), scale, epoch=1))
        return rows

    def _session(self, quiet: dict[str, float]) -> Session:
        found = session(self._reference, quiet, quiet)
        assert found.accepted
        return found

    @staticmethod
    def _quiet(results: Mapping[str, Sample | Failure]) -> dict[str, float]:
        return {key: r.timing().quiet_us for key, r in results.items() if isinstance(r, Sample)}


def calibrated(table: LatencyTable, bench: Bench, networks: Sequence[ResidualNetwork]) -> LatencyTable:
    sums, sigmas = table.sums_us([network.ops for network in networks])
    fitted = calibration.calibrate(sums.tolist(), sigmas.tolist(), bench.networks_us(networks).tolist())
    return table.updated(calibration=fitted)


@pytest.mark.parametrize("step", [1, 4])
def test_a_filled_table_predicts_networks_it_never_saw(step: int) -> None:
    bench = Bench(seed=11)
    known, held_out = random_networks(20, 1, step), random_networks(50, 2, step)
    rows = bench.rows(op for network in (*known, *held_out) for op in network.ops)
    table = LatencyTable(bench.device, 1).updated(rows)
    table = calibrated(table, bench, known)

    truth_us = bench.networks_us(held_out)
    predictions = table.predict([network.ops for network in held_out])
    predicted_us = np.array([p.latency_us for p in predictions])
    errors = np.abs(predicted_us / truth_us - 1.0)
    inside = [p.low_us <= t <= p.high_us for p, t in zip(predictions, truth_us, strict=True)]

    assert errors.mean() <= 0.03
    assert (errors <= 0.10).mean() >= 0.99
    assert kendalltau(predicted_us, truth_us).statistic >= 0.9
    assert np.mean(inside) >= 0.9
    assert all(p.coverage == 1.0 and not p.missing for p in predictions)


def test_a_third_of_the_table_goes_a_long_way() -> None:
    """Kernel classes and the Gaussian process stand in for two thirds of the entries."""
    bench = Bench(seed=12)
    known, held_out = random_networks(20, 1), random_networks(50, 2)
    every = list({op.key: op for network in (*known, *held_out) for op in network.ops}.values())
    chosen = np.random.default_rng(0).permutation(len(every))[: len(every) // 3]
    curves = probe()
    probed = bench.rows(curves.ops)
    classes = curves.learn({row.key: row.latency_us for row in probed})
    table = LatencyTable(bench.device, 1, classes=classes).updated([*probed, *bench.rows(every[i] for i in chosen)])
    table = calibrated(table, bench, known)

    truth_us = bench.networks_us(held_out)
    predictions = table.predict([network.ops for network in held_out])
    predicted_us = np.array([p.latency_us for p in predictions])
    errors = np.abs(predicted_us / truth_us - 1.0)
    sources = {entry.source for p in predictions for entry in p.blocks}

    assert sources == {"measured", "class", "gp"}
    assert errors.mean() <= 0.06
    assert kendalltau(predicted_us, truth_us).statistic >= 0.8
    assert all(0.0 < p.coverage <= 1.0 for p in predictions)


def test_macs_would_not_have_done() -> None:
    """The bar is worth something: a line through MACs is far behind on the same networks."""
    bench = Bench(seed=13)
    networks = random_networks(50, 2, step=1)
    truth_us = bench.networks_us(networks)
    macs = np.array([sum(features_of(op)["macs"] for op in network.ops) for network in networks])
    fitted = np.polynomial.Polynomial.fit(macs, truth_us, 1)(macs)
    assert np.abs(fitted / truth_us - 1.0).mean() > 0.06
    assert kendalltau(fitted, truth_us).statistic < 0.8

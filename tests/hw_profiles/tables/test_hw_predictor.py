from __future__ import annotations

import sys

import numpy as np
import pytest
from hw_networks import convolution

from hw_profiles.errors import ExtraMissing
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.features import Features, features_of
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.predictor import MIN_ROWS, KindPredictor, columns, work
from hw_profiles.timing.copies_timing import slope_models

CLASSES = KernelClasses(out_step=16, in_step=16, in_modulus=4, in_threshold=16, slow_path=1.8)


def truths(count: int, seed: int) -> tuple[list[Features], np.ndarray]:
    """Random convolutions with what the simulated device says that they cost."""
    runtime = SimulatedRuntime()
    rng = np.random.default_rng(seed)
    found, latencies = [], []
    for _ in range(count):
        into, out, size = int(rng.integers(4, 65)), int(rng.integers(4, 65)), int(rng.choice([8, 16, 32]))
        op = convolution(into, out, size)
        low, high = (runtime.truth_us(model) for model in slope_models(op))
        found.append(features_of(op))
        latencies.append((high - low) / 3)
    return found, np.array(latencies)


def errors(classes: KernelClasses) -> np.ndarray:
    known, held_out = truths(60, 0), truths(60, 1)
    answer = KindPredictor(known[0], known[1].tolist(), classes).predict(held_out[0])
    assert answer is not None
    assert answer[1].shape == held_out[1].shape
    assert (answer[1] > 0).all()
    return np.abs(answer[0] / held_out[1] - 1.0)


def test_knowing_the_kernel_classes_makes_it_good() -> None:
    aware, plain = errors(CLASSES), errors(KernelClasses())
    assert aware.mean() < 0.06
    assert aware.mean() < 0.5 * plain.mean()


def test_the_interval_holds_most_truths() -> None:
    known, held_out = truths(60, 0), truths(60, 1)
    answer = KindPredictor(known[0], known[1].tolist(), CLASSES).predict(held_out[0])
    assert answer is not None
    inside = np.abs(answer[0] - held_out[1]) <= 1.96 * answer[1]
    assert inside.mean() >= 0.85


def test_too_few_rows_say_nothing() -> None:
    known, latencies = truths(MIN_ROWS - 1, 0)
    assert KindPredictor(known, latencies.tolist(), CLASSES).predict(known) is None


def test_rows_all_alike_are_no_trouble() -> None:
    known, latencies = truths(1, 0)
    answer = KindPredictor(known * MIN_ROWS, latencies.tolist() * MIN_ROWS, CLASSES).predict(known)
    assert answer is not None
    assert answer[0] == pytest.approx(latencies, rel=0.01)


def test_columns_are_finite_and_see_what_the_kernel_pays_for() -> None:
    same = [features_of(convolution(32, out, 16)) for out in (17, 20, 31)]
    values = columns(same, CLASSES)
    assert values.shape == (3, 12)
    assert np.isfinite(values).all()
    paid_out = values[:, 1]
    assert np.ptp(paid_out) == 0.0
    assert work(same[2]) > work(same[0])


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known, latencies = truths(MIN_ROWS, 0)
    monkeypatch.setitem(sys.modules, "sklearn.gaussian_process", None)
    with pytest.raises(ExtraMissing, match=r"pip install '\.\[server\]'"):
        KindPredictor(known, latencies.tolist(), CLASSES).predict(known)

"""The benchmark refuses sessions whose anchors disagree, in every lease anew."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.tables.probe import probe
from hw_profiles.timing.protocol import BurstProtocol, Sample

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LEASE = 8


def test_each_lease_is_refused_as_often_as_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    predictor_accuracy = importlib.import_module("predictor_accuracy")
    monkeypatch.setattr(predictor_accuracy, "LEASE", LEASE)
    ops = probe().ops[: 3 * LEASE]
    slope_us = {op.key: 10.0 + number for number, op in enumerate(ops)}
    sessions: list[tuple[str, ...]] = []

    def samples(bench: Any, files: Mapping[str, Any], protocol: BurstProtocol) -> dict[str, Any]:
        sessions.append(tuple(files))
        anchors = [op.key for op in bench._anchors if op.key in files]
        # Half of the anchors take twice as long, the others half: no factor brings them back.
        off = {key: (2.0 if number % 2 else 0.5) for number, key in enumerate(anchors)}

        def sample(key: str, copies: int) -> Sample:
            latency_us = 50.0 + copies * slope_us[key] * off.get(key, 1.0)
            return Sample(key, (latency_us,) * 4, (latency_us,) * 4)

        return {key: {"low": sample(key, 1), "high": sample(key, 4)} for key in files}

    monkeypatch.setattr(predictor_accuracy.Bench, "samples", samples)
    said: list[str] = []
    rows = predictor_accuracy.Bench(tmp_path, said.append).rows(ops)
    assert len(rows) == len(ops)
    redone = predictor_accuracy.REDONE + 1
    assert len(sessions) == 1 + redone + redone
    assert sum("accepted after" in text for text in said) == 2

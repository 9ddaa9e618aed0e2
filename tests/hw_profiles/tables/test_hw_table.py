from __future__ import annotations

import json
import math

import pytest
from hw_blocks import BLOCKS, conv

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Op
from hw_profiles.tables.calibration import SESSION_NOISE, Calibration
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import CLASS_SIGMA_FLOOR, LatencyTable, Row
from hw_profiles.timing.protocol import Timing

DEVICE = DeviceConfig("bench", "simulated", "simulated", "1")
CLASSES = KernelClasses(out_step=16, in_step=16, in_modulus=4, in_threshold=16, slow_path=1.8)


def row(op: Op, latency_us: float, sigma_us: float = 0.5, **extra: str) -> Row:
    facts = {"sigma_us": sigma_us, **extra}
    return Row.of(op, Timing(latency_us, latency_us, latency_us, 0.001, 5, facts), epoch=1)


def table(*rows: Row, classes: KernelClasses = CLASSES) -> LatencyTable:
    return LatencyTable(DEVICE, 1, classes=classes).updated(rows)


def test_a_measured_row_is_answered_as_it_is() -> None:
    entry = table(row(conv(), 50.0)).lookup(conv())
    assert (entry.latency_us, entry.sigma_us, entry.source) == (50.0, 0.5, "measured")


def test_a_row_of_the_same_class_stands_in_with_the_spread_of_the_class() -> None:
    rows = [row(conv(out=20), 50.0), row(conv(out=24), 54.0), row(conv(out=40), 90.0)]
    entry = table(*rows).lookup(conv(out=28))
    assert (entry.latency_us, entry.sigma_us, entry.source) == (52.0, 2.0, "class")
    lonely = table(rows[0]).lookup(conv(out=28))
    assert lonely.sigma_us == pytest.approx(CLASS_SIGMA_FLOOR * 50.0)


@pytest.mark.parametrize("other", [conv(out=33), conv(into=18, out=20), conv(out=20, size=4), conv(out=20, k=1)])
def test_another_class_does_not_stand_in(other: Op) -> None:
    assert table(row(conv(out=20), 50.0)).lookup(other).source == "missing"


def test_without_classes_nothing_stands_in() -> None:
    assert table(row(conv(out=20), 50.0), classes=KernelClasses()).lookup(conv(out=24)).source == "missing"


def test_enough_rows_of_the_kind_predict_the_rest() -> None:
    rows = [row(conv(into=into, out=out), 0.02 * into * out) for into in (16, 32, 48) for out in (16, 32, 48, 64)]
    entry = table(*rows).lookup(conv(into=32, out=80))
    assert entry.source == "gp"
    assert entry.latency_us == pytest.approx(0.02 * 32 * 80, rel=0.15)
    assert entry.sigma_us > 0


def test_a_kind_without_rows_is_a_guess_as_uncertain_as_it_is_large() -> None:
    entry = table(row(conv(), 50.0)).lookup(BLOCKS["gemm"])
    assert entry.source == "missing"
    assert entry.latency_us == entry.sigma_us > 0
    assert math.isnan(table().latency_us(BLOCKS["gemm"]))


def test_a_suspect_row_is_trusted_less() -> None:
    assert row(conv(), 50.0, suspect="fusion_mismatch").sigma_us == pytest.approx(5.0)


def test_the_session_scale_reaches_latency_and_deviation() -> None:
    scaled = Row.of(conv(), Timing(50.0, 50.0, 50.0, 0.0, 5, {"sigma_us": 1.0}), scale=1.1)
    assert (scaled.latency_us, scaled.sigma_us) == (pytest.approx(55.0), pytest.approx(1.1))
    assert Row.of(conv(), Timing(-0.2, 0.0, 0.0, 0.0, 5, {})).latency_us == 0.0


def test_a_prediction_sums_calibrates_and_counts_repeats() -> None:
    rows = [row(conv(), 50.0, 1.0), row(conv(k=1), 20.0, 2.0)]
    calibrated = table(*rows).updated(calibration=Calibration(a_us=10.0, b=1.1, residual=0.0, quantile=2.0, networks=9))
    prediction = calibrated.predict([[conv(), conv(), conv(k=1)]])[0]
    assert prediction.latency_us == pytest.approx(10.0 + 1.1 * 120.0)
    # the same row twice errs together: 2 * 1.0 and 2.0, independent
    assert prediction.sigma_us == pytest.approx(1.1 * math.hypot(2.0, 2.0))
    session_us = 1.96 * SESSION_NOISE * prediction.latency_us
    half_us = math.hypot(2.0 * prediction.sigma_us, session_us)
    assert prediction.high_us - prediction.latency_us == pytest.approx(half_us)
    assert prediction.latency_us - prediction.low_us == pytest.approx(half_us)
    assert [entry.latency_us for entry in prediction.blocks] == [50.0, 50.0, 20.0]
    assert (prediction.coverage, prediction.missing) == (1.0, ())


def test_coverage_is_a_share_of_time_and_missing_names_each_op_once() -> None:
    mixed = table(row(conv(), 50.0))
    gap = BLOCKS["gemm"]
    prediction = mixed.predict([[conv(), gap, gap]])[0]
    guess_us = mixed.latency_us(gap)
    assert prediction.coverage == pytest.approx(50.0 / (50.0 + 2 * guess_us))
    assert prediction.missing == (gap,)
    nothing = table().predict([[conv()]])[0]
    assert nothing.coverage == 0.0
    assert math.isnan(nothing.latency_us)


def test_the_most_uncertain_missing_op_comes_first() -> None:
    small, large = BLOCKS["gemm"], BLOCKS["matmul"]
    assert table(row(conv(), 50.0)).predict([[small, large]])[0].missing == (large, small)


def test_a_batch_answers_like_single_calls_and_an_empty_batch_is_empty() -> None:
    filled = table(row(conv(), 50.0), row(conv(k=1), 20.0))
    networks = [[conv()], [conv(k=1), conv()], []]
    assert filled.predict(networks) == tuple(filled.predict([network])[0] for network in networks)
    assert filled.predict([]) == ()
    sums, sigmas = filled.sums_us(networks)
    assert sums.tolist() == [50.0, 70.0, 0.0]
    assert sigmas.shape == (3,)


def test_a_snapshot_never_changes() -> None:
    before = table(row(conv(), 50.0))
    after = before.updated([row(conv(), 40.0), row(conv(k=1), 20.0)], epoch=2)
    assert (before.latency_us(conv()), before.epoch, len(before.rows)) == (50.0, 1, 1)
    assert (after.latency_us(conv()), after.epoch, len(after.rows)) == (40.0, 2, 2)


def test_lookups_are_cached_by_key() -> None:
    filled = table(row(conv(out=20), 50.0))
    assert filled.lookup(conv(out=24)) is filled.lookup(conv(out=24))


def test_what_was_looked_up_stays_while_rows_and_classes_are_the_same() -> None:
    before = table(row(conv(out=20), 50.0))
    entry = before.lookup(conv(out=24))
    assert before.updated(calibration=Calibration(a_us=3.0), epoch=2).lookup(conv(out=24)) is entry
    assert before.updated(classes=KernelClasses()).lookup(conv(out=24)).source == "missing"
    assert before.updated([row(conv(out=24), 60.0)]).lookup(conv(out=24)).source == "measured"


def test_json_round_trip() -> None:
    filled = table(row(conv(), 50.0), row(BLOCKS["gemm"], 3.0)).updated(calibration=Calibration(a_us=3.0))
    again = LatencyTable.from_json(json.loads(json.dumps(filled.to_json(), allow_nan=False)))
    assert again == filled
    assert again.lookup(conv()) == filled.lookup(conv())


def test_wrong_json_names_the_field() -> None:
    data = table(row(conv(), 50.0)).to_json()
    with pytest.raises(InvalidInput, match="table: lacks the field 'rows'"):
        LatencyTable.from_json({key: value for key, value in data.items() if key != "rows"})
    with pytest.raises(InvalidInput, match="latency_us"):
        Row.from_json({**data["rows"][0], "latency_us": -1.0})
    with pytest.raises(InvalidInput, match="row"):
        Row.from_json({**data["rows"][0], "speed": 1.0})
    features = {k: v for k, v in data["rows"][0]["features"].items() if k != "kernel"}
    with pytest.raises(InvalidInput, match=r"features.*kernel"):
        Row.from_json({**data["rows"][0], "features": features})

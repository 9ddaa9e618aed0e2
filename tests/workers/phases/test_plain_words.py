"""Words of the report and the log: no training is called none, and a broken bound has its metric's format."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from search.metrics import parse_limits, row_of
from workers.judging import judged
from workers.phases import package


def _findings(*epochs: int) -> Any:
    trained = [SimpleNamespace(trained=SimpleNamespace(name="a", epochs=each)) for each in epochs]
    return cast(Any, SimpleNamespace(judged=trained))


def test_no_epochs_are_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "common_epochs", lambda context: 0)
    assert package._training(cast(Any, None), _findings(0)) == "not trained"
    assert package._training(cast(Any, None), _findings(2)).startswith("0 epochs")
    monkeypatch.setattr(package, "common_epochs", lambda context: 1)
    assert (
        package._training(cast(Any, None), _findings(1)) == "1 epoch, distilled from the original, as was the control"
    )


def test_a_broken_bound_has_the_format_of_its_metric() -> None:
    (constraint,) = parse_limits({"min_accuracy": 0.933333}, {"accuracy": 0.95})
    said = judged._over("min_accuracy", constraint, 0.346667)
    assert said == "min_accuracy does not hold: accuracy is 34.67%, and the bound is 93.33%"


@pytest.mark.parametrize(("mean", "starts"), [(-0.0033, "gained 0.33%"), (0.0033, "lost 0.33%")])
def test_a_better_network_has_gained(mean: float, starts: str) -> None:
    plan = cast(Any, SimpleNamespace(metric_row=row_of("accuracy")))
    lost = cast(Any, SimpleNamespace(mean=mean, low=mean - 0.01, high=mean + 0.01, count=300))
    assert judged._change(plan, lost).startswith(starts)

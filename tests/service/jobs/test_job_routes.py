"""Jobs over REST: submitted, refused, listed, steered, deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_world import HandClock, Uploaded, add_model, queue
from sqlalchemy import text as sql

from service.jobs import catalogue
from service.jobs.body import JobCreate, NamedBody
from service.store import Store
from service.store.jobs import job_leases
from service.store.uploads import models, scores

JOBS = "/api/v1/jobs"
OBJECTIVE = ("objective.metric", "size_bytes")
DROP = {"limits": {"max_accuracy_drop": 0.01}}


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "net", "dataset": "digits", "targets": [], **changes}


def test_a_job_is_queued_with_ids_and_all_defaults(client: TestClient, uploaded: Uploaded) -> None:
    target = {"device": "local-simulated-t1-fp32", "max_latency_ms": 5.0}
    answer = client.post(JOBS, json=body(name="first", targets=[target], limits={"max_accuracy_drop": 0.01}))
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"{JOBS}/{job['id']}"
    assert (job["model"], job["dataset"]) == (uploaded.model_id, uploaded.dataset_id)
    assert job["targets"] == [
        {
            "device": uploaded.device_id,
            "device_name": "local-simulated-t1-fp32",
            "max_latency_ms": 5.0,
            "max_latency_ratio": None,
            "statistic": "p50",
            "batch": 1,
        }
    ]
    assert (job["task"], job["metric"], job["objective"]["metric"]) == ("classification", "accuracy", "accuracy")
    assert job["methods"][0]["name"] == "filter_prune"
    assert job["budget"] == {"evaluations": 60, "wall_s": 900.0, "finalists": 3}
    assert (job["state"], job["verdict"], job["best"], job["progress"]["fraction"]) == ("queued", None, None, 0.0)
    assert client.get(f"{JOBS}/first").json() == client.get(f"{JOBS}/{job['id']}").json() == job


def test_a_ratio_is_judged_quiet_unless_said_otherwise(client: TestClient, uploaded: Uploaded) -> None:
    targets = [{"device": uploaded.device_id, "max_latency_ratio": 0.5}]
    assert client.post(JOBS, json=body(targets=targets)).json()["targets"][0]["statistic"] == "quiet"
    targets[0]["statistic"] = "p95"
    assert client.post(JOBS, json=body(targets=targets)).json()["targets"][0]["statistic"] == "p95"


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"model": "nothing"}, "model", "nothing"),
        ({"dataset": "nothing"}, "dataset", "nothing"),
        ({"targets": [{"device": "nothing", "max_latency_ms": 1}]}, "targets.0.device", "nothing"),
        ({"targets": [{"device": "dev_1", "max_latency_ms": 0}]}, "targets.0.max_latency_ms", 0),
        ({"targets": [{"device": "dev_1", "max_latency_ms": 1, "batch": 8}]}, "targets.0.batch", 8),
        ({"targets": [{"device": "dev_1", "max_latency_ms": 1}] * 2}, "targets.1.device", "dev_1"),
        ({"methods": ["magic"]}, "methods.0", "magic"),
        ({"strategies": ["magic"]}, "strategies.0", "magic"),
        ({"strategies": ["random", "random"]}, "strategies.1", "random"),
        ({"strategies": [{"name": "random", "settings": {"x": 1}}]}, "strategies.0.settings.x", 1),
        ({"limits": {"max_acuracy_drop": 0.1}}, "limits.max_acuracy_drop", 0.1),
        ({"limits": {"max_latency_ms": 3.0}}, "limits.max_latency_ms", 3.0),
        ({"limits": {"min_macs": 10, "max_macs": 5}}, "limits.min_macs", 10),
        ({"limits": {"min_test_accuracy": 0.5}}, "limits.min_test_accuracy", 0.5),
        ({"limits": {"max_accuracy_drop": -1.0}}, "limits.max_accuracy_drop", -1.0),
        ({"objective": {"metric": "beauty"}}, "objective.metric", "beauty"),
        ({"objective": {"metric": "accuracy", "goal": "min"}}, "objective.goal", "min"),
        ({"objective": {"metric": "test_accuracy", "goal": "max"}}, "objective.metric", "test_accuracy"),
        ({"objective": {"metric": "macs", "goal": "max"}}, "objective.goal", "max"),
        ({"objective": {"metric": "macs", "goal": "min"}}, "objective.metric", "macs"),
        ({"objective": {"metric": "size_bytes", "goal": "min"}, **DROP}, "strategies.0", "greedy"),
        ({"objective": {"metric": "size_bytes", "goal": "min"}, "limits": {"max_accuracy": 0.9}}, *OBJECTIVE),
        ({"objective": {"metric": "latency_ms", "goal": "min"}, **DROP}, "objective.metric", "latency_ms"),
        ({"metric": "beauty"}, "metric", "beauty"),
        ({"task": "poetry"}, "task", "poetry"),
        ({"budget": {"evaluations": 0}}, "budget.evaluations", 0),
        ({"training": {"epochs": -1}}, "training.epochs", -1),
        ({"training": {"attention": -0.5}}, "training.attention", -0.5),
        ({"seed": -1}, "seed", -1),
        ({"name": "Not A Name"}, "name", "Not A Name"),
        ({"name": "job_7"}, "name", "job_7"),
        ({"colour": "red"}, "colour", "red"),
        ({"budget": {"colour": "red"}}, "budget.colour", "red"),
    ],
)
def test_what_is_wrong_is_named_with_the_value_seen(
    client: TestClient, uploaded: Uploaded, changes: dict[str, Any], field: str, value: object
) -> None:
    answer = client.post(JOBS, json=body(**changes))
    assert answer.status_code == 422
    problem = answer.json()
    assert [(error["field"], error["value"]) for error in problem["errors"]] == [(field, value)]
    assert problem["errors"][0]["message"]
    assert client.get(JOBS).json()["total"] == 0


@pytest.mark.parametrize("method", ["fp16", "int8_ptq"])
def test_one_sparsity_needs_a_method_that_has_one(client: TestClient, uploaded: Uploaded, method: str) -> None:
    answer = client.post(JOBS, json=body(methods=[method], strategies=["greedy", "bayesian"]))
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("strategies.1", "bayesian")
    assert "filter_prune, weight_prune" in error["message"]


def test_a_strategy_may_train_whole_samples_without_a_sparsity(
    client: TestClient, uploaded: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = dict(catalogue.strategies())
    known["bayesian"] = replace(known["bayesian"], needs_sparsity=False)
    monkeypatch.setattr(catalogue, "strategies", lambda: known)
    assert client.post(JOBS, json=body(methods=["int8_ptq"], strategies=["bayesian"])).status_code == 201
    known["greedy"] = replace(known["greedy"], needs_sparsity=True)
    answer = client.post(JOBS, json=body(methods=["int8_ptq"], strategies=["greedy"]))
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("strategies.0", "greedy")


def test_a_body_can_be_made_of_parts() -> None:
    made = JobCreate(model="net", dataset="digits", strategies=[NamedBody(name="greedy")])
    assert made == JobCreate.model_validate(body(strategies=["greedy"], name=made.name))


def test_an_unknown_limit_is_told_those_that_a_job_can_have(client: TestClient, uploaded: Uploaded) -> None:
    answer = client.post(JOBS, json=body(limits={"speed": 1.0}))
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["field"]) == (422, "limits.speed")
    assert "max_macs_ratio" in error["message"]
    assert not any(name in error["message"] for name in ("latency", "test_accuracy"))


def test_what_is_probably_not_meant_is_taken_with_a_warning(client: TestClient, uploaded: Uploaded) -> None:
    answer = client.post(JOBS, json=body(strategies=["greedy", "random"], budget={"evaluations": 1}))
    assert answer.status_code == 201
    first, second = answer.json()["warnings"]
    assert "2 strategies share 1" in first
    assert "nothing asks for a smaller network" in second
    for limits in (DROP, {"limits": {"max_accuracy_drop": 0}}):
        assert client.post(JOBS, json=body(**limits)).json()["warnings"] == []


@pytest.mark.parametrize("metric", ["size_bytes", "stored_bytes", "latency_ms"])
def test_the_least_of_a_cost_is_an_objective_of_searches_that_train(
    client: TestClient, uploaded: Uploaded, metric: str
) -> None:
    targets = [{"device": uploaded.device_id, "max_latency_ms": 5.0}]
    wanted = {"objective": {"metric": metric, "goal": "min"}, "strategies": ["bayesian", "bisection"], **DROP}
    answer = client.post(JOBS, json=body(targets=targets, **wanted))
    assert answer.status_code == 201, answer.text
    assert answer.json()["objective"] == {"metric": metric, "goal": "min"}


def test_the_goal_is_the_metrics_own(client: TestClient, uploaded: Uploaded) -> None:
    wanted = {"methods": ["weight_prune"], "strategies": ["bayesian"], "limits": {"max_accuracy_drop": 0}}
    answer = client.post(JOBS, json=body(objective={"metric": "nonzeros"}, **wanted))
    assert answer.status_code == 201, answer.text
    assert answer.json()["objective"] == {"metric": "nonzeros", "goal": "min"}
    assert client.post(JOBS, json=body()).json()["objective"] == {"metric": "accuracy", "goal": "max"}


@pytest.mark.parametrize("metric", ["macs", "size_bytes", "parameters"])
def test_an_objective_is_something_that_a_method_lowers(client: TestClient, uploaded: Uploaded, metric: str) -> None:
    wanted = {"methods": ["weight_prune"], "strategies": ["bayesian"], **DROP}
    answer = client.post(JOBS, json=body(objective={"metric": metric}, **wanted))
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["field"], error["value"]) == (422, "objective.metric", metric)
    assert error["message"].startswith("none of the methods (weight_prune) lowers it; filter_prune")


def test_a_target_for_methods_that_make_nothing_faster_is_told(client: TestClient, uploaded: Uploaded) -> None:
    targets = [{"device": uploaded.device_id, "max_latency_ratio": 0.5}]
    answer = client.post(JOBS, json=body(targets=targets, methods=["weight_prune", "fp16"]))
    assert answer.status_code == 201
    says = "targets: no method of the job makes a network faster (weight_prune, fp16)"
    assert says in answer.json()["warnings"]


def test_a_ratio_of_one_or_more_is_told(client: TestClient, uploaded: Uploaded) -> None:
    targets = [{"device": uploaded.device_id, "max_latency_ratio": 1.0}]
    for asked, field in (
        ({"targets": targets}, "targets.0.max_latency_ratio"),
        ({"limits": {"max_macs_ratio": 2}}, "limits.max_macs_ratio"),
    ):
        says = f"{field}: a ratio of 1 or more asks for nothing smaller than the original"
        assert says in client.post(JOBS, json=body(**asked)).json()["warnings"]
    tight = body(targets=targets, limits={"max_macs_ratio": 0.5})
    assert not any("asks for nothing" in each for each in client.post(JOBS, json=tight).json()["warnings"])


def test_bounds_that_leave_no_room_name_each_other(client: TestClient, uploaded: Uploaded) -> None:
    answer = client.post(JOBS, json=body(limits={"max_macs": 5, "min_macs": 10, "max_macs_ratio": 0.5}))
    assert answer.json()["detail"] == "limits.min_macs: must be at most limits.max_macs, which is 5 (got 10.0)"
    for limits in ({"min_macs": 5, "max_macs": 5}, {"min_macs": 5, "max_macs": None}):
        assert client.post(JOBS, json=body(limits=limits)).status_code == 201


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": -5}, "seed: must be at least 0 (got -5)"),
        ({"budget": {"evaluations": 2.5}}, "budget.evaluations: must be a whole number (got 2.5)"),
        ({"task": None}, "(got null)"),
        ({"targets": [{"device": "d", "max_latency_ms": "5"}]}, "(got '5')"),
        ({"colour": "red"}, "colour: unknown key (got 'red')"),
        ({"task": "p" * 5000}, f"(got '{'p' * 198}…)"),
    ],
)
def test_the_detail_has_the_value_and_cuts_a_long_value(
    client: TestClient, uploaded: Uploaded, changes: dict[str, Any], says: str
) -> None:
    detail = client.post(JOBS, json=body(**changes)).json()["detail"]
    assert detail.endswith(says)
    assert len(detail) < 400


@pytest.mark.parametrize("name", ["max_accuracy", "max_accuracy_ratio"])
def test_an_upper_limit_on_a_score_is_refused(client: TestClient, uploaded: Uploaded, name: str) -> None:
    answer = client.post(JOBS, json=body(limits={name: 0.01}))
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["field"], error["value"]) == (422, f"limits.{name}", 0.01)
    assert "did you mean 'max_accuracy_drop'?" in error["message"]


def test_a_target_needs_exactly_one_limit(client: TestClient, uploaded: Uploaded) -> None:
    for limits in ({}, {"max_latency_ms": 1.0, "max_latency_ratio": 0.5}):
        answer = client.post(JOBS, json=body(targets=[{"device": "dev_1", **limits}]))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "targets.0"


def test_not_a_number_is_refused_and_shown(client: TestClient, uploaded: Uploaded) -> None:
    text = '{"model": "net", "dataset": "digits", "limits": {"max_accuracy_drop": NaN}}'
    answer = client.post(JOBS, content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["value"] == "nan"


def test_an_original_at_chance_is_refused_with_the_numbers(
    client: TestClient, store: Store, uploaded: Uploaded
) -> None:
    with store.begin() as tx:
        scores.keep(tx, scores.Score(model_id="mdl_1", dataset_id="dts_1", seed=0, right=110, count=1000, classes=10))
    answer = client.post(JOBS, json=body())
    assert (answer.status_code, answer.json()["code"]) == (422, "at_chance")
    assert "11.0%" in answer.json()["detail"]
    assert "chance is 10.0%" in answer.json()["detail"]
    forced = client.post(JOBS, json=body(force=True))
    assert forced.status_code == 201
    assert any("11.0%" in warning for warning in forced.json()["warnings"])


def test_no_prunable_group_is_refused_with_the_reasons(client: TestClient, store: Store, uploaded: Uploaded) -> None:
    with store.begin() as tx:
        sha256 = tx.session.execute(sql("SELECT sha256 FROM models")).scalar_one()
        add_model(tx, "stiff", sha256, model_id="mdl_2", prunable=False)
    answer = client.post(JOBS, json=body(model="stiff"))
    assert answer.status_code == 422
    assert "can be pruned: an output (got" in answer.json()["detail"]
    with store.begin() as tx:
        model = models.find(tx, "stiff")
        assert model is not None
        model.groups = []
    assert "can be pruned: it has none (got" in client.post(JOBS, json=body(model="stiff")).json()["detail"]


@pytest.mark.parametrize(("shape", "seen"), [([], "(batch)"), ([16, 32, 32], "(batch, 16, 32, 32)")])
def test_outputs_without_scores_are_refused(
    client: TestClient, store: Store, uploaded: Uploaded, shape: list[int], seen: str
) -> None:
    with store.begin() as tx:
        model = models.find(tx, uploaded.model_id)
        assert model is not None
        model.outputs = [{"name": "label", "shape": shape}, {"name": "map", "shape": [4, 4]}]
    answer = client.post(JOBS, json=body())
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("model", "net")
    assert error["message"].endswith(f"one score per class, (batch, classes): label {seen}, map (batch, 4, 4)")


def test_a_taken_name_is_a_conflict(client: TestClient, uploaded: Uploaded) -> None:
    assert client.post(JOBS, json=body(name="one")).status_code == 201
    answer = client.post(JOBS, json=body(name="one"))
    assert (answer.status_code, answer.json()["code"]) == (409, "name")


def test_lists_are_sorted_filtered_and_cut(
    client: TestClient, store: Store, uploaded: Uploaded, clock: HandClock
) -> None:
    target = [{"device": uploaded.device_id, "max_latency_ms": 1.0}]
    for name, targets in (("a", []), ("b", target), ("c", [])):
        queue(store, uploaded, name=name, targets=targets)
        clock.advance(1)
    page = client.get(JOBS, params={"page_size": 2}).json()
    assert ([job["name"] for job in page["items"]], page["total"], page["page"]) == (["c", "b"], 3, 1)
    assert [j["name"] for j in client.get(JOBS, params={"page_size": 2, "page": 2}).json()["items"]] == ["a"]
    assert [j["name"] for j in client.get(JOBS, params={"sort": "name"}).json()["items"]] == ["a", "b", "c"]
    on_device = client.get(JOBS, params={"device": "local-simulated-t1-fp32"}).json()
    assert [job["name"] for job in on_device["items"]] == ["b"]
    assert client.get(JOBS, params={"state": "running"}).json()["total"] == 0
    for query in ({"sort": "colour"}, {"page": 0}, {"page_size": 501}, {"state": "odd"}, {"device": "nothing"}):
        assert client.get(JOBS, params=query).status_code == 422


def test_pause_resume_cancel_of_a_waiting_job(client: TestClient, queued: str) -> None:
    def post(verb: str) -> tuple[int, str]:
        answer = client.post(f"{JOBS}/{queued}/{verb}")
        return answer.status_code, answer.json().get("state") or answer.json()["code"]

    assert post("resume") == (409, "state")
    assert post("pause") == (200, "paused")
    assert post("pause") == (409, "state")
    assert post("resume") == (200, "queued")
    assert post("cancel") == (200, "cancelled")
    assert post("cancel") == (200, "cancelled")
    assert post("pause") == (409, "state")


def test_a_running_job_is_asked_and_a_dead_one_ended(
    client: TestClient, store: Store, queued: str, clock: HandClock
) -> None:
    with store.begin() as tx:
        job_leases.claim(tx, "c1", 30, 5)
    asked = client.post(f"{JOBS}/{queued}/cancel").json()
    assert (asked["state"], asked["signal"]) == ("running", "cancel")
    clock.advance(31)
    assert client.post(f"{JOBS}/{queued}/cancel").json()["state"] == "cancelled"


def test_only_an_ended_job_is_deleted_or_retried(client: TestClient, queued: str) -> None:
    assert client.delete(f"{JOBS}/{queued}").status_code == 409
    assert client.post(f"{JOBS}/{queued}/retry").json()["code"] == "state"
    client.post(f"{JOBS}/{queued}/cancel")
    again = client.post(f"{JOBS}/{queued}/retry")
    assert again.status_code == 201
    assert (again.json()["retry_of"], again.json()["state"]) == (queued, "queued")
    assert client.delete(f"{JOBS}/{queued}").status_code == 204
    assert client.get(f"{JOBS}/{queued}").status_code == 404


def test_a_full_queue_says_when_to_come_back(client: TestClient, store: Store, uploaded: Uploaded) -> None:
    state = client.app.state.netlathe  # type: ignore[attr-defined]
    object.__setattr__(state, "settings", state.settings.model_copy(update={"max_queued_jobs": 1}))
    ended, key = queue(store, uploaded), {"Idempotency-Key": "once there is room"}
    client.post(f"{JOBS}/{ended}/cancel")
    waiting = client.post(JOBS, json=body()).json()["id"]
    for refused in (client.post(JOBS, json=body(), headers=key), client.post(f"{JOBS}/{ended}/retry")):
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == "60"
    assert client.get(JOBS).json()["total"] == 2
    client.post(f"{JOBS}/{waiting}/cancel")
    again = client.post(JOBS, json=body(), headers=key)  # a refusal is not kept under its key
    assert (again.status_code, "idempotent-replayed" in again.headers) == (201, False)


@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        ('{"model": "m",\n "dataset": }', "body", "is not JSON: Expecting value at line 2, column 13"),
        (b'{"model": "\xff"}', "body", "not UTF-8"),
        ("[" * 100_000, "body", "nested too deeply"),
        ('{"model": "a", "model": "b"}', "model", "the key occurs twice in one object"),
        ("[]", "body", "must be an object"),
    ],
)
def test_json_that_says_nothing_or_two_things_is_told_where(
    client: TestClient, raw: str | bytes, field: str, says: str
) -> None:
    answer = client.post(JOBS, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert says in error["message"]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"seed": "5"}, "seed", "must be a whole number"),
        ({"seed": True}, "seed", "must be a whole number"),
        ({"budget": {"evaluations": 2.5}}, "budget.evaluations", "must be a whole number"),
        ({"budget": {"evaluations": 0}}, "budget.evaluations", "must be at least 1"),
        ({"budget": {"wall_s": "60"}}, "budget.wall_s", "must be a number"),
        ({"budget": []}, "budget", "must be an object"),
        ({"methods": "int8_ptq"}, "methods", "must be a list"),
        ({"methods": [{"name": "int8_ptq", "settings": 3}]}, "methods.0.settings", "must be an object"),
        ({"strategies": ["greedy", 3]}, "strategies.1", "must be a name, or an object with name and settings"),
        ({"objective": {"metric": "accuracy", "goal": "most"}}, "objective.goal", "must be one of 'min' or 'max'"),
        ({"model": None}, "model", "must be text"),
        ({"name": 5}, "name", "must be text"),
    ],
)
def test_what_is_wanted_is_told_in_words_with_the_value(
    client: TestClient, uploaded: Uploaded, change: dict[str, Any], field: str, says: str
) -> None:
    answer = client.post(JOBS, json=body() | change)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["field"], error["message"]) == (field, says)


@pytest.mark.parametrize(
    ("strategies", "evaluations", "told"),
    [
        (["tpe"], 8, ["strategies.0: tpe needs 10 evaluations before it models anything; with a budget of 8 it is"]),
        (["tpe"], 10, ["strategies.0: tpe needs 10"]),
        (["tpe"], 11, []),
        (["greedy", {"name": "nsga2", "settings": {"population": 30}}], 30, ["strategies.1: nsga2 needs 30"]),
        ([{"name": "tpe", "settings": {"startup": 4}}, "greedy", "random"], 8, []),
    ],
)
def test_a_budget_within_a_strategys_startup_is_said(
    strategies: list[Any], evaluations: int, told: list[str], client: TestClient, uploaded: Uploaded
) -> None:
    answer = client.post(JOBS, json=body(strategies=strategies, budget={"evaluations": evaluations}))
    assert answer.status_code == 201, answer.text
    warnings = [text for text in answer.json()["warnings"] if text.startswith("strategies.")]
    assert len(warnings) == len(told)
    assert all(warning.startswith(text) for warning, text in zip(warnings, told, strict=True))

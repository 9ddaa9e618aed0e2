"""The package phase: offers the file, the report and the manifest, once a clean process has confirmed the file."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workers.judging.judged import Judged
from workers.judging.on_device import OnDevice
from workers.phases.engine_artifacts import engine_artifacts
from workers.phases.network_files import checked_file, device_rows, network_files
from workers.ports import Outcome, Verdict
from workers.profiling.timed_device import Profile
from workers.progress import ArtifactKind, Evaluated, Made, SummarisedDevices
from workers.reporting.clean_check import Checked
from workers.reporting.layers import LayerRow
from workers.reporting.report import html_report
from workers.reporting.summary import training_fields
from workers.running import durable
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.job_run import JobRun
from workers.training.common_epochs import common_epochs
from workers.training.trained import GivenUp, Trained

PACKAGES = ("netlathe", "torch", "onnx", "onnxruntime", "numpy", "scikit-learn", "safetensors")
_CHOICE = (
    "each finalist competes as training left it, after its best epoch and untrained, and the control as training left "
    "it and after its best epoch; the highest score on the validation images decides, which flatters all of them a "
    "little"
)


@dataclass(frozen=True)
class Untrained:
    """The nearest network of a job that ended before any training, with its layers. `candidate` is None if the search
    did not evaluate the network.
    """

    candidate: str | None
    strategy: str | None
    layers: Sequence[LayerRow]


@dataclass(frozen=True)
class Findings:
    """The contents of a report. `chosen` is the best network or, if the verdict is "missed", the network nearest to the
    limits. `layers` has the rows of each judged network by its name; `untrained` is set if no network was judged.
    `devices` has the result on each device of a job with several devices.
    """

    verdict: Verdict
    reason: str
    summaries: Mapping[str, Mapping[str, Any]]
    evaluated: Sequence[Evaluated] = ()
    judged: Sequence[Judged] = ()
    chosen: Trained | None = None
    warnings: Sequence[str] = ()
    given_up: Mapping[str, GivenUp] = field(default_factory=dict)
    layers: Mapping[str, Sequence[LayerRow]] = field(default_factory=dict)
    devices: Sequence[OnDevice] = ()
    untrained: Untrained | None = None


def package(run: JobRun, profile: Profile, findings: Findings) -> Outcome:
    """Write, check and offer the artifacts.

    Raises:
        JobFailed: the file behaves differently in a clean process.
        Halted: the user paused or cancelled the job.
    """
    context, inputs = run.context, run.inputs
    context.at("package", 0, 3)
    folder = context.folder("result")
    checked: Checked | None = None
    devices: list[dict[str, Any]] = []
    made: list[tuple[ArtifactKind, Path]] = []
    if findings.chosen is not None:
        files = network_files(context.plan.name, findings.chosen, findings.devices)
        checks = [checked_file(context, inputs, trained, folder / name) for name, trained in files.items()]
        checked = checks[0]
        made += [("onnx", folder / name) for name in files]
        devices = device_rows(files, findings.devices)
        engines = engine_artifacts(context, profile.devices, findings.judged, findings.chosen, folder)
        made += [("engine", file) for file in engines]
    context.at("package", 1, 3)
    report = _report(context, inputs, profile, findings, checked, devices)
    made.append(
        ("report_json", _written(context, folder / "report.json", json.dumps(report, indent=1, allow_nan=False)))
    )
    made.append(("report_html", _written(context, folder / "report.html", html_report(report))))
    manifest = _manifest(context, inputs, profile, findings, [path for _, path in made])
    made.append(
        ("manifest", _written(context, folder / "manifest.json", json.dumps(manifest, indent=1, allow_nan=False)))
    )
    of_devices = [SummarisedDevices(devices)] if devices else []
    context.ports.emit(*(Made(kind, path.name, path) for kind, path in made), *of_devices)
    context.at("package", 3, 3)
    return Outcome("finished", findings.verdict, findings.reason, findings.summaries)


def _report(
    context: Context,
    inputs: Inputs,
    profile: Profile,
    findings: Findings,
    checked: Checked | None,
    devices: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    plan = context.plan
    return {
        "job_id": plan.job_id,
        "name": plan.name,
        "task": plan.task,
        "metric": plan.metric,
        "verdict": findings.verdict,
        "reason": findings.reason,
        "warnings": list(findings.warnings),
        "summaries": {slot: dict(row) for slot, row in findings.summaries.items()},
        "targets": [
            {
                "device_id": timed.target.device_id,
                "device_name": timed.target.device_name,
                "statistic": timed.target.statistic,
                "limit_ms": timed.limit_ms,
                "floor_ms": profile.floor_ms(timed),
                "table_epoch": timed.table.epoch,
                "rows": len(timed.table.rows),
                "calibrations": [{**line.to_json(), "level": line.level} for line in timed.calibrations],
            }
            for timed in profile.devices
        ],
        "limits": dict(plan.limits),
        "devices": list(devices),
        "finalists": [_finalist(each, findings.layers[each.trained.name]) for each in findings.judged],
        "untrained": None if findings.untrained is None else asdict(findings.untrained),
        "evaluations": [_evaluation(each) for each in findings.evaluated],
        "recheck": None if checked is None else _recheck(plan.metric, checked),
        "facts": _facts(context, inputs, profile, findings),
    }


def _facts(context: Context, inputs: Inputs, profile: Profile, findings: Findings) -> dict[str, Any]:
    plan = context.plan
    search_s = sum(each.evaluation.elapsed_s for each in findings.evaluated)
    return {
        "network": plan.model.name,
        "data": plan.dataset.name,
        "methods": ", ".join(method.name for method in plan.methods),
        "strategies": ", ".join(strategy.name for strategy in plan.strategies),
        "F2 evaluations": sum(not e.cached and e.evaluation.candidate.fidelity == "F2" for e in findings.evaluated),
        "seconds of evaluation": round(search_s, 1),
        "seconds of search and training": round(context.spent_s, 1),
        "training": _training(context, findings),
        "weights": _CHOICE if findings.judged and common_epochs(context) else "as the search left them",
        "finalists given up": "; ".join(f"{name}: {why.reason}" for name, why in findings.given_up.items()) or "none",
        "validation images": len(inputs.dataset.validation),
        "test images": len(inputs.dataset.test),
        "lossless rewrite": "kept" if profile.network is inputs.rewritten is not inputs.folded else "none",
        "seed": plan.seed,
    }


def _training(context: Context, findings: Findings) -> str:
    if not findings.judged:
        return "none"
    epochs = common_epochs(context)
    longer = [f"{e.trained.name} had {e.trained.epochs}" for e in findings.judged if e.trained.epochs > epochs]
    if epochs == 0 and not longer:
        return "not trained"
    told = f"{epochs} epoch{'' if epochs == 1 else 's'}, distilled from the original, as was the control"
    return "; ".join([told, *longer]) + (" including its sample's" if longer else "")


def _recheck(metric: str, checked: Checked) -> dict[str, Any]:
    known = asdict(checked)
    return {metric: known.pop("score"), **known}


def _finalist(each: Judged, layers: Sequence[LayerRow]) -> dict[str, Any]:
    return {
        "name": each.trained.name,
        "candidate": each.trained.candidate_id,
        "strategy": each.trained.strategy,
        "values": dict(each.trained.values),
        each.metric: each.trained.score,
        "drop": asdict(each.drop),
        **training_fields(each.trained),
        "epoch_scores": [None if math.isnan(score) else score for score in each.trained.epoch_scores],
        "elapsed_s": each.trained.elapsed_s,
        "counts": dict(each.trained.counts),
        "timed": [asdict(timed) for timed in each.timed],
        "met": each.met,
        "broken": list(each.broken),
        "layers": [row.to_json() for row in layers],
    }


def _evaluation(each: Evaluated) -> dict[str, Any]:
    evaluation = each.evaluation
    return {
        "id": evaluation.candidate.id,
        "strategy": each.strategy,
        "fidelity": evaluation.candidate.fidelity,
        "status": evaluation.status.value,
        "values": dict(evaluation.candidate.values),
        "metrics": dict(evaluation.metrics),
        "feasible": each.feasible,
        "cached": each.cached,
        "elapsed_s": evaluation.elapsed_s,
        "reason": evaluation.reason,
        "table_epochs": dict(each.table_epochs),
    }


def _manifest(
    context: Context, inputs: Inputs, profile: Profile, findings: Findings, files: Sequence[Path]
) -> dict[str, Any]:
    plan = context.plan
    return {
        "job_id": plan.job_id,
        "verdict": findings.verdict,
        "inputs": {"model": plan.model.sha256, "dataset": plan.dataset.sha256},
        "files": {path.name: _sha256(path) for path in files},
        "values": dict(findings.chosen.values) if findings.chosen is not None else None,
        "preprocessing": inputs.preprocessing.to_json(),
        "seed": plan.seed,
        "plan": plan.to_json(),
        "devices": [
            {
                "device_id": timed.target.device_id,
                "table_epoch": timed.table.epoch,
                **timed.table.device.to_json(),
            }
            for timed in profile.devices
        ],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _written(context: Context, path: Path, text: str) -> Path:
    return durable.write(path, text.encode())

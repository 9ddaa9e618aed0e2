"""Every published figure, computed from the committed rows: `python benchmarks/report.py [--write]`.

Prints the part of docs/benchmarks.md that has the figures; with `--write`, it replaces the part between the page's two
markers. Nothing is measured here: the rows come from `benchmarks/results/`, and the goals from the benchmarks that made
the rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import actor_critic
import burst_protocol
import channel_masks
import event_streams
import f2_cost
import f2_overhead
import lc_against_direct
import lenet_compression
import predict_candidates
import predictor_accuracy
import proxy
import ray_dispatch
import resnet20_rest
import search_race
import sparsity_inference
import statistics_time
import student_budgets
import takeover
from reporting import compression, jobs, latency, race, searches
from reporting.figures import Rows

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- What follows is written by `python benchmarks/report.py --write`. -->"
END = "<!-- Here the written part ends. -->"


@dataclass(frozen=True)
class Report:
    """One file of rows: its title, the script that writes it, and the function that reports it."""

    title: str
    script: ModuleType
    blocks: Callable[[Rows], Iterator[str]]


REPORTS: Mapping[str, Report] = {
    "proxy": Report("How well cheap scores rank candidates", proxy, race.ranks),
    "search_race": Report("The race against its baselines", search_race, race.race),
    "resnet20_rest": Report("Jobs on ResNet-20 through REST", resnet20_rest, jobs.rest),
    "predictor_accuracy-fp32": Report("Predicted latencies, fp32", predictor_accuracy, latency.predictor),
    "predictor_accuracy-int8": Report("Predicted latencies, int8", predictor_accuracy, latency.predictor),
    "predict_candidates": Report("Time to predict candidates", predict_candidates, latency.candidates),
    "student_budgets": Report("Students for 20 budgets", student_budgets, latency.budgets),
    "burst_protocol": Report("Repeatability of a timing", burst_protocol, latency.bursts),
    "lc_against_direct": Report("L-C against direct compression", lc_against_direct, compression.against_direct),
    "lenet_compression": Report("LeNets at the inferred sparsity", lenet_compression, compression.lenets),
    "sparsity_inference": Report("Inferring a sparsity", sparsity_inference, compression.sparsities),
    "channel_masks": Report("Search over channel masks", channel_masks, compression.masks),
    "actor_critic": Report("Learning of ddpg", actor_critic, searches.learning),
    "f2_overhead": Report("F2 over bare forward passes", f2_overhead, jobs.overhead),
    "f2_cost": Report("F2 over a plain evaluation", f2_cost, jobs.cost),
    "statistics_time": Report("The statistics phase on MobileNetV2", statistics_time, jobs.phase),
    "ray_dispatch": Report("Overhead of Ray", ray_dispatch, jobs.dispatch),
    "event_streams": Report("Event streams", event_streams, jobs.streams),
    "takeover": Report("A conductor is killed", takeover, jobs.takeovers),
}


def rows(name: str) -> Rows:
    """Return the rows of one file; a benchmark that was never run has none."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def section(name: str) -> str:
    """Return the page's section for one file."""
    report = REPORTS[name]
    source = f"`benchmarks/{report.script.__name__}.py`, rows in `benchmarks/results/{name}.jsonl`."
    return "\n\n".join([f"### {report.title}", source, *report.blocks(rows(name))])


def generated() -> str:
    """Return all sections."""
    return "\n\n".join(section(name) for name in REPORTS)


def written(page: str, sections: str) -> str:
    """Return the page with these sections between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    if parser.parse_args().write:
        PAGE.write_text(written(PAGE.read_text(), generated()))
    else:
        print(generated())


if __name__ == "__main__":
    main()

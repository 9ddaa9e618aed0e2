"""Learning of `ddpg` on synthetic networks with known scores: `python benchmarks/actor_critic.py`.

Every form searches the same networks (WIDTHS widths and int8, at most 40 % of the latency) for EPISODES episodes, one
at a time. `unfilled` does not fill the room below the limit; `unlearned` never changes its actor, so that only the
noise decays; `random` is the baseline under the same limit. A row has the mean scores of the first and the last WINDOW
episodes and of all, the true score of the best, and the strategy's own processor time, without any evaluation. The
goals, for each seed: the last episodes score more than the first, and more than `random`. Finished rows are kept, so
that a second start goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stamp import stamp

from search.strategies import load
from search.strategy import Strategy
from search.synthetic.replay import Replay, make_replay, run

WIDTHS, EPISODES, WINDOW, SEEDS = 12, 300, 50, 5
FORMS: Mapping[str, Mapping[str, Any]] = {
    "random": {},
    "ddpg": {},
    "unfilled": {"fill": False},
    "unlearned": {"actor_lr": 0.0},
}
"""Settings that differ from the defaults."""
RESULTS = Path(__file__).parent / "results" / "actor_critic.jsonl"


def made(form: str, replay: Replay, seed: int) -> Strategy:
    """Return the strategy of a form."""
    family = load("random" if form == "random" else "ddpg")
    return family.make(replay.problem, replace(family.settings(), **FORMS[form]), seed)


def row(form: str, seed: int) -> dict[str, Any]:
    """Search one network, and return the row."""
    replay = make_replay(seed, knobs=WIDTHS, evaluations=EPISODES)
    began_s = time.process_time()
    done = run(made(form, replay, seed), replay, batch=1)
    cpu_s = time.process_time() - began_s
    scores = [evaluation.metrics["accuracy"] for evaluation in done]
    best = done[int(np.argmax(scores))].candidate.values
    return {
        "form": form,
        "seed": seed,
        **stamp(),
        "episodes": len(done),
        "over_limit": sum(not replay.problem.feasible(evaluation.metrics) for evaluation in done),
        "first": round(float(np.mean(scores[:WINDOW])), 4),
        "last": round(float(np.mean(scores[-WINDOW:])), 4),
        "mean": round(float(np.mean(scores)), 4),
        "best": round(replay.accuracy(best), 4),
        "episode_ms": round(1000.0 * cpu_s / len(done), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    finished = {(each["form"], each["seed"]) for each in known}
    with RESULTS.open("a") as out:
        for form, seed in ((form, seed) for form in FORMS for seed in range(seeds)):
            if (form, seed) not in finished:
                line = json.dumps(row(form, seed))
                print(line, flush=True)
                out.write(line + "\n")
                out.flush()


if __name__ == "__main__":
    main()

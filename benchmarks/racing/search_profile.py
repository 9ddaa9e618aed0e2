"""Share of a search's worker time inside forward and backward passes: `python benchmarks/racing/search_profile.py`.

Random candidates within 35 % of the latency are evaluated at F2, then `--trained` of them at F3, in this process. A
pass is a run of `TorchNetwork`, of a session of onnxruntime, or of torch's backward; calls inside a pass count once.
The rest is cutting, refitting, quantising, and making files and sessions. Nothing is written to the results.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import onnxruntime
import proxy
import torch

from compress.graph.module import TorchNetwork
from racing.arena import Arena, Contest
from racing.digits_start import digits
from racing.start import cifar
from search.candidate import Candidate, Fidelity
from workers.evaluating.evaluator import CutEvaluator

PASSES = ((TorchNetwork, "_execute"), (onnxruntime.InferenceSession, "run"), (torch.Tensor, "backward"))
MIN_SHARE = 0.85


class Passes:
    """Seconds inside passes so far, by the name of the class that ran them."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((owner.__name__ for owner, _ in PASSES), 0.0)
        self._inside = False

    @property
    def total_s(self) -> float:
        """All seconds inside passes."""
        return sum(self.seconds.values())

    def watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with its seconds counted, unless it runs inside another pass."""

        @functools.wraps(call)
        def run(*given: Any, **named: Any) -> Any:
            if self._inside:
                return call(*given, **named)
            self._inside, begun_s = True, time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self._inside = False
                self.seconds[name] += time.perf_counter() - begun_s

        return run


@contextmanager
def passes() -> Iterator[Passes]:
    """Count the seconds of all passes in this process."""
    found, before = Passes(), [getattr(owner, name) for owner, name in PASSES]
    for (owner, name), call in zip(PASSES, before, strict=True):
        setattr(owner, name, found.watched(owner.__name__, call))
    try:
        yield found
    finally:
        for (owner, name), call in zip(PASSES, before, strict=True):
            setattr(owner, name, call)


def profiled(arena: Arena, candidates: Sequence[Candidate], fidelity: Fidelity) -> None:
    """Evaluate the candidates, and print the share of the time inside passes."""
    evaluator = CutEvaluator(arena.material, len(arena.material.ranking[1]))
    with passes() as found:
        spent_s = sum(
            evaluator(Candidate(f"{fidelity}-{number}", each.values, fidelity=fidelity)).elapsed_s
            for number, each in enumerate(candidates)
        )
    parts = ", ".join(f"{name} {seconds / spent_s:.1%}" for name, seconds in found.seconds.items())
    share, each_s = found.total_s / spent_s, spent_s / len(candidates)
    print(f"{fidelity}: {len(candidates)} candidates, {each_s:.2f} s each; inside passes {share:.1%} ({parts})")
    print(f"goal: at least {MIN_SHARE:.0%}, {'met' if share >= MIN_SHARE else 'missed'}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10, help="candidates evaluated at F2")
    parser.add_argument("--trained", type=int, default=2, help="candidates evaluated at F3")
    parser.add_argument("--work", type=Path, default=proxy.WORK, help="folder of files that are not committed")
    parser.add_argument("--quick", action="store_true", help="digits and a simulated device")
    given = parser.parse_args(arguments)
    start, ratio = (digits(), proxy.QUICK_RATIO) if given.quick else (cifar(), proxy.RATIO)
    contest = Contest("profile", proxy.METHODS, ratio, given.candidates)
    arena = Arena.open(start, contest, proxy.SEED, ["random"], given.work)
    with arena.searching() as (_, make):
        candidates = proxy.drawn(make(arena.found), given.candidates)
    profiled(arena, candidates, "F2")
    profiled(arena, candidates[: given.trained], "F3")


if __name__ == "__main__":
    main()

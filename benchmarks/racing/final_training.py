"""Trains finalists by the final recipe and chooses among their forms on validation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.errors import TrainingDiverged
from compress.network import Network
from compress.scheme import Scheme
from compress.scoring.difference import Scores
from compress.training.direct import fine_tune
from racing import torch_pruning
from racing.arena import Arena
from racing.finished_file import finished
from search.candidate import Candidate
from workers.evaluating.evaluator import CutEvaluator
from workers.evaluating.scores import scores_in_file


@dataclass(frozen=True)
class Form:
    """A finalist after some epochs of the recipe, as its file, with its score on all validation images."""

    epoch: int
    model: bytes
    score: float

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return hashlib.sha256(self.model).hexdigest()


@dataclass(frozen=True)
class Winner:
    """The form with the highest score on validation, its place among the finalists, and every form's score."""

    place: int
    form: Form
    scores: Sequence[Sequence[float]]
    seconds: float


def winner(arena: Arena, finalists: Sequence[Mapping[str, Any]]) -> Winner:
    """Train every finalist; each competes untrained and after every epoch."""
    begun_s = time.perf_counter()
    found = [list(forms(arena, each)) for each in finalists]
    place, form = max(
        ((place, form) for place, several in enumerate(found) for form in several), key=lambda pair: pair[1].score
    )
    scores = [[form.score for form in several] for several in found]
    return Winner(place, form, scores, time.perf_counter() - begun_s)


def forms(arena: Arena, finalist: Mapping[str, Any]) -> Iterator[Form]:
    """Yield the finalist untrained, and after each epoch; a finalist that says `epochs` 0 is not trained.

    A finalist whose training diverges competes with the forms before that.
    """
    if finalist.get("untouched"):
        yield _form(arena, 0, arena.original)
        return
    network, methods, values = starting(arena, finalist), finalist["methods"], finalist["values"]
    yield _form(arena, 0, finished(arena, network, methods, values))
    if finalist.get("epochs") == 0:
        return
    bound, inputs = Scheme.of([(name, {}) for name in methods]).bind(values), arena.run.inputs
    part, pixels, teacher = inputs.dataset.train, inputs.preprocessing, arena.original
    try:
        for step in fine_tune(network, part, pixels, arena.recipe, bound, teacher, None, inputs.task):
            if step.last_of_epoch:
                yield _form(arena, step.epoch + 1, finished(arena, step.network(), methods, values))
    except TrainingDiverged as error:
        print(f"training diverged and ended early: {error}")


def starting(arena: Arena, finalist: Mapping[str, Any]) -> Network:
    """Return the network that a finalist's training starts from: cut and refitted, before any precision is chosen."""
    if finalist.get("peer"):
        return torch_pruning.rebuilt(arena, finalist)
    if "filter_prune" not in finalist["methods"]:
        return arena.material.network
    masks = {name: tuple(kept) for name, kept in finalist.get("masks", {}).items()}
    evaluator = CutEvaluator(arena.material, len(arena.material.ranking[1]))
    return evaluator.cut(Candidate("finalist", finalist["values"], masks))[0].to_network()


def _form(arena: Arena, epoch: int, network: Network) -> Form:
    model = network.save()
    scores = scores_in_file(arena.run.inputs.task, model, *arena.run.inputs.validation)
    return Form(epoch, model, float(scores.mean()))


def test_fields(arena: Arena, model: bytes) -> dict[str, Any]:
    """Return a file's test accuracy and which test images it gets right, as fields of a row."""
    images, labels = arena.start.test()
    right = scores_in_file(arena.run.inputs.task, model, images, labels)
    return {"accuracy": float(right.mean()), "images": len(right), "right": packed(right)}


def packed(right: Scores) -> str:
    """Return which images are right as bits in hexadecimal."""
    return np.packbits(right > 0.5).tobytes().hex()


def unpacked(text: str, count: int) -> Scores:
    """Return `packed` scores again."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count]
    return bits.astype(np.float64)

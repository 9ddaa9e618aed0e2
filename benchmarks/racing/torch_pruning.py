"""The peer: Torch-Pruning (Fang et al. 2023, arXiv 2301.12900) under the same latency limit.

Torch-Pruning prunes to a ratio of channels and knows no latency. So for each setting, the ratio is found by bisection
on the measured latency of the finished file, timed interleaved with the original. The batch norms of a pruned network
are re-estimated on the images that the service uses, and the settings are ranked by the same F2 score.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import torch

from compress.graph.module import TorchNetwork
from compress.network import Network
from compress.training.reestimate import reestimate
from hw_profiles.tables.calibration import SESSION_NOISE
from hw_profiles.timing.protocol import statistic_us
from racing.arena import FINALISTS, ORIGINAL, Arena
from racing.finished_file import finished
from racing.start import Labelled
from racing.torch_form import LayeredModule
from workers.evaluating.scores import scores_in_file

MAX_RATIO = 0.95
"""Largest share of one layer's channels that may be removed."""
STARTS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
HALVINGS = 6
TAYLOR_IMAGES = 256
INT8 = "int8_ptq"
ENTRANT = "torch_pruning"


@dataclass(frozen=True)
class Setting:
    """How channels are scored, whether over all layers at once, the number that widths are a multiple of, and the
    precision afterwards.
    """

    importance: str
    over_all_layers: bool
    round_to: int
    precision: str

    @property
    def values(self) -> Mapping[str, str]:
        """The values of the methods that come after pruning."""
        return {INT8: "int8"} if self.precision == "int8" else {}


SETTINGS = tuple(Setting(*each) for each in product(("magnitude", "taylor"), (True, False), (4, 8), ("int8", "fp32")))
Prune: TypeAlias = Callable[[float], Network]


def pruned(network: Network, setting: Setting, ratio: float, sample: Labelled) -> Network:
    """Return the network with this ratio of channels removed by Torch-Pruning.

    Raises:
        SystemExit: Torch-Pruning is not installed.
    """
    pruning = _library()
    module = LayeredModule(network).eval()
    example = torch.from_numpy(sample[0][:2])
    taylor = setting.importance == "taylor"
    importance = (pruning.importance.GroupTaylorImportance if taylor else pruning.importance.GroupMagnitudeImportance)()
    pruner = pruning.pruner.BasePruner(
        module,
        example,
        importance=importance,
        global_pruning=setting.over_all_layers,
        pruning_ratio=ratio,
        max_pruning_ratio=MAX_RATIO,
        ignored_layers=[module.head],
        round_to=setting.round_to,
    )
    if taylor:
        images, labels = (torch.from_numpy(np.array(each[:TAYLOR_IMAGES])) for each in sample)
        torch.nn.functional.cross_entropy(module(images), labels).backward()
    pruner.step()
    return module.to_network()


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise SystemExit("Torch-Pruning is missing: pip install -c constraints.txt -e '.[bench]'") from error
    return torch_pruning


def rebuilt(arena: Arena, finalist: Mapping[str, Any]) -> Network:
    """Return a finalist's network again, before training, with its batch norms re-estimated."""
    said = finalist["peer"]
    setting = Setting(**{name: said[name] for name in Setting.__dataclass_fields__})
    return _reestimated(arena, pruned(arena.material.network, setting, said["ratio"], _sample(arena)))


def searched(arena: Arena, settings: Sequence[Setting] = SETTINGS) -> dict[str, Any]:
    """Find the ratio of every setting; return the finalists and what the search cost, as fields of a row."""
    begun_s, timer = time.perf_counter(), Timer(arena, {})
    allowed = [each for each in settings if set(each.values) <= set(arena.contest.methods)]
    found = [each for setting in allowed if (each := _at_limit(arena, setting, timer)) is not None]
    best = sorted(found, key=lambda each: -each["score"])
    return {
        "seconds": round(time.perf_counter() - begun_s, 1),
        "timing_seconds": round(timer.seconds, 1),
        "evaluations": {"F2": len(found), "F5": len(timer.shares)},
        "finalists": best[:FINALISTS],
        "path": [[_named(each["peer"]), "F2", each["score"], each["timed"]] for each in found],
    }


def _named(peer: Mapping[str, Any]) -> str:
    scope = "global" if peer["over_all_layers"] else "local"
    return f"{peer['importance']} {scope} {peer['round_to']} {peer['precision']}"


@dataclass
class Timer:
    """Times whole files once per structure, because latency does not depend on weights."""

    arena: Arena
    shares: dict[tuple[Any, ...], float]
    seconds: float = 0.0

    def __call__(self, network: Network, precision: str, model: Callable[[], bytes]) -> float:
        """Return the file's share of the original's latency, both timed in one interleaved session."""
        key = (precision, *(value.shape for value in network.constants.values()))
        if key not in self.shares:
            file, begun_s = model(), time.perf_counter()
            timed = self.arena.timed({"pruned": file}, self.arena.start.step)
            self.seconds += time.perf_counter() - begun_s
            self.shares[key] = statistic_us(timed["pruned"], "quiet") / statistic_us(timed[ORIGINAL], "quiet")
        return self.shares[key]


def _at_limit(arena: Arena, setting: Setting, timer: Timer) -> dict[str, Any] | None:
    """Return the finalist of the smallest ratio found to meet the limit; None if no ratio does."""
    values, methods = setting.values, list(setting.values)

    def share(ratio: float) -> float:
        network = pruned(arena.material.network, setting, ratio, _sample(arena))
        return timer(network, setting.precision, lambda: finished(arena, network, methods, values).save())

    ratio = _least_ratio(lambda ratio: share(ratio) <= arena.contest.ratio * (1.0 - SESSION_NOISE))
    if ratio is None:
        return None
    peer = {**asdict(setting), "ratio": ratio}
    file = finished(arena, rebuilt(arena, {"peer": peer}), methods, values).save()
    score = float(scores_in_file(arena.material.task, file, *arena.material.ranking).mean())
    return {"methods": methods, "values": values, "peer": peer, "score": score, "timed": share(ratio)}


def _least_ratio(meets: Callable[[float], bool]) -> float | None:
    """Return the end of a bisection between 0 and the largest start that meets the limit.

    There are several starts, because Torch-Pruning removes nothing at ratios at which a layer would lose all channels.
    """
    high = next((ratio for ratio in STARTS if meets(ratio)), None)
    if high is None:
        return None
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _reestimated(arena: Arena, network: Network) -> Network:
    module = TorchNetwork(network)
    reestimate(module, arena.material.reference)
    return module.to_network()


def _sample(arena: Arena) -> Labelled:
    images, labels = arena.run.inputs.reference(arena.start.effort.renormalise_images)
    return images, labels

"""The choice of k channels: optimal if all masks are compared, otherwise never worse than the baselines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_correlated import gram

from search.channel_masks.baselines import eliminated, least_important, swapped
from search.channel_masks.choice import MaskSearch
from search.channel_masks.enumeration import enumerated
from search.channel_masks.evolution import Evolution, evolved, repaired
from search.channel_masks.fitness import lost, refitted
from search.errors import InvalidInput

Array = np.ndarray


def _brute(found: Array, keep: int) -> float:
    width = len(found)
    return min(found[np.ix_(gone, gone)].sum() for gone in map(list, combinations(range(width), width - keep)))


def _lost(found: Array, kept: tuple[int, ...]) -> float:
    gone = np.setdiff1d(np.arange(len(found)), kept)
    return float(found[np.ix_(gone, gone)].sum())


def _baselines(found: Array, importance: Array, keep: int) -> list[float]:
    masks = np.stack([least_important(importance, keep), eliminated(found, keep)])
    return [float(error) for error in lost(found, masks)]


@pytest.mark.parametrize("keep", range(1, 11))
@pytest.mark.parametrize("width", [10, 11])
def test_the_mask_is_optimal_if_all_are_compared(width: int, keep: int) -> None:
    found, importance = gram(width, keep)
    chosen = MaskSearch(found, importance, few=1).best(keep)
    assert chosen.optimal
    assert len(chosen.kept) == keep
    assert chosen.lost == pytest.approx(_brute(found, keep))
    assert chosen.lost == pytest.approx(_lost(found, chosen.kept))


@pytest.mark.parametrize("keep", [2, 5, 8])
def test_the_few_best_come_in_order(keep: int) -> None:
    found, _ = gram(10, 0)
    masks = enumerated(found, keep, 6)
    every = [list(gone) for gone in combinations(range(10), 10 - keep)]
    expected = sorted(found[np.ix_(gone, gone)].sum() for gone in every)[:6]
    assert lost(found, masks) == pytest.approx(np.array(expected))
    assert (masks.sum(axis=1) == 10 - keep).all()


def test_every_chunk_is_compared() -> None:
    """The best of the 12,870 masks lies in the second chunk."""
    found, importance = gram(16, 0)
    late = np.zeros(16, dtype=bool)
    late[8:] = True
    scaled = found * np.outer(1.0 - 0.99 * late, 1.0 - 0.99 * late)
    assert MaskSearch(scaled, importance, few=1).best(8).kept == tuple(range(8))


def test_evolution_finds_the_optimum_that_enumeration_finds() -> None:
    found, importance = gram(20, 1)
    exact = MaskSearch(found, importance, few=1).best(10)
    searched = MaskSearch(found, importance, few=1, enumerated=0).best(10)
    assert not searched.optimal
    assert searched.kept == exact.kept


@given(width=st.integers(2, 24), seed=st.integers(0, 10_000), few=st.sampled_from([1, 8]), data=st.data())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_no_mask_is_worse_than_the_baselines(width: int, seed: int, few: int, data: st.DataObject) -> None:
    found, importance = gram(width, seed)
    keep = data.draw(st.integers(1, width))
    small = Evolution(population=8, generations=3)
    for limit in (0, 1000):
        chosen = MaskSearch(found, importance, seed, few, small, limit).best(keep)
        assert len(set(chosen.kept)) == keep
        assert chosen.lost <= min(_baselines(found, importance, keep)) + 1e-12


@pytest.mark.parametrize("width", [32, 48, 64])
def test_evolution_is_better_on_most_layers_of_32_channels_or_more(width: int) -> None:
    better = []
    for seed in range(8):
        found, importance = gram(width, seed)
        chosen = MaskSearch(found, importance, few=1).best(width // 2)
        better.append(chosen.lost < min(_baselines(found, importance, width // 2)) * (1 - 1e-9))
    assert sum(better) >= len(better) / 2


def test_evolution_finds_more_than_swaps_do() -> None:
    ours, swaps = 0.0, 0.0
    for seed in range(6):
        found, importance = gram(32, seed)
        ours += MaskSearch(found, importance, few=1).best(16).lost
        swaps += lost(found, swapped(found, eliminated(found, 16))[None])[0]
    assert ours < 0.99 * swaps


def test_the_second_step_takes_the_least_refitted_of_the_few_best() -> None:
    found, importance = gram(12, 3)
    few = enumerated(found, 6, 8)
    chosen, first = MaskSearch(found, importance).best(6), MaskSearch(found, importance, few=1).best(6)
    bound = min(_baselines(found, importance, 6))
    allowed = few[lost(found, few) <= bound]
    assert len(allowed) > 1
    assert chosen.refitted == pytest.approx(refitted(found, allowed).min())
    assert chosen.refitted <= first.refitted
    assert chosen.optimal == (chosen.kept == first.kept)


def test_equal_seeds_give_equal_masks_in_any_order() -> None:
    found, importance = gram(32, 4)
    one, two = (MaskSearch(found, importance, seed=7, enumerated=0) for _ in range(2))
    forward = [one.best(keep) for keep in (8, 16, 24)]
    assert [two.best(keep) for keep in (24, 16, 8)] == forward[::-1]


def test_a_number_of_kept_units_is_searched_once() -> None:
    found, importance = gram(24, 4)
    search = MaskSearch(found, importance)
    assert search.best(12) is search.best(12)


def test_all_units_lose_nothing() -> None:
    found, importance = gram(8, 4)
    chosen = MaskSearch(found, importance).best(8)
    assert (chosen.kept, chosen.lost, chosen.refitted) == (tuple(range(8)), 0.0, 0.0)


def test_equal_units_end_the_swaps() -> None:
    """Rounding makes some swaps of equal units look like gains."""
    found = np.full((16, 16), 0.1) + 0.2 * np.eye(16)
    gone = np.arange(16) < 8
    assert swapped(found, gone).tolist() == gone.tolist()


def test_repair_drops_the_cheapest_and_returns_the_dearest() -> None:
    found = np.diag(np.arange(1.0, 7.0))
    many, few = np.ones(6, dtype=bool), np.zeros(6, dtype=bool)
    made = repaired(found, np.stack([many, few]), keep=2)
    assert (~made).tolist() == [[False] * 4 + [True] * 2] * 2


def test_elites_are_never_lost() -> None:
    found, importance = gram(32, 5)
    ends = [
        lost(found, evolved(found, importance, 12, 1, Evolution(generations=n, patience=n), seed=3))[0]
        for n in (1, 3, 9, 27)
    ]
    assert ends == sorted(ends, reverse=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gram": np.ones((2, 3))}, "gram"),
        ({"gram": np.full((4, 4), np.nan)}, "gram"),
        ({"few": 0}, "few"),
    ],
)
def test_a_wrong_block_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        MaskSearch(**{"gram": np.eye(4), "importance": np.ones(4), **change})
    assert caught.value.field == field


@pytest.mark.parametrize("keep", [0, 5])
def test_a_wrong_number_of_units_is_refused(keep: int) -> None:
    with pytest.raises(InvalidInput, match=r"\[1, 4\]"):
        MaskSearch(np.eye(4), np.ones(4)).best(keep)


@pytest.mark.shared
def test_resnet20_loses_less_than_with_the_baselines(shared: Callable[[str], Path]) -> None:
    from compress.data.dataset import load_dataset
    from compress.data.preprocessing import Preprocessing, preprocess
    from compress.graph.groups import prunable_blocks
    from compress.importing.normalise import load_network
    from compress.pruning.importance import score
    from compress.pruning.layer_error import gram as gram_of_layers
    from compress.pruning.statistics import Statistics

    network = load_network(shared("models/resnet20-cifar10-bn.onnx"))
    part = load_dataset(shared("cifar10-small.parquet"), input_shape=(3, 32, 32)).train
    scaled = Preprocessing.from_json({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": "RGB"})
    images = preprocess(part.images[:128], scaled)
    blocks = prunable_blocks(network)
    scores = score(network, blocks, "l1")
    grams = gram_of_layers(network, blocks, Statistics.gather(network, blocks, images))
    better = []
    for block in blocks:
        search = MaskSearch(grams[block.name], scores[block.name], few=1)
        totals = np.zeros(2)
        for keep in range(block.width // 8, block.width, block.width // 8):
            least = min(_baselines(search.gram, search.importance, keep))
            assert search.best(keep).lost <= least + 1e-12
            totals += search.best(keep).lost, least
        better += [totals[0] < totals[1] * (1 - 1e-9)] if block.width >= 32 else []
    assert sum(better) >= len(better) / 2

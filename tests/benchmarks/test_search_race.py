"""search_race.py and proxy.py: every stage on digits and a simulated device, and what they compute with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from compress.graph.onnxruntime import run_onnxruntime
from compress.graph.rewrites import rewritten
from compress.importing.normalise import load_network

ROOT = Path(__file__).parents[2]
PACKED = "f0"  # the first four of eight images are right


@pytest.fixture(scope="module", autouse=True)
def _benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setenv("NETLATHE_LOCK_DIR", str(tmp_path_factory.mktemp("lock")))
        yield


@pytest.fixture(scope="module")
def digits() -> Any:
    start = import_module("racing.digits_start").digits()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("search_race", "proxy"):
            patch.setattr(import_module(name), "digits", lambda: start)
        yield start


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests, so that the device is profiled only once."""
    return tmp_path_factory.mktemp("work")


def rows(work: Path, script: str = "search_race") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / f"{script}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def raced(digits: Any, work: Path) -> tuple[ModuleType, Path]:
    pytest.importorskip("torch_pruning")
    race = import_module("search_race")
    race.main(["search", "finals", "time", "--quick", "--work", str(work)])
    return race, work


def of(kind: str, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["entrant"]: row for row in found if row["kind"] == kind}


@pytest.mark.filterwarnings("ignore")  # Torch-Pruning warns on import
class TestStages:
    def test_every_entrant_is_searched_trained_tested_and_timed(self, raced: tuple[ModuleType, Path]) -> None:
        found = rows(raced[1])
        entrants = {"race", "uniform", "torch_pruning", "unpruned", "int8"}
        for kind in ("winner", "test", "timed"):
            assert set(of(kind, found)) == entrants, kind
        assert set(of("search", found)) == entrants - {"unpruned", "int8"}
        assert of("timed", found)["unpruned"]["share"] == pytest.approx(1.0, rel=0.1)

    def test_a_winner_is_the_best_on_validation_and_named_before_the_test(self, raced: tuple[ModuleType, Path]) -> None:
        found = rows(raced[1])
        order = [(row["kind"], row["entrant"]) for row in found]
        for name, row in of("winner", found).items():
            assert row["validation"] == max(score for several in row["scores"] for score in several)
            assert row["scores"][row["place"]][row["epoch"]] == row["validation"]
            assert order.index(("winner", name)) < order.index(("test", name))

    def test_finalists_were_timed_within_the_limit(self, raced: tuple[ModuleType, Path]) -> None:
        for name, row in of("search", rows(raced[1])).items():
            assert row["finalists"], name
            assert all(each["timed"] <= 0.85 for each in row["finalists"]), name

    def test_no_search_has_more_than_its_evaluations(self, raced: tuple[ModuleType, Path]) -> None:
        found = of("search", rows(raced[1]))
        assert all(sum(found[name]["evaluations"].values()) <= 4 for name in ("race", "uniform"))
        assert len(found["race"]["path"]) == sum(found["race"]["evaluations"].values())

    def test_a_second_run_has_nothing_to_do(self, raced: tuple[ModuleType, Path]) -> None:
        race, work = raced
        before = rows(work)
        race.main(["search", "finals", "time", "--quick", "--work", str(work)])
        assert rows(work) == before

    def test_a_lost_row_is_computed_again_alone(self, raced: tuple[ModuleType, Path]) -> None:
        race, work = raced
        before = rows(work)
        kept = [row for row in before if (row["kind"], row["entrant"]) != ("test", "int8")]
        (work / "search_race.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        race.main(["finals", "--quick", "--work", str(work)])
        again = rows(work)
        assert again[:-1] == kept
        assert again[-1]["right"] == of("test", before)["int8"]["right"]

    def test_what_is_printed_of_them(self, raced: tuple[ModuleType, Path]) -> None:
        blocks = list(import_module("reporting.race").race(rows(raced[1])))
        text = "\n".join(blocks)
        assert "| unpruned | 0 |" in text
        assert "| torch_pruning | 1 |" in text  # one paired seed
        assert "test accuracy of the race's winner" in text


def test_a_table_without_its_stages_says_so(digits: Any, tmp_path: Path) -> None:
    race = import_module("search_race")
    with pytest.raises(SystemExit, match="run `finals` first"):
        race.main(["time", "--quick", "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="run `search` first"):
        race.main(["finals", "--quick", "--entrant", "uniform", "--work", str(tmp_path)])


def test_strategies_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entrants = import_module("racing.entrants")
    monkeypatch.setattr(entrants, "RACERS", ("greedy", "missing"))
    table = entrants.tables()["A"]
    assert "missing" in entrants.absent(table)
    assert entrants.racing("race") == ("greedy",)


def test_proxy_has_a_row_for_each_candidate_and_fidelity_and_resumes(digits: Any, work: Path) -> None:
    proxy = import_module("proxy")
    given = ["--quick", "--candidates", "2", "--work", str(work)]
    proxy.main(given)
    found = rows(work, "proxy")
    assert {(row["candidate"], row["fidelity"]) for row in found} == {
        (number, name) for number in range(2) for name in ("F1", "F2", "F3", "F4")
    }
    (work / "proxy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found[:-1]))
    proxy.main(given)
    again = rows(work, "proxy")
    assert again[:-1] == found[:-1]
    assert again[-1]["score"] == found[-1]["score"]
    assert any("| F2 | 2 |" in block for block in import_module("reporting.race").ranks(again))


def scored(cheap: list[float], trained: list[float]) -> list[dict[str, Any]]:
    return [
        {"candidate": number, "fidelity": name, "score": score, "seconds": 1.0}
        for name, scores in (("F2", cheap), ("F4", trained))
        for number, score in enumerate(scores)
    ]


def test_correlation_of_equal_and_of_opposite_orders() -> None:
    proxy = import_module("proxy")
    trained = [0.1 * number for number in range(8)]
    same = proxy.correlation(scored([10 * each for each in trained], trained), "F2")
    assert (same.tau, same.low, same.high, same.count) == (
        pytest.approx(1.0),
        pytest.approx(1.0),
        pytest.approx(1.0),
        8,
    )
    assert proxy.correlation(scored(trained[::-1], trained), "F2").tau == pytest.approx(-1.0)
    mixed = proxy.correlation(scored([0, 2, 1, 3, 5, 4, 7, 6], trained), "F2")
    assert mixed.low < mixed.tau < 1.0


def test_gaps_and_ties() -> None:
    compared, final = import_module("racing.compared"), import_module("racing.final_training")
    rng = np.random.default_rng(0)

    def row(share: float) -> dict[str, Any]:
        return {"right": final.packed((rng.uniform(size=4000) < share).astype(float)), "images": 4000}

    good, bad = ({seed: row(share) for seed in range(3)} for share in (0.9, 0.5))
    ahead = compared.gap(good, bad)
    assert ahead.seeds == 3
    assert ahead.ahead == pytest.approx(0.4, abs=0.03)
    assert not ahead.tie
    assert compared.gap(good, {seed: row(0.9) for seed in range(3)}).tie
    assert compared.gap(good, {7: row(0.9)}) is None
    assert compared.gap({0: good[0]}, {0: bad[0]}).over_seeds is None
    assert final.unpacked(PACKED, 8).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


@pytest.fixture
def network(digits: Any) -> Any:
    return load_network(digits.model)


class TestLayeredModule:
    def test_it_computes_what_the_network_computes(self, network: Any) -> None:
        torch = import_module("torch")
        images = np.random.default_rng(1).standard_normal((5, 1, 8, 8)).astype(np.float32)
        module = import_module("racing.torch_form").LayeredModule(network).eval()
        (wanted,) = run_onnxruntime(network, images).values()
        with torch.no_grad():
            np.testing.assert_allclose(module(torch.from_numpy(images)).numpy(), wanted, atol=1e-4)
        assert module.to_network().digest == network.digest

    @pytest.mark.filterwarnings("ignore")  # Torch-Pruning warns on import
    @pytest.mark.parametrize("importance", ["magnitude", "taylor"])
    def test_torch_pruning_cuts_it_to_a_network_that_runs(self, network: Any, importance: str) -> None:
        pytest.importorskip("torch_pruning")
        peer = import_module("racing.torch_pruning")
        images = np.random.default_rng(1).standard_normal((16, 1, 8, 8)).astype(np.float32)
        setting = peer.Setting(importance, over_all_layers=False, round_to=4, precision="fp32")
        made = peer.pruned(network, setting, 0.5, (images, np.arange(16) % 10))
        assert made.constants["conv0.weight"].shape[0] == 8
        assert made.constants["conv2.weight"].shape[:2] == (16, 16)
        assert made.constants["head.weight"].shape == (10, 16)
        (outputs,) = run_onnxruntime(made, images).values()
        assert outputs.shape == (16, 10)


def test_the_least_ratio_is_found_although_high_ratios_remove_nothing() -> None:
    peer = import_module("racing.torch_pruning")
    assert peer._least_ratio(lambda ratio: 0.4 <= ratio <= 0.75) == pytest.approx(0.4, abs=0.012)
    assert peer._least_ratio(lambda ratio: False) is None


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")  # Torch-Pruning warns on import
def test_torch_pruning_cuts_resnet20_and_its_strided_shortcuts(shared: Callable[[str], Path]) -> None:
    pytest.importorskip("torch_pruning")
    peer = import_module("racing.torch_pruning")
    network = rewritten(load_network(shared("models/resnet20-cifar10-bn.onnx")))
    images = np.random.default_rng(1).standard_normal((4, 3, 32, 32)).astype(np.float32)
    module = import_module("racing.torch_form").LayeredModule(network).eval()
    (wanted,) = run_onnxruntime(network, images).values()
    torch = import_module("torch")
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(images)).numpy(), wanted, atol=1e-3)
    for over_all_layers in (True, False):
        setting = peer.Setting("magnitude", over_all_layers, round_to=4, precision="int8")
        made = peer.pruned(network, setting, 0.5, (images, np.arange(4)))
        before, after = (sum(each.size for each in one.constants.values()) for one in (network, made))
        assert after < 0.5 * before
        (outputs,) = run_onnxruntime(made, images).values()
        assert np.isfinite(outputs).all()

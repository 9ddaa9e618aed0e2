"""The race against its baselines and Torch-Pruning: `python benchmarks/search_race.py search | finals | time`.

ResNet-20 on CIFAR-10, onnxruntime, one thread, batch 1. Every entrant gets the same starting network with the same
lossless rewrites, the same evaluations, and the same final recipe (2 epochs of distillation on 10,000 images). Three
stages, each of which resumes from the rows:

- `search` runs the entrants; a search ends with its best candidates timed whole, so that the finalists meet the limit
  as measured. Torch-Pruning meets the limit by bisection on measured latency; its 16 settings are ranked by F2.
- `finals` trains up to three finalists of each entrant; each competes untrained and after every epoch. The winner is
  the best on the 2,000 validation images; it is named in a row before the 10,000 test images are read.
- `time` times all winners of a table interleaved with the original, in one session.

The validation images are the first 2,000 test images, so rows also let the report count the other 8,000 alone.
`--quick` runs a small table on digits and a simulated device, whose rows go to `--work`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from racing import torch_pruning
from racing.arena import ORIGINAL, Arena
from racing.digits_start import digits
from racing.entrants import FIXED, Table, absent, quick_tables, racing, tables
from racing.final_training import Winner, test_fields, winner
from racing.rows import Rows
from racing.start import Start, cifar, folder_of
from racing.strategies_search import searched

from hw_profiles.host_lock import HostLock
from hw_profiles.timing.protocol import statistic_us

RESULTS = Path(__file__).parent / "results" / "search_race.jsonl"
WORK = Path(__file__).parents[1] / "build" / "search_race"
GOAL = 0.855
GOAL_AHEAD = 0.03
QUICK_SETTINGS = torch_pruning.SETTINGS[:1]


@dataclass(frozen=True)
class Race:
    """One table on one start. `work` has the files that are not committed."""

    start: Start
    table: Table
    rows: Rows
    work: Path
    quick: bool = False
    arenas: dict[int, Arena] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.table.contest.table

    def search(self) -> None:
        """Search with every entrant that has no row yet."""
        for seed, names in self._open("search").items():
            print(f"table {self.name}, seed {seed}: {', '.join(names)}", flush=True)
            searching = [name for name in names if racing(name)]
            named = [each for name in searching for each in racing(name)]
            arena = self._arena(seed, named or ["uniform"])
            if torch_pruning.ENTRANT in names:
                settings = QUICK_SETTINGS if self.quick else torch_pruning.SETTINGS
                self._found(torch_pruning.ENTRANT, seed, torch_pruning.searched(arena, settings))
            if searching:
                self._searched(arena, searching)

    def _searched(self, arena: Arena, names: list[str]) -> None:
        begun_s = time.perf_counter()
        with arena.searching() as (known, make):
            spent_s = round(time.perf_counter() - begun_s, 1)
            for name in names:
                found = searched(arena, known, make, racing(name))
                self._found(name, arena.seed, {**found, "strategies": racing(name), "statistics_seconds": spent_s})

    def _found(self, name: str, seed: int, found: Mapping[str, Any]) -> None:
        self.rows.add("search", table=self.name, entrant=name, seed=seed, **found)
        best = max((each["score"] for each in found["finalists"]), default=float("nan"))
        print(f"  {name}: {found['evaluations']} in {found['seconds']} s, best F2 {best:.4f}", flush=True)

    def finals(self) -> None:
        """Train the finalists of every entrant that has no winner yet; then read the test images."""
        for seed, names in self._open("winner").items():
            finalists = {name: self._finalists(name, seed) for name in names}
            for name, several in finalists.items():
                self._named(name, seed, winner(self._arena(seed), several))
        for seed, names in self._open("test").items():
            arena = self._arena(seed)
            for name in names:
                row = self.rows.add(
                    "test", table=self.name, entrant=name, seed=seed, **test_fields(arena, self._model(arena, name))
                )
                print(f"  {name}, seed {seed}: {row['accuracy']:.4f} on {row['images']} test images", flush=True)

    def _named(self, name: str, seed: int, won: Winner) -> None:
        self._file(name, seed).write_bytes(won.form.model)
        fields = {"validation": won.form.score, "epoch": won.form.epoch, "place": won.place, "scores": won.scores}
        more = {"file": won.form.sha256, "seconds": round(won.seconds, 1)}
        self.rows.add("winner", table=self.name, entrant=name, seed=seed, **fields, **more)
        print(f"  {name}, seed {seed}: finalist {won.place} after {won.form.epoch} epochs, {won.form.score:.4f}")

    def _finalists(self, name: str, seed: int) -> list[Mapping[str, Any]]:
        if name in FIXED:
            return [FIXED[name]]
        row = self.rows.find("search", table=self.name, entrant=name, seed=seed)
        if row is None:
            raise SystemExit(f"table {self.name}: {name} with seed {seed} was not searched; run `search` first")
        return list(row["finalists"])

    def _model(self, arena: Arena, name: str) -> bytes:
        """Return the winner's file; without it, as on another machine, train the winner's finalist again."""
        file, row = self._file(name, arena.seed), self.rows.find("winner", **self._key(name, arena.seed))
        assert row is not None
        if not file.exists():
            print(f"  the file of {name} is missing and is made again", flush=True)
            again = winner(arena, self._finalists(name, arena.seed)[row["place"] : row["place"] + 1])
            file.write_bytes(again.form.model)
        return file.read_bytes()

    def time(self) -> None:
        """Time all winners of the table in one session, unless the last session has them all."""
        entered = [each for each in self._entered() if not self._out(*each)]
        missing = [each for each in entered if self.rows.find("winner", **self._key(*each)) is None]
        if missing:
            raise SystemExit(f"table {self.name}: run `finals` first; no winner of {missing}")
        if all(self.rows.find("timed", **self._key(*each)) for each in entered):
            return
        arenas = {seed: self._arena(seed) for seed in sorted({seed for _, seed in entered})}
        models = {f"{name} {seed}": self._model(arenas[seed], name) for name, seed in entered}
        with HostLock().exclusive():
            samples = arenas[entered[0][1]].timed(models, self.start.whole)
        quiet_ms = {name: statistic_us(sample, "quiet") / 1e3 for name, sample in samples.items()}
        for name, seed in entered:
            sample, own_ms = samples[f"{name} {seed}"], quiet_ms[f"{name} {seed}"]
            shown = {"quiet_ms": own_ms, "p50_ms": statistic_us(sample, "p50") / 1e3}
            shown |= {"original_ms": quiet_ms[ORIGINAL], "share": own_ms / quiet_ms[ORIGINAL]}
            self.rows.add("timed", **self._key(name, seed), **shown, size_bytes=len(models[f"{name} {seed}"]))
            print(f"  {name}, seed {seed}: {own_ms:.4f} ms, {shown['share']:.4f} of the original's latency")

    def _out(self, name: str, seed: int) -> bool:
        """True if the entrant searched and found no candidate at all."""
        row = self.rows.find("search", **self._key(name, seed))
        return row is not None and not row["finalists"]

    def _key(self, name: str, seed: int) -> dict[str, Any]:
        return {"table": self.name, "entrant": name, "seed": seed}

    def _entered(self) -> Iterator[tuple[str, int]]:
        for name, seeds in self.table.entrants.items():
            if name not in absent(self.table):
                yield from ((name, seed) for seed in seeds)

    def _open(self, kind: str) -> dict[int, list[str]]:
        """Map each seed to the entrants without a row of this kind."""
        found: dict[int, list[str]] = {}
        for name, seed in self._entered():
            if kind == "search" and name in FIXED:
                continue
            if kind != "search" and self._out(name, seed):
                print(f"table {self.name}: {name} with seed {seed} found no candidate and is out")
                continue
            if self.rows.find(kind, **self._key(name, seed)) is None:
                found.setdefault(seed, []).append(name)
        return found

    def _arena(self, seed: int, names: Sequence[str] = ("uniform",)) -> Arena:
        """Return the arena of a seed; `names` are its plan's strategies, which matter only to a search."""
        if seed not in self.arenas:
            self.arenas[seed] = Arena.open(self.start, self.table.contest, seed, tuple(dict.fromkeys(names)), self.work)
        return self.arenas[seed]

    def _file(self, name: str, seed: int) -> Path:
        return folder_of(self.work, self.start, "winners") / f"{self.name}-{name}-{seed}.onnx"


def races(given: argparse.Namespace) -> Iterator[Race]:
    """Return the races of the wanted tables, with the wanted entrants; all of them if none is named."""
    start = digits() if given.quick else cifar()
    rows = Rows(given.work / RESULTS.name if given.quick else RESULTS)
    for name, table in (quick_tables() if given.quick else tables(given.evaluations)).items():
        if not given.table or name in given.table:
            for each in absent(table):
                print(f"table {name}: {each} is not installed and is skipped")
            chosen = given.entrant or table.entrants
            fewer = {each: seeds[: given.seeds] for each, seeds in table.entrants.items() if each in chosen}
            yield Race(start, replace(table, entrants=fewer), rows, given.work, given.quick)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", choices=["search", "finals", "time"])
    parser.add_argument("--table", action="append", default=[], choices=sorted(tables()), help="only this table")
    parser.add_argument("--entrant", action="append", default=[], help="only this entrant")
    parser.add_argument("--evaluations", type=int, default=100, help="evaluations of each search")
    parser.add_argument("--seeds", type=int, default=3, help="at most this many seeds of each entrant")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of files that are not committed")
    parser.add_argument("--quick", action="store_true", help="a small table on digits and a simulated device")
    given = parser.parse_args(arguments)
    for race in races(given):
        for stage in given.stages:
            getattr(race, stage)()


if __name__ == "__main__":
    main()

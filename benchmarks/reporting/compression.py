"""Figures on the sizes and accuracies of compressed networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import channel_masks
import lc_against_direct
import lenet_compression
import sparsity_inference

from reporting.figures import Figure, Row, Rows, figures, percent, points, table, taken, times, unit

_ROUNDING = 1e-9


def against_direct(rows: Rows) -> Iterator[str]:
    """Compare L-C with direct compression on the same seeds and images, first over all seeds, then over the unseen
    seeds.
    """
    runs = [row for row in rows if row["kind"] == "run"]
    yield taken(runs)
    yield (
        "Accuracy on the test images, mean over seeds; `L-C ahead` in points, with its 95 % intervals over seeds and "
        "over images. There is a winner only if both are on one side of zero. No goal: it is a comparison."
    )
    head = ("network", "scheme", "epochs", "seeds", "direct", "L-C", "L-C ahead", "over seeds", "over images", "winner")
    yield table(head, [cells for own in _settings(runs) for cells in _comparisons(own)])


def _settings(rows: Rows) -> list[Rows]:
    def setting(row: Row) -> tuple[str, str, int]:
        return row["network"], row["scheme"], -row["epochs"]

    return [list(own) for _, own in groupby(sorted(rows, key=setting), setting)]


def _comparisons(rows: Rows) -> Iterator[Sequence[str]]:
    yield _comparison(rows)
    first = lc_against_direct.UNSEEN.get((rows[0]["network"], rows[0]["scheme"]))
    unseen = [row for row in rows if first is not None and row["seed"] >= first]
    if unseen:
        yield _comparison(unseen)


def _comparison(rows: Rows) -> Sequence[str]:
    found = lc_against_direct.compared(rows)
    seeds = sorted({row["seed"] for row in rows})
    intervals = (found.over_seeds, found.over_images)
    ahead = [name for name, sign in (("L-C", 1), ("direct", -1)) if all(sign * end > 0 for i in intervals for end in i)]
    return (
        rows[0]["network"],
        rows[0]["scheme"],
        str(rows[0]["epochs"]),
        f"{len(seeds)} ({seeds[0]} to {seeds[-1]})",
        *(f"{found.accuracy[way]:.2f} %" for way in lc_against_direct.WAYS),
        f"{found.ahead:+.2f}",
        *(f"[{low:+.2f}, {high:+.2f}]" for low, high in intervals),
        ahead[0] if ahead else "none",
    )


def lenets(rows: Rows) -> Iterator[str]:
    """Report the inferred sparsity, and where a sweep crosses the level."""
    yield taken([row for row in rows if "density" in row])
    for whole in (row for row in rows if row.get("kind") == "original"):
        yield from _lenet(whole, [row for row in rows if row["network"] == whole["network"] and "density" in row])


def _lenet(whole: Row, samples: Rows) -> Iterator[str]:
    densities = lenet_compression.sweep_densities()
    sweep = [row for row in samples if row["density"] in densities]
    level = lenet_compression.level(whole)
    searched = [row for row in samples if row not in sweep]
    found = lenet_compression.sparsest(searched, level)
    crossing = lenet_compression.crossing(sweep, level)
    yield (
        f"`{whole['network']}`: {whole['nonzeros']:,} weights, {percent(whole['test'])} of the test digits correct. "
        f"{len(searched)} training runs by the search, {len(sweep)} by the sweep."
    )
    if found is None:
        yield "**No sample of the search reaches the level.**"
        return
    yield figures(_found(whole, found, crossing))
    if crossing is None:
        yield "The sweep never crosses the level, so there is no distance to report."


def _found(whole: Row, found: Row, crossing: float | None) -> Iterator[Figure]:
    name, sparsity = whole["network"], 1 - found["density"]
    fewer = lenet_compression.fewer(whole, found)
    yield Figure("sparsity", [sparsity], unit("", 4))
    yield Figure("fewer non-zero weights, factor", [fewer], times, least=lenet_compression.MIN_FEWER.get(name))
    for form in ("fp32", "fp16"):
        yield Figure(f"accuracy lost on test, {form}", [whole["test"] - found[f"test_{form}"]], points)
        yield Figure(f"fewer bytes, {form}, factor", [whole["size_bytes"] / found[f"bytes_{form}"]], times)
    if crossing is not None:
        apart = abs(sparsity - crossing)
        yield Figure("distance to the sweep's crossing", [apart], unit("", 4), most=lenet_compression.MAX_APART)


def sparsities(rows: Rows) -> Iterator[str]:
    """Report how close two strategies come to a known crossing."""
    controls = {row["kind"]: row["median_error"] for row in rows if row["strategy"] == "bisection"}
    yield taken(rows)
    yield f"{rows[0]['seeds']} seeds of each; `units` are filters, `weights` single weights."
    yield figures(each for row in rows for each in _inference(row, controls[row["kind"]]))


def _inference(row: Row, control: float) -> Iterator[Figure]:
    name, goals = f"{row['kind']}, {row['strategy']}", row["strategy"] == "bayesian"
    most = min(sparsity_inference.MAX_ERROR, control) if goals else None
    yield Figure(f"{name}: median error", [row["median_error"]], unit("", 4), most)
    yield Figure(f"{name}: largest error", [row["largest_error"]], unit("", 4))
    samples = sparsity_inference.MAX_SAMPLES if goals else None
    yield Figure(f"{name}: most samples", [row["most_samples"]], unit("", 0), samples)


def masks(rows: Rows) -> Iterator[str]:
    """Report the speed of the search over masks, and its error against the baselines for each block."""
    yield taken([row for row in rows if row["kind"] == "facts"])
    found = [row for row in rows if row["kind"] == "gain"]
    blocks = {row["block"]: row["width"] for row in found}
    gains = {name: _gain([row for row in found if row["block"] == name]) for name in blocks}
    wide = [gains[name] > 0.0 for name, width in blocks.items() if width >= channel_masks.WIDE]
    yield figures(_mask_figures(rows, found, sum(wide) / len(wide)))
    yield "Mean error `lost` over the seven widths of each block; `gain` is over the better baseline at each width."
    head = ("block", "channels", "L1", "greedy", "search", "gain", "optimal for certain")
    yield table(head, [_masks_of([row for row in found if row["block"] == name], gains[name]) for name in blocks])


def _mask_figures(rows: Rows, found: Rows, better: float) -> Iterator[Figure]:
    (speed,) = (row["masks_per_s"] for row in rows if row["kind"] == "speed")
    yield Figure("masks scored a second", speed, unit("", 0), least=channel_masks.MIN_MASKS_PER_S)
    worst = max(row["search"] - min(row["l1"], row["greedy"]) for row in found)
    worst = worst if worst > _ROUNDING else 0.0
    yield Figure(
        "most that a mask loses beyond the better baseline",
        [worst if worst > _ROUNDING else 0.0],
        unit("", 6),
        most=0.0,
    )
    name = f"share of the blocks of {channel_masks.WIDE} channels or more with a gain"
    yield Figure(name, [better], percent, least=channel_masks.MIN_BETTER)


def _gain(rows: Rows) -> float:
    """Return the share of the better baseline's error that the search saves, over one block's widths."""
    baseline = sum(min(row["l1"], row["greedy"]) for row in rows)
    saved = 1.0 - sum(row["search"] for row in rows) / baseline
    return saved if saved > _ROUNDING else 0.0


def _masks_of(rows: Rows, gain: float) -> Sequence[str]:
    means = (sum(row[name] for row in rows) / len(rows) for name in ("l1", "greedy", "search"))
    optimal = f"{sum(row['optimal'] for row in rows)} of {len(rows)} widths"
    return (rows[0]["block"], str(rows[0]["width"]), *map(unit("", 4), means), percent(gain), optimal)

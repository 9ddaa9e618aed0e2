"""Reports of search strategies on problems with known scores."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

import actor_critic

from reporting.figures import Figure, Rows, figures, points, table, taken, unit


def learning(rows: Rows) -> Iterator[str]:
    """Report what each form of `ddpg` scores, and whether the default one reaches its goals."""
    yield taken(rows)
    yield f"{rows[0]['episodes']} episodes per network; each form's means over its seeds:"
    yield table(
        ("form", "seeds", "first", "last", "best", "over the limit", "processor ms an episode"),
        (_form(form, found) for form in actor_critic.FORMS if (found := [r for r in rows if r["form"] == form])),
    )
    chance = {row["seed"]: row["mean"] for row in rows if row["form"] == "random"}
    ours = [row for row in rows if row["form"] == "ddpg"]
    yield figures(
        (
            Figure("last episodes over the first", [row["last"] - row["first"] for row in ours], points, least=0.0),
            Figure(
                "last episodes over `random`", [row["last"] - chance[row["seed"]] for row in ours], points, least=0.0
            ),
            Figure("candidates over the limit", [row["over_limit"] for row in ours], unit("", 0), most=0.0),
        ),
        "seeds",
    )


def _form(form: str, rows: Rows) -> tuple[str, ...]:
    def over(key: str) -> float:
        return mean(row[key] for row in rows)

    shares = (f"{100 * over(key):.1f} %" for key in ("first", "last", "best"))
    return form, str(len(rows)), *shares, str(sum(row["over_limit"] for row in rows)), f"{over('episode_ms'):.0f}"

"""Candidate: a point of the space, to be evaluated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from search.errors import InvalidInput
from search.space import Values
from search.space.knob import Value

Fidelity: TypeAlias = Literal["F0", "F1", "F2", "F3", "F4", "F5"]


@dataclass(frozen=True)
class Candidate:
    """A point of the space, not yet evaluated.

    For some blocks, `masks` holds the indices of the kept units, ascending; in all other blocks, the method keeps the
    most important units. `origin` is the strategy that asked for the candidate. `parents` are the ids of the candidates
    from which it was made. `recipe` is the digest of the training recipe. `weights_from` is the digest of the network
    whose weights the candidate starts from (None: the original): `Evaluation.network` of an earlier full training run
    (F4), or of an earlier F3 evaluation. Values and masks count the original's units in any case, so a candidate at F2
    or F3 may keep only units that the network still has; without a mask, it keeps the most important of those. If the
    network is lost or lacks a unit, the evaluation fails and says so. `after_search` is True for a finalist or a
    finalist's file: no search asked for these.
    """

    id: str
    values: Values
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    origin: str = ""
    parents: tuple[str, ...] = ()
    fidelity: Fidelity = "F2"
    recipe: str = ""
    weights_from: str | None = None
    after_search: bool = False

    def __post_init__(self) -> None:
        if not self.id:
            raise InvalidInput("id", self.id, "a candidate needs an id")
        if not self.values:
            raise InvalidInput("values", self.values, "a candidate needs a value for each knob")
        if self.fidelity not in get_args(Fidelity):
            raise InvalidInput("fidelity", self.fidelity, f"must be one of {', '.join(get_args(Fidelity))}")

    @property
    def searched(self) -> bool:
        """True if a search asked for the candidate at F2, at F3 or as a full training run (F4).

        Finalists come after the search: they are trained with the job's recipe (F4), and devices time the whole network
        (F5).
        """
        return self.fidelity in ("F2", "F3", "F4") and not self.after_search

    def key(self, network: str, split: str, seed: int) -> str:
        """Return the sha256 of everything that an evaluation's result depends on: candidates with equal keys need only
        one evaluation.

        The id, the origin and the parents are not part of the key.
        """
        parts = {
            "network": network,
            "values": dict(self.values),
            "masks": dict(self.masks),
            "recipe": self.recipe,
            "fidelity": self.fidelity,
            "split": split,
            "seed": seed,
            "weights_from": self.weights_from,
        }
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return a dict for JSON; `from_json` turns it back into an equal candidate."""
        record = asdict(self)
        record["values"] = {name: _plain(value) for name, value in self.values.items()}
        record["masks"] = {block: list(kept) for block, kept in self.masks.items()}
        record["parents"] = list(self.parents)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Candidate:
        """Return the candidate of a record. Raises: InvalidInput if the record is not a candidate."""
        try:
            return cls(
                id=record["id"],
                values={name: _value(value) for name, value in record["values"].items()},
                masks={block: tuple(kept) for block, kept in record["masks"].items()},
                origin=record["origin"],
                parents=tuple(record["parents"]),
                fidelity=record["fidelity"],
                recipe=record["recipe"],
                weights_from=record["weights_from"],
                after_search=record.get("after_search", _after_search(record)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput("candidate", record, f"is not a candidate: {error!r}") from error


def _after_search(record: Mapping[str, Any]) -> bool:
    """Return `after_search` for an old record. In these, a trained candidate has a recipe only if a search asked for
    it.
    """
    return record["fidelity"] == "F5" or (record["fidelity"] == "F4" and not record["recipe"])


def _plain(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else value


def _value(value: Any) -> Value:
    found: Value = tuple(value) if isinstance(value, list) else value
    return found

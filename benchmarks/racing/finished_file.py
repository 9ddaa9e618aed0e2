"""Turns a trained network into the file that is judged: batch norms folded, then quantised if that was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from compress.graph.fold import fold_norms
from compress.method import AFTER_TRAINING
from compress.network import Network
from compress.scheme import Scheme
from racing.arena import Arena


def finished(arena: Arena, network: Network, methods: Sequence[str], values: Mapping[str, Any]) -> Network:
    """Return the network as in its file, by the methods' stages after training."""
    bound = Scheme.of([(name, {}) for name in methods]).bind(values)
    evidence = replace(arena.material.evidence, masks={}, statistics=None)
    return bound.rewrite(fold_norms(network), evidence, *AFTER_TRAINING)

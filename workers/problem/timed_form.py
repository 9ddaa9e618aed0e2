"""Timed form: the graph whose latency is quoted for a network; the same before a job is queued and within it.

The original's latency, and so the unit of a limit that is a ratio, is that of the uploaded network with its batch
norms folded, as every runtime does, and nothing else changed. A job cuts either that network or its lossless rewrite,
whichever is faster on all of its devices; latency floors are those of the network that is cut.
"""

from __future__ import annotations

from compress.graph.fold import fold_norms
from compress.graph.rewrites import rewritten
from compress.network import Network


def timed_form(network: Network) -> Network:
    """Return the uploaded network with its batch norms folded, as every runtime does; its latency is the original's."""
    return fold_norms(network)


def cut_forms(timed: Network) -> tuple[Network, ...]:
    """Return the forms that a job may cut: the timed form, and its lossless rewrite if there is one."""
    faster = rewritten(timed)
    return (timed,) if faster is timed else (timed, faster)

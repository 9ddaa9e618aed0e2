"""Timed form: the graph of a network that a latency is of, the same before a job is queued and within it.

The original's latency, and so the unit of a limit that is a ratio, is that of the network as it was uploaded: every
runtime folds its batch norms, and nothing else is changed. A job cuts that network or its lossless rewrite, whichever
is faster on all of its devices; floors are of what is cut.
"""

from __future__ import annotations

from compress.graph.fold import fold_norms
from compress.graph.rewrites import rewritten
from compress.network import Network


def timed_form(network: Network) -> Network:
    """The network as it was uploaded, its batch norms folded as every runtime does: what the original takes."""
    return fold_norms(network)


def cut_forms(timed: Network) -> tuple[Network, ...]:
    """The forms of `timed_form` that a job may cut: itself, and its lossless rewrite if there is one."""
    faster = rewritten(timed)
    return (timed,) if faster is timed else (timed, faster)

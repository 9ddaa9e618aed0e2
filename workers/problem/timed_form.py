"""Timed form: the graph whose latency is quoted for a network. It is the same before a job is queued and within the
job.

The original's latency, to which a ratio limit refers, is the latency of the uploaded network with its batch norms
folded, as every runtime folds them, and nothing else changed. A job cuts either this network or its lossless rewrite,
whichever is faster on all of the job's devices. Latency floors are computed for the network that is cut.
"""

from __future__ import annotations

from compress.graph.fold import fold_norms
from compress.graph.rewrites import rewritten
from compress.network import Network


def timed_form(network: Network) -> Network:
    """Return the uploaded network with its batch norms folded, as every runtime folds them; its latency is the
    original's latency.
    """
    return fold_norms(network)


def cut_forms(timed: Network) -> tuple[Network, ...]:
    """Return the forms that a job may cut: the timed form, and its lossless rewrite if there is one."""
    faster = rewritten(timed)
    return (timed,) if faster is timed else (timed, faster)

"""Counts by the rows of metrics: each agrees with the cost of the network and file that it is of."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from compress.counting.cost import cost
from compress.counting.count import Count, Form, counter
from compress.network import Network
from search.metrics import COUNTED
from workers.problem.counted import COUNTS, WHOLES, counted, counted_by_weights


def half_zero(network: Network) -> Network:
    """The same with every second number of a weight at zero."""
    weight = np.array(network.constants["conv1.weight"])
    weight.reshape(-1)[::2] = 0.0
    return network.with_constants({"conv1.weight": weight})


def test_a_network_as_it_is_has_the_counts_of_its_cost(trained: Network) -> None:
    network = half_zero(trained)
    assert counted(Form.of(network)) == asdict(cost(network))


def test_what_it_computes_is_counted_apart_from_what_the_file_holds(trained: Network) -> None:
    computes, final = trained, half_zero(trained)
    found = counted(Form(computes, final, final.save()))
    assert found["nonzeros"] == cost(computes).nonzeros > cost(final).nonzeros
    assert found["stored_bytes"] == cost(final).stored_bytes < cost(computes).stored_bytes
    assert counted_by_weights(Form(computes, final, final.save())) == {name: found[name] for name in WHOLES}


def test_every_counted_metric_has_its_counter_in_the_order_of_tables() -> None:
    assert list(COUNTS) == [metric.name for metric in COUNTED]
    assert all(COUNTS[whole].of_node is not None for whole in WHOLES.values())


def test_a_name_of_something_else_is_no_counter() -> None:
    with pytest.raises(TypeError, match=r"compress\.counting\.cost:cost is .* not a Count"):
        counter("compress.counting.cost:cost")


def test_a_count_is_estimated_in_one_way() -> None:
    with pytest.raises(ValueError, match="either node by node or as a part"):
        Count(lambda form: 0.0)

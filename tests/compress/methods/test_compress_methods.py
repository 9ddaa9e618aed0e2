"""Every method through the contract, what is particular to each, and schemes of several."""

from __future__ import annotations

import numpy as np
import pytest
from compress_graphs import residual

from compress import methods
from compress.counting.cost import cost
from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.groups import layer_name, prunable_blocks
from compress.methods import filter_prune, fp16, int8_ptq, weight_prune
from compress.methods.filter_prune import pick
from compress.pruning.effective_weights import layer_weights
from compress.scheme import Scheme
from compress.testing import MethodContract, example_images, example_network
from search.space import Choice
from search.space import InvalidInput as InvalidSetting


class TestFilterPrune(MethodContract):
    family = filter_prune.METHOD


class TestInt8Ptq(MethodContract):
    family = int8_ptq.METHOD


class TestFp16(MethodContract):
    family = fp16.METHOD


class TestWeightPrune(MethodContract):
    family = weight_prune.METHOD


def test_every_method_has_its_contract_tested() -> None:
    tested = {case.family.name for case in (TestFilterPrune, TestFp16, TestInt8Ptq, TestWeightPrune)}
    assert set(methods.names()) == tested


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="filter_prune, fp16, int8_ptq, weight_prune"):
        methods.load("magic")


def test_widths_come_from_the_grid_and_respect_the_least_share() -> None:
    network = residual()
    scheme = Scheme.of([("filter_prune", {"min_keep": 0.5})])
    (first, *_) = scheme.knobs(network, {"stem": [2, 4, 6]})
    assert isinstance(first, Choice)
    assert first.name == "stem"
    assert first.options == (4, 6, 8)
    assert first.features["channels"] == 8.0


def test_pick_keeps_the_largest_and_the_first_of_equals() -> None:
    assert pick(np.array([1.0, 3.0, 3.0, 2.0]), 2).tolist() == [1, 2]
    assert pick(np.array([5.0, 5.0, 5.0]), 2).tolist() == [0, 1]


def evidence_of(network: object) -> Evidence:
    scheme = Scheme.of([("filter_prune", {})])
    return scheme.gather(network, example_images(32))  # type: ignore[arg-type]  # a Network


def test_a_mask_overrides_the_choice() -> None:
    network = residual()
    block = prunable_blocks(network)[0]
    mask = np.array([True, False] * 4)
    bound = Scheme.of([("filter_prune", {"refit": False})]).bind({"stem": 4})
    result = bound.rewrite(network, Evidence(masks={block.name: mask}))
    np.testing.assert_array_equal(result.constants["stem.weight"], network.constants["stem.weight"][::2])


def test_a_mask_of_another_width_is_refused() -> None:
    network = residual()
    bound = Scheme.of([("filter_prune", {})]).bind({"stem": 3})
    with pytest.raises(InvalidInput, match="mask") as caught:
        bound.rewrite(network, Evidence(masks={"stem": np.ones(8, bool)}))
    assert caught.value.field == "stem"


@pytest.mark.parametrize("width", [0, 9, 4.0, "int8"])
def test_a_width_that_a_block_cannot_have_is_refused(width: float | str) -> None:
    network = residual()
    bound = Scheme.of([("filter_prune", {})]).bind({"stem": width})
    with pytest.raises(InvalidInput, match="width") as caught:
        bound.rewrite(network, evidence_of(network))
    assert caught.value.value == width


def test_missing_evidence_is_an_error_not_a_guess() -> None:
    network = residual()
    with pytest.raises(InvalidInput, match="importance"):
        Scheme.of([("filter_prune", {})]).bind({"stem": 4}).rewrite(network, Evidence())
    with pytest.raises(InvalidInput, match="images"):
        Scheme.of([("int8_ptq", {})]).bind({"int8_ptq": "int8"}).rewrite(network, Evidence())


def test_unknown_option_and_unknown_layer_are_refused() -> None:
    with pytest.raises(InvalidInput, match="fp32, int8"):
        Scheme.of([("int8_ptq", {})]).bind({"int8_ptq": "int4"})
    scheme = Scheme.of([("int8_ptq", {"keep_float": ["nowhere"]})])
    layers = ", ".join(layer_name(name) for name in layer_weights(residual()))
    with pytest.raises(InvalidInput) as caught:
        scheme.bind({"int8_ptq": "int8"}).rewrite(residual(), Evidence(images=example_images(4)))
    assert caught.value.message == f"the network has no layer 'nowhere'; its layers are {layers}"


def test_settings_are_checked_when_a_scheme_is_made() -> None:
    with pytest.raises(InvalidSetting, match=r"must be between 0 and 1"):
        Scheme.of([("filter_prune", {"min_keep": 2.0})])
    with pytest.raises(InvalidInput, match="twice"):
        Scheme.of([("int8_ptq", {}), ("int8_ptq", {})])


@pytest.mark.parametrize("names", [("filter_prune", "int8_ptq"), ("int8_ptq", "filter_prune")])
def test_a_scheme_cuts_first_and_quantises_last_whatever_its_order(names: tuple[str, str]) -> None:
    network = example_network()
    scheme = Scheme.of([(name, {}) for name in names])
    evidence = scheme.gather(network, example_images(64))
    knobs = scheme.knobs(network, {})
    values = {knob.name: 3 if knob.name != "int8_ptq" else "int8" for knob in knobs}
    bound = scheme.bind(values)
    cut = bound.rewrite(network, evidence, "structure")
    assert cost(cut).parameters < cost(network).parameters / 2
    assert not any(node.op_type == "QuantizeLinear" for node in cut.nodes)
    whole = bound.rewrite(network, evidence)
    assert any(node.op_type == "QuantizeLinear" for node in whole.nodes)
    assert whole.digest == bound.rewrite(cut, evidence, "precision").digest
    assert [operator.stage for operator in bound.steps()] == ["structure", "precision"]

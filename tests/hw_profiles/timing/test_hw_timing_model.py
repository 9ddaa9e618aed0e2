from __future__ import annotations

import onnx
import pytest
from hw_blocks import BLOCKS, block, conv, node
from onnx import numpy_helper

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Constant, Op, OpNode, TensorSpec
from hw_profiles.runtimes.onnxruntime.engine import OnnxRuntime
from hw_profiles.timing.file_timing import time_models
from hw_profiles.timing.protocol import BurstProtocol, Sample
from hw_profiles.timing.timing_model import OP_METADATA, SLOTS, fusion_mismatch, output_specs, timing_model

ONCE = BurstProtocol(min_rounds=2, max_rounds=2, timed_runs=1, split_half=100.0, round_s=0.0)


def block_nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.name.startswith("block")]


@pytest.mark.parametrize("name", BLOCKS)
def test_every_kind_of_block_is_valid_runs_and_fuses(name: str) -> None:
    op = BLOCKS[name]
    runtime = OnnxRuntime()
    models = {copies: timing_model(op, copies) for copies in (1, SLOTS)}
    for model in models.values():
        onnx.checker.check_model(model, full_check=True)
        assert not fusion_mismatch(model, runtime.fused)
    device = runtime.configs("bench")[0]
    results = runtime.time({str(c): m.SerializeToString() for c, m in models.items()}, device, ONCE)
    for result in results.values():
        assert isinstance(result, Sample), result


@pytest.mark.parametrize("name", BLOCKS)
def test_two_models_differ_in_nothing_but_blocks(name: str) -> None:
    """What cancels in a slope must be the same in both: all nodes but the blocks', by type and in number."""

    def others(model: onnx.ModelProto) -> list[str]:
        return sorted(n.op_type for n in model.graph.node if not n.name.startswith("block"))

    op = BLOCKS[name]
    few, many = timing_model(op, 1), timing_model(op, SLOTS)
    assert len(block_nodes_of(few)) == len(op.nodes)
    assert len(block_nodes_of(many)) == SLOTS * len(op.nodes)
    assert others(few) == others(many)
    assert len(few.graph.output) == len(many.graph.output)
    assert [i.name for i in few.graph.input] == [i.name for i in many.graph.input]


def test_copies_have_weights_of_their_own_and_the_key_draws_them() -> None:
    def weights(op: Op) -> list[bytes]:
        return [
            numpy_helper.to_array(t).tobytes()
            for t in timing_model(op, SLOTS).graph.initializer
            if t.name.endswith("/w0")
        ]

    assert len(set(weights(conv()))) == SLOTS
    assert weights(conv()) == weights(conv())
    assert timing_model(conv(), 2).SerializeToString() == timing_model(conv(), 2).SerializeToString()


def test_the_model_carries_its_key() -> None:
    op = conv()
    assert {p.key: p.value for p in timing_model(op, 1).metadata_props} == {OP_METADATA: op.key}


def test_an_unfused_block_is_noticed() -> None:
    # two convolutions never run as one kernel
    two = block(
        [node("Conv", "a v", "t"), node("Conv", "t w", "y")],
        {"a": ((1, 8, 4, 4), "conv")},
        {"v": (8, 8, 1, 1), "w": (8, 8, 1, 1)},
    )
    runtime = OnnxRuntime()
    model = timing_model(two, 1)
    assert fusion_mismatch(model, runtime.fused)
    results = time_models(runtime, {"two": model.SerializeToString()}, runtime.configs("bench")[0], ONCE)
    assert isinstance(results["two"], Sample)
    assert results["two"].extra["suspect"] == "fusion_mismatch"


def test_outputs_are_inferred() -> None:
    assert output_specs(BLOCKS["split"]) == [TensorSpec((1, 4, 8, 8)), TensorSpec((1, 12, 8, 8))]
    assert output_specs(BLOCKS["quantised conv"]) == [TensorSpec((1, 16, 8, 8), "uint8")]


def test_ops_that_cannot_stand_alone_say_so() -> None:
    with pytest.raises(InvalidInput, match="copies: must be from 1 to the 4 slots"):
        timing_model(conv(), 5)
    lonely = Op.of([OpNode("Relu", ("w",), ("y",))], {}, {"w": Constant(TensorSpec((2,)))}, ["y"], 17)
    with pytest.raises(InvalidInput, match="no activation enters"):
        timing_model(lonely, 1)
    shapeless = block([node("Reshape", "a n", "y")], {"a": ((1, 4), "gemm")}, {"n": (2,)})
    shapeless = Op.from_json({**shapeless.to_json(), "constants": [[[2], "int64", None]]})
    with pytest.raises(InvalidInput, match="needs a value"):
        timing_model(shapeless, 1)
    wrong = block([node("MatMul", "a w", "y")], {"a": ((1, 4), "gemm")}, {"w": (5, 8)})
    with pytest.raises(InvalidInput, match="shape inference failed"):
        timing_model(wrong, 1)

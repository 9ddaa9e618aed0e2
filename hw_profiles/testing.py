"""RuntimeContract: the tests that every runtime must pass, as a pytest class. Third parties subclass it:

class TestMyRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return MyRuntime()
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles import runtimes
from hw_profiles.device import ONNX, DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes import Runtime
from hw_profiles.tables.probe import LIMIT, Curves, probe_op
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.file_timing import time_models
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, Timing

FIXED = BurstProtocol(min_rounds=3, max_rounds=3, split_half=0.5, round_s=0.0)


def small_network(named: bool = True) -> bytes:
    """Return a network of Conv, ReLU, Conv, Add, ReLU, GlobalAveragePool, Flatten and Gemm on (1, 3, 8, 8), with or
    without node names.
    """
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "r0"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["logits"]),
    ]
    for node in nodes:
        node.name = f"node of {node.output[0]}" if named else ""
    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (16, 10)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return model


def _sample(seed: int = 0) -> Mapping[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)}


class RuntimeContract:
    """Tests for a runtime. Subclass this class and override the fixture `runtime`."""

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise NotImplementedError("override the fixture `runtime` with your own")

    @pytest.fixture
    def device(self, runtime: Runtime) -> DeviceConfig:
        return runtime.configs("bench")[0]

    tolerance = 1e-4
    """Largest allowed difference between the engine's outputs and the outputs of onnxruntime, as a share of their
    scale; a 16-bit engine sets its own value.
    """

    def file(self, runtime: Runtime, device: DeviceConfig) -> bytes:
        """Return the engine's own file of `small_network`."""
        return runtime.convert(small_network(), device)

    def test_it_offers_devices_of_its_own(self, runtime: Runtime) -> None:
        devices = runtime.configs("bench")
        assert devices
        assert devices[0].threads == 1
        for device in devices:
            assert (device.machine, device.runtime) == ("bench", runtime.name)
            assert device.runtime_version == runtime.version() != ""
        assert len({device.config_id for device in devices}) == len(devices)

    def test_every_key_gets_an_answer_and_one_bad_model_ends_nothing(
        self, runtime: Runtime, device: DeviceConfig
    ) -> None:
        files = {name: self.file(runtime, device) for name in ("good", "bad", "also good")} | {"bad": b"not a file"}
        results = runtime.time(files, device, FIXED)
        assert list(results) == list(files)
        assert isinstance(results["bad"], Failure)
        assert results["bad"].reason
        for key in ("good", "also good"):
            sample = results[key]
            assert isinstance(sample, Sample)
            assert sample.key == key
            assert sample.bursts == FIXED.max_rounds
            assert all(low <= mid for low, mid in zip(sample.minima_us, sample.medians_us, strict=True))

    def test_progress_reaches_the_end(self, runtime: Runtime, device: DeviceConfig) -> None:
        seen: list[tuple[int, int]] = []
        generous = BurstProtocol(min_rounds=2, max_rounds=4, round_step=1, split_half=100.0, round_s=0.0)
        file = self.file(runtime, device)
        runtime.time({"a": file}, device, generous, lambda done, total: seen.append((done, total)))
        assert seen[-1] == (1, 1)
        assert seen == sorted(seen)

    def test_nothing_to_time_is_fine(self, runtime: Runtime, device: DeviceConfig) -> None:
        assert runtime.time({}, device, FIXED) == {}

    def test_a_model_is_timed_as_the_file_made_of_it(self, runtime: Runtime, device: DeviceConfig) -> None:
        results = time_models(runtime, {"good": small_network(), "bad": b"not a model"}, device, FIXED)
        assert isinstance(results["good"], Sample)
        assert isinstance(results["bad"], Failure)

    def test_a_format_of_its_own_is_what_its_devices_say(self, runtime: Runtime, device: DeviceConfig) -> None:
        assert (self.file(runtime, device) == small_network()) == (device.suffix == ONNX)

    def test_conversion_does_not_depend_on_the_call(self, runtime: Runtime, device: DeviceConfig) -> None:
        once, again = (runtime.run(self.file(runtime, device), _sample(), device)["logits"] for _ in range(2))
        assert np.array_equal(once, again)

    def test_what_cannot_be_converted_or_run_is_refused(self, runtime: Runtime, device: DeviceConfig) -> None:
        with pytest.raises(InvalidInput):
            runtime.run(runtime.convert(b"not a model", device), _sample(), device)
        with pytest.raises(InvalidInput):
            runtime.run(b"not a file", _sample(), device)

    def test_its_file_says_what_onnxruntime_says(self, runtime: Runtime, device: DeviceConfig) -> None:
        reference = runtimes.load("onnxruntime")
        for seed in range(3):
            said = runtime.run(self.file(runtime, device), _sample(seed), device)
            wanted = reference.run(small_network(), _sample(seed), reference.configs("bench")[0])
            assert said.keys() == wanted.keys()
            scale = float(np.abs(wanted["logits"]).max())
            assert np.abs(said["logits"] - wanted["logits"]).max() <= self.tolerance * scale

    def test_it_learns_steps_and_a_straight_line(self, runtime: Runtime) -> None:
        counts = range(1, LIMIT + 1)
        line = {count: 5.0 + 0.7 * count for count in counts}
        assert runtime.learn(Curves(line, line)).trivial
        stairs = {count: 5.0 + 10.0 * -(-count // 16) for count in counts}
        learned = runtime.learn(Curves(stairs, line))
        assert learned.effective_out(17) == learned.effective_out(32) > 17

    def test_fused_sets_are_a_partition(self, runtime: Runtime) -> None:
        model = small_network()
        names = [node.name for node in onnx.load_model_from_string(model).graph.node]
        sets = runtime.fused(model)
        assert sorted(name for names_of_one in sets for name in names_of_one) == sorted(names)

    def test_fused_sets_do_not_depend_on_the_call(self, runtime: Runtime) -> None:
        assert runtime.fused(small_network()) == runtime.fused(small_network())

    def test_nodes_without_names_are_refused(self, runtime: Runtime) -> None:
        with pytest.raises(InvalidInput, match="names"):
            runtime.fused(small_network(named=False))

    def test_what_is_no_model_is_refused(self, runtime: Runtime) -> None:
        with pytest.raises(InvalidInput, match="model"):
            runtime.fused(b"not a model")

    def test_a_block_runs_in_its_timing_model_as_one_kernel(self, runtime: Runtime, device: DeviceConfig) -> None:
        op = probe_op(16, 16, size=4)
        timing = time_ops(runtime, [op], device, FIXED)[op.key]
        assert isinstance(timing, Timing)
        assert timing.extra.get("suspect") != "fusion_mismatch"
        assert timing.bursts == FIXED.max_rounds

"""The contracts of methods and of tasks as pytest classes. To run every test, subclass one and set its attributes.

class TestMine(MethodContract):
    family = METHOD

class TestMine(TaskContract):
    task = TASK
    labels = ...
    outputs = ...
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from numpy.typing import NDArray

from compress import methods, tasks
from compress.counting.cost import cost
from compress.data.formats.source import Labels
from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.cut import Keep
from compress.graph.fold import fold_norms
from compress.graph.groups import groups
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.method import STAGES, Method, MethodFamily
from compress.network import Array, Network
from compress.scoring.difference import Scores
from compress.task import TargetKind, Task, Taught
from compress.training.recipe import Augment
from search.space import Choice, Doc, Knob, Space, Value, Values

CHILD = """
import sys
from pathlib import Path
from compress.testing import rewritten_digest
from compress.importing.normalise import load_network
print(rewritten_digest(sys.argv[1], load_network(Path(sys.argv[2])), int(sys.argv[3])))
"""


def example_network(seed: int = 0, width: int = 6, classes: int = 3) -> Network:
    """Return a network of two residual blocks with batch norms for 3 x 8 x 8 images, with random weights."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    nodes, constants = [], dict[str, NDArray[np.float32]]()

    def layer(x: str, name: str, channels: tuple[int, int]) -> str:
        shape = (channels[1], channels[0], 3, 3)
        constants[f"{name}.weight"] = rng.normal(0, (channels[0] * 9 / 2) ** -0.5, shape).astype(np.float32)
        for role, low, high in (("gamma", 0.5, 1.5), ("beta", -0.3, 0.3), ("mean", -0.3, 0.3), ("variance", 0.5, 2.0)):
            constants[f"{name}.{role}"] = rng.uniform(low, high, channels[1]).astype(np.float32)
        norm = [f"{name}.{role}" for role in ("gamma", "beta", "mean", "variance")]
        nodes.append(helper.make_node("Conv", [x, f"{name}.weight"], [f"{name}/raw"], name, pads=[1] * 4))
        nodes.append(helper.make_node("BatchNormalization", [f"{name}/raw", *norm], [f"{name}/normed"], f"{name}/norm"))
        return f"{name}/normed"

    def op(op_type: str, inputs: list[str], name: str) -> str:
        nodes.append(helper.make_node(op_type, inputs, [name], f"{name}_node"))
        return name

    x = op("Relu", [layer("image", "stem", (3, width))], "stem_relu")
    for block in ("a", "b"):
        y = op("Relu", [layer(x, f"{block}1", (width, width))], f"{block}_inner")
        x = op("Relu", [op("Add", [layer(y, f"{block}2", (width, width)), x], f"{block}_sum")], f"{block}_relu")
    flat = op("Flatten", [op("GlobalAveragePool", [x], "pooled")], "flat")
    constants["head.weight"] = rng.normal(0, width**-0.5, (classes, width)).astype(np.float32)
    constants["head.bias"] = rng.normal(0, 0.1, classes).astype(np.float32)
    nodes.append(helper.make_node("Gemm", [flat, "head.weight", "head.bias"], ["logits"], "head", transB=1))
    graph = helper.make_graph(
        nodes,
        "example",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return load_network(model.SerializeToString())


def example_images(count: int, shape: tuple[int, ...] = (3, 8, 8), seed: int = 1) -> NDArray[np.float32]:
    """Return (count, *shape) float32 images. They are smooth, not white noise, so that channels are correlated."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape), np.float32)
    blurred: NDArray[np.float32] = noise + np.roll(noise, 1, -1) + np.roll(noise, 1, -2) + noise[:, ::-1]
    return blurred


def gathered(method: Method, network: Network) -> Evidence:
    """Return the evidence gathered from 64 example images and the network's own predictions."""
    return method.gather(network, example_images(64, network.input_shape), None, 0)


def rewritten_digest(name: str, network: Network, seed: int) -> str:
    """Return the digest of a network rewritten with random values of the knobs, for comparison between processes."""
    family = methods.load(name)
    method = family.make(family.settings())
    values = Space(method.knobs(network, {})).sample(np.random.default_rng(seed))
    return method.bind(values).rewrite(network, gathered(method, network)).digest


def zeroed(network: Network, keep: Keep) -> Network:
    """Return the reference to compare a cut with: the full network, with zeros in the weights that read the removed
    channels.
    """
    known = {block.name: block for group in groups(network) for block in group.blocks}
    updates: dict[str, Array] = {}
    for name, chosen in keep.items():
        block = known[name]
        removed = np.setdiff1d(np.arange(block.width), np.asarray(chosen, dtype=np.int64))
        for (weight, axis), _ in block.readers:
            value = updates.get(weight, network.constants[weight]).copy()
            index = [slice(None)] * value.ndim
            index[axis] = block.slots[(weight, axis)][removed].reshape(-1)  # type: ignore[call-overload]  # fancy index
            value[tuple(index)] = 0.0
            updates[weight] = value
    return network.with_constants(updates)


class MethodContract:
    """Tests that every method must pass; see `compress.method.Method`."""

    family: ClassVar[MethodFamily]

    @pytest.fixture
    def method(self) -> Method:
        made: Method = self.family.make(self.family.settings())
        return made

    @pytest.fixture
    def network(self) -> Network:
        return example_network()

    def test_family_is_found_under_its_name(self) -> None:
        assert methods.load(self.family.name) is self.family
        assert self.family.summary
        assert self.family.source

    def test_every_setting_has_a_text_and_a_default(self) -> None:
        assert is_dataclass(self.family.settings)
        for name, hint in get_type_hints(self.family.settings, include_extras=True).items():
            assert get_origin(hint) is Annotated, name
            assert any(isinstance(extra, Doc) for extra in hint.__metadata__), name
        assert self.family.settings() == self.family.settings()
        assert fields(self.family.settings)

    def test_knobs_are_the_same_each_time_and_have_names_of_their_own(self, method: Method, network: Network) -> None:
        knobs = method.knobs(network, {})
        assert knobs
        assert knobs == method.knobs(network, {})
        Space(knobs)

    def test_values_that_leave_the_network_as_it_is(self, method: Method, network: Network) -> None:
        values = {knob.name: untouched(knob) for knob in method.knobs(network, {})}
        result = method.bind(values).rewrite(network, gathered(method, network))
        assert result.digest == network.digest

    @pytest.mark.parametrize("seed", range(4))
    def test_any_values_give_a_network_that_runs_and_leave_the_given_one(
        self, method: Method, network: Network, seed: int
    ) -> None:
        before, evidence = network.digest, gathered(method, network)
        operator = method.bind(drawn(method, network, seed))
        result = operator.rewrite(network, evidence)
        images = example_images(3, network.input_shape, seed=9)
        outputs = run_onnxruntime(result, images)
        assert list(outputs) == list(network.outputs)
        assert all(np.isfinite(value).all() for value in outputs.values())
        assert network.digest == before
        assert result.inputs.keys() == network.inputs.keys()
        again = load_network(result.save())
        difference = relative_difference(
            run_onnxruntime(again, images)[network.output_name], outputs[network.output_name]
        )
        assert difference < 1e-5

    def test_it_lowers_what_it_says_and_nothing_else(self, method: Method) -> None:
        """Count fewer multiplications, or integer ones, as lower latency here, because only a device can measure
        latency.
        """
        network = example_network(width=32)  # so wide that the weights take more bytes than their names and scales
        assert set(self.family.lowers) <= {"latency_ms", *asdict(cost(network))}
        values = {knob.name: least(knob) for knob in method.knobs(network, {})}
        operator = method.bind(values)
        result = operator.rewrite(network, gathered(method, network))
        # Quantising folds norms, whose effect on the counts is not tested here.
        before, after = asdict(cost(fold_norms(network))), asdict(cost(fold_norms(result)))
        # Fewer bits do not change the parameters, which are counted before packing.
        bits = operator.stage in ("precision", "storage")
        counted = ("size_bytes", "stored_bytes") if bits else before
        lowered = {name for name in counted if after[name] < before[name]}
        if after["macs"] < before["macs"] or any(node.op_type == "QuantizeLinear" for node in result.nodes):
            lowered.add("latency_ms")
        assert lowered == set(self.family.lowers)

    def test_foreign_values_are_left_to_other_methods(self, method: Method, network: Network) -> None:
        values = drawn(method, network, 1)
        evidence = gathered(method, network)
        alone = method.bind(values).rewrite(network, evidence)
        with_foreign = method.bind({**values, "a knob of another method": 3}).rewrite(network, evidence)
        assert alone.digest == with_foreign.digest

    def test_another_process_makes_the_same(self, network: Network) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(network.save())
            command = [sys.executable, "-c", CHILD, self.family.name, str(path), "2"]
            # The child needs this process's import path, because `-c` adds only the current folder.
            seen = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
        assert seen.stdout.strip() == rewritten_digest(self.family.name, network, 2)

    def test_an_operator_says_what_it_is(self, method: Method, network: Network) -> None:
        values = drawn(method, network, 0)
        assert repr(method.bind(values)) == repr(method.bind(values))
        assert method.bind(values).stage in STAGES


class TaskContract:
    """Tests that every task must pass; see `compress.task.Task`.

    Attributes:
        task: the task to test.
        labels: (n, ...) labels in the form that data sets use, not all equal; n is at least 8.
        outputs: (n, ...) float32, the outputs of a network that gets some samples right, but not all.
    """

    task: ClassVar[Task]
    labels: ClassVar[NDArray[Any]]
    outputs: ClassVar[NDArray[np.float32]]

    @pytest.fixture
    def targets(self) -> NDArray[Any]:
        return self.task.targets(Labels(self.labels, "y_train"), len(self.labels), "train")

    @pytest.fixture
    def kind(self, targets: NDArray[Any]) -> TargetKind:
        kind, _ = self.task.kind({"train": targets}, {"train": Labels(self.labels, "y_train")}, None, ())
        return kind

    @pytest.fixture
    def scores(self, targets: NDArray[Any]) -> Scores:
        return self.task.score(self.outputs, targets)

    def test_it_is_found_under_its_name(self) -> None:
        assert tasks.load(self.task.name) is self.task
        assert self.task.summary
        assert self.task.metric.isidentifier()

    def test_images_may_stay_as_they_are_in_training(self) -> None:
        assert "none" in self.task.augments
        assert self.task.augments <= set(get_args(Augment))

    def test_targets_are_one_a_sample_of_a_kind_that_parts_can_hold(self, targets: NDArray[Any]) -> None:
        assert len(targets) == len(self.labels)
        assert targets.dtype in (np.int64, np.float32)

    def test_labels_of_another_number_are_refused_by_name(self) -> None:
        with pytest.raises(InvalidInput) as caught:
            self.task.targets(Labels(self.labels[:-1], "y_val"), len(self.labels), "validation")
        assert caught.value.field == "y_val"

    def test_targets_have_a_kind_and_an_output_that_fits(self, kind: TargetKind) -> None:
        assert bool(kind.classes) is (kind.shape == ())
        shapes = {"image_features": (3, 5, 5), "wanted": self.outputs.shape[1:]}
        assert self.task.check(shapes, "wanted", kind) == "wanted"

    def test_an_output_that_is_not_there_is_refused_by_name(self, kind: TargetKind) -> None:
        with pytest.raises(InvalidInput) as caught:
            self.task.check({"wanted": self.outputs.shape[1:]}, "other", kind)
        assert (caught.value.field, caught.value.value) == ("output", "other")

    def test_scores_are_one_a_sample_between_0_and_1(self, targets: NDArray[Any], scores: Scores) -> None:
        assert scores.shape == (len(targets),)
        assert scores.dtype == np.float64
        assert 0.0 <= scores.min() < scores.max() <= 1.0

    def test_a_score_is_that_of_its_sample_alone(self, targets: NDArray[Any], scores: Scores) -> None:
        halves = [self.task.score(self.outputs[rows], targets[rows]) for rows in (slice(3), slice(3, None))]
        np.testing.assert_allclose(np.concatenate(halves), scores, atol=1e-9)

    def test_intervals_hold_the_mean(self, scores: Scores) -> None:
        low, high = self.task.interval(scores)
        assert 0.0 <= low < scores.mean() < high <= 1.0

    def test_a_score_of_chance_guesses_and_a_perfect_one_does_not(self, scores: Scores) -> None:
        assert self.task.guesses(scores, float(scores.mean()))
        assert not self.task.guesses(np.ones(1000), 0.5)

    def test_a_difference_is_paired_and_turns_its_sign_with_its_order(self, scores: Scores) -> None:
        others = np.roll(scores, 1)
        others[0] = scores.min()
        there, back = self.task.compare(scores, others), self.task.compare(others, scores)
        assert there.mean == pytest.approx(float((scores - others).mean()))
        assert there.count == len(scores)
        assert there.low <= there.mean <= there.high
        assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-6)
        assert self.task.compare(scores, scores).mean == 0.0

    def test_guessing_is_worse_than_being_right(self, kind: TargetKind, targets: NDArray[Any], scores: Scores) -> None:
        assert 0.0 <= self.task.chance(kind, targets) < scores.max()
        assert self.task.told(float(scores.mean()), len(scores), self.task.chance(kind, targets))

    def test_a_step_against_the_gradient_lowers_the_loss(self, targets: NDArray[Any]) -> None:
        import torch

        made, wanted = torch.from_numpy(self.outputs.copy()).requires_grad_(), torch.from_numpy(targets)
        loss = self.task.loss(made, wanted)
        assert loss.shape == ()
        (gradient,) = torch.autograd.grad(loss, made)
        stepped, summed = made.detach() - 0.1 * gradient, self.task.loss(made, wanted, reduction="sum")
        assert self.task.loss(stepped, wanted).item() < loss.item()
        assert summed.item() == pytest.approx(loss.item() * len(wanted), rel=1e-4)

    def test_a_teacher_draws_the_loss_to_itself(self, targets: NDArray[Any]) -> None:
        import torch

        made, wanted = torch.from_numpy(self.outputs), torch.from_numpy(targets)
        other = made.flip(0)
        like, unlike = (float(self.task.loss(made, wanted, Taught(each, 1.0, 4.0))) for each in (made, other))
        assert like < unlike


def drawn(method: Method, network: Network, seed: int) -> Values:
    """Return random values of the method's knobs."""
    return Space(method.knobs(network, {})).sample(np.random.default_rng(seed))


def untouched(knob: Knob) -> Value:
    """Return the value that leaves the network as it is: the largest option, or the first of an unordered choice."""
    if isinstance(knob, Choice):
        return knob.options[-1] if knob.ordered else knob.options[0]
    if hasattr(knob, "width"):
        return tuple(range(knob.width))
    return knob.high


def least(knob: Knob) -> Value:
    """Return the value that removes the most: the smallest option, or the last of an unordered choice."""
    if isinstance(knob, Choice):
        return knob.options[0] if knob.ordered else knob.options[-1]
    if hasattr(knob, "width"):
        return (0,)
    return knob.low


def _environment() -> Mapping[str, str]:
    """Return an environment with the same number of threads as this process; another number would change the evidence's
    last bits.
    """
    import torch

    threads = str(torch.get_num_threads())
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": threads}

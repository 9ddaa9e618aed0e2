"""A tiny trained network, a small data set, and a job on a simulated device."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scheme import Scheme
from compress.training.fit import fit
from compress.training.recipe import Recipe
from hw_profiles.device import DeviceConfig
from hw_profiles.host_lock import HostLock
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.probe import probe
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.protocol import BurstProtocol, Timing
from workers.plan import Budget, DatasetInput, Effort, JobPlan, ModelInput, Named, Target, Training
from workers.problem.builder import ProblemBuilder
from workers.problem.kernel_space import KernelSpace
from workers.problem.widths import block_widths
from workers.running.memory_ports import MemoryPorts

DEVICE = "dev_1"
NORM = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_network(widths: tuple[int, ...] = (8, 32, 32)) -> Network:
    """Convolutions with batch norm and ReLU on (1, 8, 8), a pool and a linear layer."""
    rng = np.random.default_rng(0)
    nodes, constants, read, inputs = [], [], "image", 1
    for i, width in enumerate(widths):
        weight = rng.standard_normal((width, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"conv{i}.weight"))
        for role, value in NORM.items():
            constants.append(numpy_helper.from_array(np.full(width, value, np.float32), f"norm{i}.{role}"))
        stride = 2 if i else 1
        nodes += [
            helper.make_node(
                "Conv", [read, f"conv{i}.weight"], [f"a{i}"], f"conv{i}", pads=[1] * 4, strides=[stride] * 2
            ),
            helper.make_node("BatchNormalization", [f"a{i}", *(f"norm{i}.{r}" for r in NORM)], [f"b{i}"], f"norm{i}"),
            helper.make_node("Relu", [f"b{i}"], [f"r{i}"], f"relu{i}"),
        ]
        read, inputs = f"r{i}", width
    head = (0.1 * rng.standard_normal((10, inputs))).astype(np.float32)
    constants += [
        numpy_helper.from_array(head, "fc.weight"),
        numpy_helper.from_array(np.zeros(10, np.float32), "fc.bias"),
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", [read], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return load_network(model.SerializeToString())


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8, 1) uint8 and (1797,) int64."""
    raw = load_digits()
    return np.round(raw.images * 15).astype(np.uint8)[..., None], raw.target.astype(np.int64)


@pytest.fixture(scope="session")
def data_file(digits: tuple[np.ndarray, np.ndarray]) -> bytes:
    images, labels = digits
    parts = {"train": slice(0, 900), "val": slice(900, 1300), "test": slice(1300, None)}
    arrays = {f"x_{name}": images[rows] for name, rows in parts.items()}
    arrays |= {f"y_{name}": labels[rows] for name, rows in parts.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


@pytest.fixture(scope="session")
def trained(digits: tuple[np.ndarray, np.ndarray]) -> Network:
    """About 97 % of the digits right."""
    images, labels = digits
    recipe = Recipe(epochs=5, batch=32, lr=0.05, augment="none")
    network = tiny_network()
    for step in fit(network, Part(images[:900], labels[:900]), Preprocessing(), recipe):
        if step.step == step.steps - 1:
            network = step.network()
    return network


Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def simulated() -> SimulatedRuntime:
    """A device on which the tiny network's own work is most of the time."""
    return SimulatedRuntime(overhead_us=1.0, contention=1.0)


@pytest.fixture(scope="session")
def known_table(trained: Network) -> LatencyTable:
    """Every kernel of every candidate, in fp32 and in int8, and the alignment learned: what a served device has."""
    runtime = simulated()
    return timed_table(trained, runtime, runtime.configs("sim")[0])


@pytest.fixture(scope="session")
def whole_table() -> Callable[[Network, SimulatedRuntime, DeviceConfig], LatencyTable]:
    """Makes the table of a device that has timed every kernel of every candidate."""
    return timed_table


def timed_table(trained: Network, runtime: SimulatedRuntime, device: DeviceConfig) -> LatencyTable:
    """The table of a device that has timed every kernel of every candidate."""
    curves = probe()
    quick = BurstProtocol(min_rounds=5, max_rounds=5)
    timed = time_ops(runtime, curves.ops, device, quick)
    classes = curves.learn({key: timing.quiet_us for key, timing in timed.items() if isinstance(timing, Timing)})
    blocks = prunable_blocks(trained)
    evidence = Evidence(np.zeros((4, 1, 8, 8), np.float32), {block.name: np.ones(block.width) for block in blocks})
    scheme = Scheme.of([("filter_prune", {}), ("int8_ptq", {})])
    widths = block_widths(blocks, [classes])
    ops = ProblemBuilder(KernelSpace(fold_norms(trained), scheme, widths, evidence, ["simulated"])).ops("simulated")
    timed = {**timed, **time_ops(runtime, ops, device, quick)}
    rows = [Row.of(op, t) for op in (*curves.ops, *ops) if isinstance(t := timed[op.key], Timing)]
    return LatencyTable(device).updated(rows, epoch=1, classes=classes)


@pytest.fixture
def lock(tmp_path: Path) -> HostLock:
    """A lock of the test's own: other work on the machine is none of its business."""
    folder = tmp_path / "lock"
    folder.mkdir()
    return HostLock(folder)


@pytest.fixture
def job(tmp_path: Path, trained: Network, data_file: bytes, known_table: LatencyTable) -> Job:
    """Makes a small plan, changed as wanted, and ports to run it on."""

    def make(ratio: float = 0.85, known: bool = True, **changes: object) -> tuple[JobPlan, MemoryPorts]:
        runtime, device = simulated(), known_table.device
        quick = BurstProtocol(min_rounds=5, max_rounds=5)
        tables = {DEVICE: known_table} if known else {}
        ports = MemoryPorts(tmp_path / "job", runtime, {DEVICE: device}, quick, tables)
        plan = JobPlan(
            job_id="job_1",
            name="tiny",
            model=ModelInput(ports.put_bytes(trained.save()), "tiny"),
            dataset=DatasetInput(ports.put_bytes(data_file), "digits", "digits.npz"),
            methods=(Named("filter_prune"),),
            strategies=(Named("random"),),
            targets=(Target(DEVICE, device.name, max_latency_ratio=ratio),),
            limits={"max_accuracy_drop": 0.5},
            budget=Budget(evaluations=4, wall_s=600, finalists=2),
            training=Training(epochs=1, augment="none"),
            effort=Effort(renormalise_images=64, accuracy_images=100, calibration_networks=4, rows=60),
        )
        return replace(plan, **changes), ports  # type: ignore[arg-type]  # fields of the plan

    return make

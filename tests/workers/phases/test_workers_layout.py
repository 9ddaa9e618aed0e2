"""Whole jobs on networks whose input has the channels last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.importing.normalise import load_network
from compress.network import Network, Node, TensorType
from hw_profiles.host_lock import HostLock
from workers.evaluating.images import Preprocessed
from workers.job import run
from workers.plan import JobPlan, ModelInput
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def channels_last(network: Network) -> Network:
    """The same network behind a Transpose: as Keras's exporters write it."""
    own = network.input_name
    _, channels, height, width = network.inputs[own].shape
    turn = Node("Transpose", "turn", ("photo",), (own,), {"perm": (0, 3, 1, 2)})
    photo = {"photo": TensorType((1, height, width, channels), "float32", 0)}
    turned = replace(network, inputs=photo, nodes=(turn, *network.nodes), types={**network.types, **photo})
    return load_network(turned.save())


def test_a_job_on_a_network_with_channels_last_is_met(job: Job, trained: Network, lock: HostLock) -> None:
    plan, ports = job(known=False)
    network = channels_last(trained)
    assert network.input_shape == (8, 8, 1)
    plan = replace(plan, model=ModelInput(ports.put_bytes(network.save()), "keras"))
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    assert outcome.summaries["original"]["accuracy"] > 0.9
    result = load_network(ports.files["onnx"])
    assert (result.inputs, result.output_name) == (network.inputs, network.output_name)


def test_images_are_mirrored_left_to_right_in_both_layouts() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    part = Part(images, np.zeros(3, np.int64))
    first, last = (Preprocessed(part, Preprocessing(), layout=each).mirror()[:] for each in ("NCHW", "NHWC"))
    np.testing.assert_array_equal(last, images[:, :, ::-1] * np.float32(1 / 255))
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)

"""The agent's self-test: times a one-node model on every device, in a child process as for all other work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from onnx import TensorProto, helper

from hw_profiles import machine
from hw_profiles.device import DeviceConfig
from hw_profiles.host_lock import HostLock
from hw_profiles.timing.batch import Batch, Work
from hw_profiles.timing.protocol import BurstProtocol, Failure
from hw_profiles.wire.enrolment import SelfTest

OPSET, IR_VERSION = 13, 8  # ONNX versions that every offered runtime can read
PROTOCOL = BurstProtocol(min_rounds=2, max_rounds=2)


def null_model() -> bytes:
    """Return a model that is a single Relu on one element: its latency is the cost of a call."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "null", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def self_test(
    devices: Sequence[DeviceConfig],
    lock: HostLock,
    least_deadline_s: float,
    cancelled: Callable[[], bool] = lambda: False,
) -> SelfTest:
    """Time the null model on each device; the result is `ok` if every timing succeeded.

    Raises:
        Cancelled: `cancelled` returned True.
    """
    null_us: dict[str, float] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="netlathe-agent-") as folder:
        path = Path(folder) / "null.onnx"
        path.write_bytes(null_model())
        for device in devices:
            batch = Batch(device, PROTOCOL, lock, cancelled=cancelled, least_deadline_s=least_deadline_s)
            for _, outcome in batch.time([Work("null", {"many": path})]):
                if isinstance(outcome, Failure):
                    wrong.append(f"{device.name}: {outcome.reason}")
                else:
                    null_us[device.name] = outcome["many"].timing().quiet_us
    return SelfTest(ok=not wrong, detail="; ".join(wrong)[:2000], null_us=null_us, facts=machine.facts())

"""Verify an import: torch and onnxruntime must agree; otherwise the error names the first node that differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.errors import Mistake, lacks_memory
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import judge
from compress.network import Array, Network

if TYPE_CHECKING:
    from compress.graph.module import TorchNetwork


def verify(network: Network, samples: NDArray[np.float32]) -> float:
    """Check that our torch module and onnxruntime agree on the file, at batch 1 and on the whole sample.

    Outputs may differ only because rounding accumulates over the network. So if they differ, every node is compared
    with onnxruntime on the same inputs: no rounding accumulates there, so a wrong reading of an op is found in any
    network.

    Args:
        samples: (N, *input_shape) float32, N >= 3, real data if there is any.

    Returns:
        The largest relative difference of the outputs.

    Raises:
        Disagreement: the outputs differ; the error names the first node whose outputs differ for the same inputs.
        InvalidInput: onnxruntime cannot run the file.
        Mistake: onnxruntime can run the file, but our torch module cannot.
    """
    from compress.graph.module import TorchNetwork
    from compress.importing.nodewise import check_nodes

    module = TorchNetwork(network).eval()
    worst = 0.0
    for batch in (samples[:1], samples):
        expected = run_onnxruntime(network, batch)
        actual = _run_torch(module, batch)
        found = {name: judge(actual[name], reference) for name, reference in expected.items()}
        worst = max(worst, *(agreement.difference for agreement in found.values()))
        if not all(agreement.holds for agreement in found.values()):
            check_nodes(network, module, batch)
    return worst


def _run_torch(module: TorchNetwork, batch: NDArray[np.float32]) -> dict[str, Array]:
    import torch

    try:
        with torch.no_grad():
            made = module.run(torch.from_numpy(batch), list(module.network.outputs))
    except Exception as error:
        if lacks_memory(error):
            raise
        # `compress.importing.faults` ran every row once, so this failure is not due to one op.
        raise Mistake(f"the network loads but does not run at batch {len(batch)}: {error}") from error
    return {name: value.numpy() for name, value in made.items()}

"""Verify: an import is checked, not trusted. torch and onnxruntime must agree, or the first differing node is named."""

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
    """Check that torch, as we read the file, and onnxruntime agree; at batch 1 and on the whole sample.

    Outputs that differ may do so by rounding alone, added up over the network. So every node is then held against
    onnxruntime on the same inputs, where nothing adds up: a wrong reading of one op shows, however long the network.

    Args:
        samples: (N, *input_shape) float32, N >= 3, real data where there is some.

    Returns:
        The largest relative difference of the outputs.

    Raises:
        Disagreement: naming the first node that makes something else of the same inputs.
        InvalidInput: onnxruntime cannot run the file.
        Mistake: we cannot.
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
        # `compress.importing.faults` ran every row once: what fails now is no case of an op.
        raise Mistake(f"the network loads and does not run at batch {len(batch)}: {error}") from error
    return {name: value.numpy() for name, value in made.items()}

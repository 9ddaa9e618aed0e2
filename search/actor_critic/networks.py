"""Actor and critic of AMC (He et al., arXiv 1802.03494): two hidden layers of 300 units each."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

_LAST = 3e-3  # as in DDPG (Lillicrap et al., arXiv 1509.02971): the first outputs hardly depend on the state


class Actor(nn.Module):
    """mu: state (n, features) -> action (n, 1) in (0, 1). At first, every action is near `start`."""

    def __init__(self, features: int, hidden: int, start: float, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _linear(features, hidden, generator)
        self.second = _linear(hidden, hidden, generator)
        self.third = _linear(hidden, 1, generator, _LAST)
        nn.init.constant_(self.third.bias, log(start / (1.0 - start)))

    def forward(self, state: Tensor) -> Tensor:
        return torch.sigmoid(self.third(torch.relu(self.second(torch.relu(self.first(state))))))


class Critic(nn.Module):
    """Q: state (n, features), action (n, 1) -> value (n, 1). The action joins by addition at the first layer."""

    def __init__(self, features: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _linear(features, hidden, generator)
        self.action = _linear(1, hidden, generator)
        self.second = _linear(hidden, hidden, generator)
        self.third = _linear(hidden, 1, generator, _LAST)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        joined = torch.relu(self.first(state) + self.action(action))
        value: Tensor = self.third(torch.relu(self.second(joined)))
        return value


def _linear(inputs: int, outputs: int, generator: torch.Generator, bound: float | None = None) -> nn.Linear:
    """Return a layer with weights drawn from `generator`; the global generator of torch is left alone."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]  # torch
    bound = inputs**-0.5 if bound is None else bound
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer

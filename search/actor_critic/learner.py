"""Learner: deep deterministic policy gradients (DDPG, Lillicrap et al., arXiv 1509.02971), with AMC's rewards."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.actor_critic.memory import ReplayMemory, Transitions
from search.actor_critic.networks import Actor, Critic

_MOVING = 0.5  # weight of the newest batch in the moving average of the rewards, as in the released code


@dataclass(frozen=True)
class Rates:
    """Sizes and rates of learning, by the papers' names; `replay` counts episodes."""

    hidden: int
    actor_lr: float
    critic_lr: float
    tau: float
    gamma: float
    batch: int
    replay: int


class Learner:
    """An actor, a critic, their target networks and the replay memory of episodes of `steps` steps."""

    def __init__(self, features: int, steps: int, start: float, rates: Rates, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._rates = rates
        self._seed = seed
        self._steps = steps
        self._actor = Actor(features, rates.hidden, start, generator)
        self._critic = Critic(features, rates.hidden, generator)
        self._targets = deepcopy(self._actor), deepcopy(self._critic)
        self._actor_optimiser = torch.optim.Adam(self._actor.parameters(), rates.actor_lr, fused=True)
        self._critic_optimiser = torch.optim.Adam(self._critic.parameters(), rates.critic_lr, fused=True)
        self._memory = ReplayMemory(rates.replay, steps, features)
        self._baseline: float | None = None

    def act(self, state: NDArray[np.float64]) -> float:
        """Return the actor's action for a state (features,)."""
        with torch.inference_mode():
            return float(self._actor(torch.from_numpy(state.astype(np.float32))[None]))

    def learn(self, states: NDArray[np.float64], actions: NDArray[np.float64], reward: float | None) -> None:
        """Store an episode of states (steps, features) and actions (steps,), then make one update for each step.

        A reward of None, for a failure, counts as the worst reward so far.
        """
        if reward is None and not self._memory.count:
            return
        rng = np.random.default_rng([self._seed, self._memory.count])
        self._memory.add(states, actions, self._memory.worst if reward is None else reward)
        for _ in range(self._steps):
            self._update(self._memory.sample(self._rates.batch, rng))

    def _update(self, batch: Transitions) -> None:
        states, actions = torch.from_numpy(batch.states), torch.from_numpy(batch.actions)
        loss = nn.functional.mse_loss(self._critic(states, actions), self._target(batch))
        _descend(self._critic, self._critic_optimiser, loss)
        _descend(self._actor, self._actor_optimiser, -self._critic(states, self._actor(states)).mean())
        for target, network in zip(self._targets, (self._actor, self._critic), strict=True):
            _approach(target, network, self._rates.tau)

    def _target(self, batch: Transitions) -> Tensor:
        """Return y = R - baseline + gamma * Q'(s', mu'(s')); the last term is missing at the end of an episode."""
        actor, critic = self._targets
        following = torch.from_numpy(batch.next_states)
        with torch.no_grad():
            ahead: Tensor = critic(following, actor(following))
        return self._centred(batch) + self._rates.gamma * (1.0 - torch.from_numpy(batch.ends)) * ahead

    def _centred(self, batch: Transitions) -> Tensor:
        """Return the batch's rewards minus the moving average of the rewards."""
        mean = float(batch.rewards.mean())
        last = mean if self._baseline is None else self._baseline
        self._baseline = last + _MOVING * (mean - last)
        return torch.from_numpy(batch.rewards - np.float32(self._baseline))


def _descend(network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Make one step on the parameters of this network; no gradient of any other network is computed."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimiser.step()


def _approach(target: nn.Module, network: nn.Module, tau: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), tau)

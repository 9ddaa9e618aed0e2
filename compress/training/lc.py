"""L-C: learning-compression by an augmented Lagrangian.

    min over w, theta of L(w)   subject to   w = theta, theta in the compressed set

The L step trains w on L(w) - lambda (w - theta) + mu/2 |w - theta|^2, the C step projects w - lambda / mu onto the set;
then lambda <- lambda - mu (w - theta), and mu grows. See Carreira-Perpinan and Idelbayev, CVPR 2018 and arXiv
1707.01209, and Condensa, arXiv 1911.02497. Weights that the set does not constrain (biases, norms) follow w. As in
Condensa, the best theta is then trained further with its zeros held. This further training uses a share of the same
epochs, so that `lc`, `direct` and `fit` take the same number of epochs.

w, theta and the multipliers lambda are in terms of trained weights. Only the projection uses effective weights; its
result is therefore not the point of the set nearest to w, but a point with the same zeros as the nearest one. A penalty
on effective weights would pull each weight by the square of its norm's factor, and would hardly pull some weights at
all. The penalty cannot remove whole units in front of a norm, because the norm compensates when all weights of a unit
shrink. Use `direct` to remove whole units.

Condensa multiplies mu by 1.1, from 1e-3, over 34 L steps of 3,000 batches. Here, an L step may be as short as half an
epoch, in which a small mu does not move w at all. So there are fewer L steps, and mu is multiplied by 1.5 each time.
The learning rate does not fall over the L steps, because mu would then become large only once the weights hardly move
any more. These numbers were chosen on one seed of LeNet-5; no benchmark supports them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.graph.module import TorchNetwork
from compress.network import Array, Network
from compress.pruning.effective_weights import effective_weights, stored
from compress.scheme import BoundScheme
from compress.task import Task
from compress.training.direct import Compression
from compress.training.fit import Step
from compress.training.recipe import Recipe
from compress.training.reestimate import reestimate
from search.space import Bounds, Doc

COMPARED = 1024
"""Number of training images on which the loss of each theta is computed."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of L and C steps."""

    l_steps: Annotated[
        int, Doc("number of L steps, all equally long; each is followed by a C step"), Bounds(1, 1000)
    ] = 12
    mu: Annotated[float, Doc("weight of the penalty in the first L step"), Bounds(1e-8, 1e4)] = 3e-3
    growth: Annotated[float, Doc("factor of mu from one L step to the next"), Bounds(1.0, 10.0)] = 1.5
    rate: Annotated[float, Doc("learning rate of L steps as a share of the recipe's rate"), Bounds(1e-3, 1.0)] = 0.7
    decay: Annotated[
        float, Doc("rate at the end of an L step as a share of the rate at its start"), Bounds(1e-4, 1.0)
    ] = 1.0
    finish: Annotated[float, Doc("share of all steps that train theta with its zeros held"), Bounds(0.0, 0.9)] = 0.5


def lc(
    network: Network,
    part: Part,
    preprocessing: Preprocessing,
    recipe: Recipe,
    bound: BoundScheme,
    teacher: Network | None = None,
    checkpoint: bytes | None = None,
    task: Task | None = None,
    schedule: Schedule | None = None,
) -> Iterator[Step]:
    """Train by L-C. `Step.network` is the theta with the lowest training loss so far; in the last phase, it is this
    theta trained further.

    Arguments, steps, checkpoints and errors are the same as for `compress.training.fit.fit`. The scheme `bound`
    determines the projection.
    """
    alternation = _Alternation(network, part, preprocessing, recipe, teacher, bound, schedule or Schedule(), task)
    yield from alternation.run(checkpoint)


class _Alternation(Compression):
    def __init__(
        self,
        network: Network,
        part: Part,
        preprocessing: Preprocessing,
        recipe: Recipe,
        teacher: Network | None,
        bound: BoundScheme,
        schedule: Schedule,
        task: Task | None,
    ) -> None:
        super().__init__(network, part, preprocessing, recipe, teacher, bound, task)
        self._schedule = schedule
        alternating = self.steps - round(schedule.finish * self.steps)
        turns = min(schedule.l_steps, max(alternating, 1))
        self._ends = [round(turn * alternating / turns) for turn in range(turns + 1)]
        few = np.sort(np.random.default_rng(recipe.seed).permutation(len(part))[:COMPARED])
        self._compared = preprocess(part.images[few], preprocessing, self.layout), torch.from_numpy(part.labels[few])
        self._lambda = {name: np.zeros(network.shape(name)) for name in self.names}
        self._theta = dict[str, Array]()
        self._anchors = dict[str, Tensor]()
        self._best = network
        self._best_loss = float("inf")
        self._c_step(None)

    @property
    def _finishing(self) -> bool:
        return self._ends[-1] <= self.done < self.steps

    def _turn(self, step: int) -> int:
        """Return the index, from 0, of the L step that this step belongs to."""
        return int(np.searchsorted(self._ends, step, side="right")) - 1

    def _mu(self, step: int) -> float:
        return float(self._schedule.mu * self._schedule.growth ** self._turn(step))

    def rate(self, step: int) -> float:
        """Return the learning rate. After the warm-up it is constant over all L steps, so that mu acts on weights that
        still move.
        """
        last = self._ends[-1]
        if step >= last:
            return self.recipe.lr_at(step - last, self.steps - last)
        start, end = self._ends[self._turn(step)], self._ends[self._turn(step) + 1]
        risen = min((step + 1) / (self.recipe.warm_up * self.steps + 1), 1.0)
        decayed = self._schedule.decay ** ((step - start) / max(end - start - 1, 1))
        return float(self._schedule.rate * self.recipe.lr * risen * decayed)

    def penalty(self) -> Tensor | None:
        """Return mu/2 |w - theta - lambda/mu|^2, which equals both terms of the Lagrangian up to a constant."""
        if not self.names or self._finishing:
            return None
        parts = [(self.module.held(name) - self._anchors[name]).square().sum() for name in self.names]
        return torch.stack(parts).sum() * (self._mu(self.done) / 2)

    def stepped(self) -> None:
        super().stepped()
        if self.done in self._ends:
            self._c_step(self._mu(self.done - 1))
            for state in self.optimiser.state.values():
                state["momentum_buffer"].zero_()
            if self._finishing:
                self._finish()

    def _c_step(self, mu: float | None) -> None:
        """Update theta, then the multipliers. Without mu, only set the first theta: the projection of w itself."""
        network = aimed = self.module.to_network()
        w = {name: network.constants[name].astype(np.float64) for name in self.names}
        if mu is not None:
            shifted = {name: w[name] - self._lambda[name] / mu for name in self.names}
            aimed = network.with_constants({name: value.astype(np.float32) for name, value in shifted.items()})
        theta = network.with_constants(stored(aimed, self.bound.project(aimed, effective_weights(aimed))))
        self._theta = {name: theta.constants[name].astype(np.float64) for name in self.names}
        if mu is not None:
            self._lambda = {name: self._lambda[name] - mu * (w[name] - self._theta[name]) for name in self.names}
        self._anchor()
        self._compare(theta)

    def _anchor(self) -> None:
        """Set the target towards which the penalty of the next L step pulls the weights."""
        mu = self._mu(self.done)
        for name in self.names:
            anchor = self._theta[name] + self._lambda[name] / mu
            self._anchors[name] = torch.from_numpy(anchor.astype(np.float32))

    def _compare(self, theta: Network) -> None:
        images, targets = self._compared
        module = TorchNetwork(theta)
        reestimate(module, images)
        with torch.inference_mode():
            loss = float(self.task.loss(self._run(module.eval(), torch.from_numpy(images))[1], targets))
        if loss < self._best_loss:
            self._best, self._best_loss = module.to_network(), loss

    def _finish(self) -> None:
        """Continue from the best theta, with its zeros held."""
        for name in self.module.write_back():
            self.module.held(name).data.copy_(torch.from_numpy(self._best.constants[name].copy()))
        self.hold(self._best.constants)

    def result(self) -> Network:
        return self._best if self.done <= self._ends[-1] else super().result()

    def state(self) -> Mapping[str, Array]:
        best = {f"best/{name}": self._best.constants[name] for name in self.module.write_back()}
        theta = {f"theta/{name}": value for name, value in self._theta.items()}
        multipliers = {f"lambda/{name}": value for name, value in self._lambda.items()}
        return {**best, **theta, **multipliers, "best_loss": np.array(self._best_loss)}

    def resume(self, state: Mapping[str, Array]) -> None:
        self._best_loss = float(state["best_loss"])
        self._best = self.network.with_constants({name: state[f"best/{name}"] for name in self.module.write_back()})
        self._theta = {name: state[f"theta/{name}"] for name in self.names}
        self._lambda = {name: state[f"lambda/{name}"] for name in self.names}
        self._anchor()
        if self._finishing:
            self.hold(self._best.constants)

    def identity(self) -> tuple[str, ...]:
        return (*super().identity(), "weights as trained", json.dumps(asdict(self._schedule), sort_keys=True))

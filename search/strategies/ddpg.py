"""ADC/AMC (He et al. 2018, arXiv 1802.03494): an actor decides layer by layer how much to keep, by deep deterministic
policy gradients.

An episode makes one candidate: it walks the knobs in the network's order, and at each step the actor sees the layer and
what was decided before, and sets the knob by an action in [0, 1]. The evaluation's reward goes to all steps of the
episode. From a replay memory, a critic learns what actions are worth, and the actor learns which are worth the most.

The action bound goes by latency instead of FLOPs (search.actor_critic.action_bound). With one limit on a sum of tables,
it is exact, and no episode ends above the limit, whatever the tables. With several limits, with a limit that is only
estimated, or if a table would be too large to be exact, an episode may end above a limit. It is then moved below,
at the least predicted loss, before it is proposed (`Environment.repairs` counts these), and a note tells the user.

Departures from the paper, which has 400 episodes. The figures are mean scores on the synthetic networks of
search.synthetic with 12 widths and int8 at 40 % of the latency; benchmarks/actor_critic.py measures more of them:
- updates begin with the first result and not after the warm-up (300 episodes, three seeds, without filling: the last 50
  score 0.856 instead of 0.832);
- an episode that ends below the limits is filled: widths grow up to the limits, those first whose loss is predicted to
  fall the most. Otherwise the last steps leave room that is worth nothing (60 episodes, four seeds: the last 15 score
  0.875 instead of 0.746, and 0.513 without learning or filling);
- the warm-up is a share of the budget, and noise decays faster if the budget is short, so that it ends with little;
- at first, the actor takes the largest action that meets the limits at all steps, and the first episode has no noise;
- an action means the nearest width. The widest one below it, as in the paper, would never leave a layer whole;
- the state also has the loss predicted by statistics, the options decided first, and how much must still be freed;
- both rewards keep to the limits; the reward by error and latency is not filled;
- results of other strategies are episodes too, and count for the warm-up;
- an episode that ends at known values is repeated with more noise.

Not better on these networks: three times the updates (0.712 instead of 0.746), and rewards without the value of the
next state (gamma 0 and scaled rewards: 0.821 instead of 0.832). An actor that learns ten times faster is better only
without filling (0.790 instead of 0.746; with it, 0.873 instead of 0.875).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from search.actor_critic.environment import Environment, Vector
from search.actor_critic.lessons import Lessons
from search.actor_critic.noise import Schedule, truncated_normal
from search.actor_critic.reward import Reward, RewardName
from search.actor_critic.states import WIDTH
from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation
from search.knowledge import Knowledge
from search.problem import Problem
from search.sampling.draws import drawn
from search.space import Values
from search.space.settings import Bounds, Doc
from search.strategy import StrategyFamily

if TYPE_CHECKING:
    from search.actor_critic.learner import Learner

_NAME = "ddpg"
_STREAM = zlib.crc32(_NAME.encode())  # so that two strategies of a race draw different points
_WALKS = 12  # episodes tried for a candidate whose values are not known yet, each with more noise than the one before
_MORE = 1.5  # factor of the noise from one such episode to the next
_LEAST_SIGMA = 0.02  # their noise begins with at least this much
_EDGE = 0.05  # the first action keeps this distance from 0 and 1, where a sigmoid hardly learns


@dataclass(frozen=True)
class Settings:
    """Settings of the reward, the exploration and the learning, by the paper's names."""

    reward: Annotated[
        RewardName, Doc("resource_constrained: the score; accuracy_guaranteed: -error * log(latency)")
    ] = "resource_constrained"
    warm_up: Annotated[
        float, Doc("share of the evaluations with constant noise before it decays"), Bounds(0.0, 1.0)
    ] = 0.25
    sigma: Annotated[float, Doc("standard deviation of the first noise"), Bounds(0.0, 2.0)] = 0.5
    decay: Annotated[float, Doc("factor of sigma for each episode after the warm-up"), Bounds(0.5, 1.0)] = 0.95
    hidden: Annotated[int, Doc("units of each hidden layer"), Bounds(1, 4096)] = 300
    actor_lr: Annotated[float, Doc("learning rate of the actor"), Bounds(1e-6, 1.0)] = 1e-4
    critic_lr: Annotated[float, Doc("learning rate of the critic"), Bounds(1e-6, 1.0)] = 1e-3
    tau: Annotated[float, Doc("share by which the target networks approach the networks"), Bounds(1e-4, 1.0)] = 0.01
    gamma: Annotated[float, Doc("discount of the value of the next state"), Bounds(0.0, 1.0)] = 1.0
    batch: Annotated[int, Doc("transitions of an update"), Bounds(1, 4096)] = 64
    replay: Annotated[int, Doc("episodes in the replay memory"), Bounds(1, 10_000)] = 100
    fill: Annotated[bool, Doc("whether widths grow up to the limits at the end of an episode")] = True


class Ddpg:
    """Strategy whose candidate n is an episode with noise from `default_rng([seed, n, stream])`.

    Raises: InvalidInput for a Subset knob, or for a reward by latency if no latency is estimated.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._seed = seed
        self._known = Knowledge(problem, _NAME, seed)
        self._lessons = Lessons(self._known)
        self._environment = Environment(problem, fills=self._fills)
        self._reward = Reward(problem, settings.reward)
        self._learner: Learner | None = None

    def ask(self, count: int) -> list[Candidate]:
        learner = self._taught()
        asked: list[Candidate] = []
        while len(asked) < count:
            values = self._next(learner)
            if values is None:
                break
            asked.append(self._known.candidate(values, self._lessons.parents()))
        return asked

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)
        self._lessons.note(evaluations, pending)

    @property
    def notes(self) -> Sequence[str]:
        """A sentence if the action bound is not exact (see search.strategy.Noted)."""
        return self._environment.notes

    @property
    def _fills(self) -> bool:
        """True if room below the limits is worth nothing: a larger network is better by every measure of the reward."""
        settings, space = self._settings, self._problem.space
        if not settings.fill or settings.reward != "resource_constrained":
            return False
        return self._problem.objective.metric not in self._problem.estimate([space.whole])

    def _next(self, learner: Learner) -> Values | None:
        """Return the next values; None if all values within the limits that were found are known already.

        Raises: Infeasible if no values within the limits are found.
        """
        rng = np.random.default_rng([self._seed, self._known.asked, _STREAM])
        reached = False
        for sigma in self._sigmas():
            values = self._environment.walk(self._explored(learner, sigma, rng))
            if values is not None and self._known.fresh(values):
                return values
            reached |= values is not None
        try:
            return drawn(self._problem, rng, self._known.fresh)
        except Infeasible:
            if reached:
                return None
            raise

    def _explored(self, learner: Learner, sigma: float, rng: np.random.Generator) -> Callable[[Vector], float]:
        """Return the function from states to actions with noise."""
        return lambda state: truncated_normal(learner.act(state), sigma, rng)

    def _sigmas(self) -> Iterator[float]:
        """Yield the noise of the next episode, and then more and more noise, in case that it ends at known values."""
        settings, evaluations = self._settings, self._problem.evaluations
        warm_up = round(settings.warm_up * evaluations)
        schedule = Schedule(settings.sigma, settings.decay, warm_up, evaluations)
        sigma = schedule.at(max(self._lessons.count, self._known.asked))
        yield sigma
        for walk in range(1, _WALKS):
            yield max(sigma, _LEAST_SIGMA) * _MORE**walk

    def _taught(self) -> Learner:
        """Return the learner after it has learned every evaluation that is due."""
        self._learner = self._learner or self._untaught()
        for evaluation in self._lessons.due():
            states, actions = self._environment.episode(evaluation.candidate.values)
            self._learner.learn(states, actions, self._reward.of(evaluation))
        return self._learner

    def _untaught(self) -> Learner:
        from search.actor_critic.learner import Learner, Rates

        settings = self._settings
        rates = Rates(
            hidden=settings.hidden,
            actor_lr=settings.actor_lr,
            critic_lr=settings.critic_lr,
            tau=settings.tau,
            gamma=settings.gamma,
            batch=settings.batch,
            replay=settings.replay,
        )
        start = min(max(self._environment.uniform_action, _EDGE), 1.0 - _EDGE)
        return Learner(WIDTH, len(self._environment.steps), start, rates, self._seed)


STRATEGY = StrategyFamily(
    name=_NAME,
    summary="Learns how much of each layer to keep, layer by layer, by an actor and a critic.",
    source="He et al. 2018, AMC: AutoML for Model Compression (arXiv 1802.03494)",
    settings=Settings,
    make=Ddpg,
)

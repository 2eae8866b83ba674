"""Score policies: the action for now denoised over continuous noise levels, from few steps of any sampler.

The model estimates clean windows of W actions given W states and a goal (`KarrasDenoiser` around a causal
transformer). To act, the W - 1 actions of before and noise for the new one are walked down a schedule of
noise levels together, and the last action is played. Sampler, schedule, number of steps and strength of the
goal are chosen after training. Source: Reuss et al. 2023 (BESO).

The state holds the last W - 1 actions, scaled, and how many steps were seen: an episode's first decisions see
fewer states and actions than W.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.observations import GOAL, Observation, parts_of, state_of
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import BoundDenoiser
from policysmith.networks.guidance import classifier_free
from policysmith.networks.karras import KarrasDenoiser, add_noise
from policysmith.networks.normalizers import Normalizer
from policysmith.networks.samplers import sampler_named
from policysmith.networks.schedules import check_sigma_range, schedule_named
from policysmith.networks.walk import holding
from policysmith.policies.goals import GoalCondition, own_dimensions, rows_by_length
from policysmith.policies.protocol import Policy


@saveable
class ScoreModel(nn.Module):
    """A model of windows of W actions given as many states and a goal, at noise from sigma_min to sigma_max.

    `denoiser` takes sequences of up to W (its horizon) positions under the condition that `condition` makes.
    `goal_dropping` says that the model was trained with goals left out at times, so that it also knows what
    is done without one. `low` and `high` are the least and largest scaled actions of the data.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        denoiser: KarrasDenoiser,
        condition: GoalCondition,
        *,
        sigma_min: float,
        sigma_max: float,
        goal_dropping: bool = False,
    ) -> None:
        super().__init__()
        check_sigma_range(sigma_min, sigma_max)
        if condition.size(denoiser.horizon) != denoiser.condition_size:
            raise SettingError(
                f"the network takes a condition of {denoiser.condition_size} numbers",
                expected=f"{condition.size(denoiser.horizon)}: {condition.goal_steps} goals and "
                f"{denoiser.horizon} states of width {condition.observation_size}",
            )
        self.denoiser, self.condition = denoiser, condition
        self.sigma_min, self.sigma_max, self.goal_dropping = sigma_min, sigma_max, goal_dropping
        self.window, self.action_size = denoiser.horizon, denoiser.action_size
        self.action_normalizer = Normalizer(self.action_size)
        self.register_buffer("low", torch.full((self.action_size,), -torch.inf))
        self.register_buffer("high", torch.full((self.action_size,), torch.inf))

    @torch.no_grad()
    def fit_bounds(self, action: Float[Tensor, "row action"]) -> ScoreModel:
        """Take the bounds of the data, in the units of `action_normalizer`; returns itself."""
        scaled = self.action_normalizer(action)
        self.low.copy_(scaled.amin(0))
        self.high.copy_(scaled.amax(0))
        return self

    def corrupt(self, batch: TensorDict, sigma: Float[Tensor, "row"], *, rng: torch.Generator) -> TensorDict:
        """The batch with its `sigma` and the `noise` to be added, drawn here and nowhere else."""
        action = batch["action"]
        noise = torch.randn(action.shape, generator=rng, device=rng.device).to(action.device)
        return batch.clone(recurse=False).update({"noise": noise, "sigma": sigma.to(action.device)})

    def estimate(self, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """(estimated, true) clean scaled actions of a corrupted batch of windows with hindsight goals."""
        clean = self.action_normalizer(batch["action"])
        noisy = add_noise(clean, batch["noise"], batch["sigma"])
        goal = self.condition.scale_goal(own_dimensions(batch["goal"], self.condition), batch["goal_mask"])
        condition = self.condition(state_of(batch["observation"]), goal)
        return self.denoiser(noisy, batch["sigma"], condition), clean

    def bound(
        self,
        states: Float[Tensor, "batch time state"],
        scaled_goal: Float[Tensor, "batch goal state"],
        *,
        guidance: float,
    ) -> BoundDenoiser:
        """The denoiser for these states and goals, with classifier-free guidance of this strength."""
        return classifier_free(
            self.denoiser,
            self.condition(states, scaled_goal),
            self.condition(states, torch.zeros_like(scaled_goal)),
            scale=guidance,
        )


@saveable
class ScorePolicy(Policy):
    """Acts one step at a time with a `ScoreModel`.

    - `sampler`, `schedule`: names of `networks.samplers` and `networks.schedules`; `sampling_steps` of it.
    - `guidance`: how strongly the goal is followed. 1 is the conditional model, 0 does what is done without a
      goal, above 1 goes beyond what was learnt. Other than 1 needs a model trained with goal dropping.
    - `keep_last_actions` holds the actions of before as they were; False denoises them with the new one.

    All of them may be changed after training: see `resampled`.
    """

    def __init__(
        self,
        model: ScoreModel,
        *,
        sampler: str = "ddim",
        schedule: str = "exponential",
        sampling_steps: int = 3,
        guidance: float = 1.0,
        keep_last_actions: bool = False,
    ) -> None:
        super().__init__()
        if guidance != 1 and not model.goal_dropping:
            raise CapabilityError(
                f"guidance {guidance} was asked of a model that was never trained without a goal",
                expected="guidance 1, or a model trained with goal dropping",
                cure="train again with goal_dropping above 0 (0.1 as a rule)",
            )
        self.model = model
        self.observation_size, self.action_size = model.condition.observation_size, model.action_size
        self.goal_size = model.condition.goal_size
        self.observation_steps = model.window
        self.sampler = sampler_named(sampler)
        self.guidance, self.keep_last_actions = guidance, keep_last_actions
        self.sigmas = schedule_named(schedule)(
            sampling_steps, sigma_min=model.sigma_min, sigma_max=model.sigma_max
        )
        passes = 1 if guidance in (0, 1) else 2
        self.calls_per_decision = passes * self.sampler.network_calls(sampling_steps)

    def initial_state(self, batch: int) -> TensorDict:
        """No actions yet, nothing seen."""
        state = super().initial_state(batch)
        state["previous"] = torch.zeros(batch, self.model.window - 1, self.action_size, device=self.device)
        state["seen"] = torch.zeros(batch, dtype=torch.long, device=self.device)
        return state

    @torch.inference_mode()
    def act(
        self, observation: Observation, state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch 1 action"], TensorDict]:
        """One action per row, given the parts `state` and `goal`; the newest goal counts.

        Raises `DataError` for a state that is not this policy's own and a goal that stands for none.
        """
        if not isinstance(state, TensorDict) or not {"previous", "seen"} <= set(state.keys()):
            raise DataError(
                "the policy was asked to act before its episode was begun",
                cure="begin with state = policy.initial_state(batch), and pass on the state that act returns",
            )
        self.check_batch(observation, state)
        states, previous = state_of(observation), state["previous"]
        goal = self._goal(observation)
        positions = (state["seen"] + 1).clamp(max=self.model.window)
        action = torch.empty(len(states), self.action_size, device=self.device)
        for length, rows in rows_by_length(positions):
            before = previous[rows, self.model.window - length :]
            action[rows] = self._denoise(states[rows, -length:], goal[rows], before, rng)
        state = state.clone(recurse=False)
        state["previous"] = torch.cat([previous, action[:, None]], dim=1)[:, 1:]
        state["seen"] = positions
        state["network_calls"] = state["network_calls"] + self.calls_per_decision
        return self.model.action_normalizer.inverse(action)[:, None], state

    def _goal(self, observation: Observation) -> Float[Tensor, "batch goal state"]:
        goal = parts_of(observation)[GOAL][:, -1]
        if self.guidance == 0:  # whatever it is, it is not looked at
            return goal.new_zeros(len(goal), self.model.condition.goal_steps, self.observation_size)
        return self.model.condition.held(goal)

    def _denoise(self, states: Tensor, goal: Tensor, before: Tensor, rng: torch.Generator) -> Tensor:
        """The new action, scaled and within the bounds of the data."""
        noise = torch.randn(len(states), 1, self.action_size, generator=rng, device=self.device)
        start = torch.cat([before, self.model.sigma_max * noise], dim=1)
        keep = None
        if self.keep_last_actions:
            old = torch.arange(start.shape[1], device=self.device) < before.shape[1]
            keep = holding(old[None, :, None], start)
        denoise = self.model.bound(states, goal, guidance=self.guidance)
        clean = self.sampler(denoise, start, self.sigmas, rng=rng, keep=keep)
        return clean[:, -1].clamp(self.model.low, self.model.high)


def resampled(policy: Policy, **changes: Any) -> ScorePolicy:
    """The same model acting in another way: `changes` are arguments of `ScorePolicy` but the model."""
    if not isinstance(policy, ScorePolicy):
        raise CapabilityError(
            f"a {type(policy).__name__} has no sampler to be changed", expected="a ScorePolicy"
        )
    saved: dict[str, Any] = {**policy.saved_arguments, **changes}  # type: ignore[attr-defined]
    return ScorePolicy(**saved).eval()

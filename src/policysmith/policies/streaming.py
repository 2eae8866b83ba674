"""Streaming Diffusion Policy: a buffer of actions that is noisier the further ahead it looks.

The chunk to be acted next needs only the last few denoising steps; later chunks stay partly noisy and go on
from where they are at the next decision. About N/h network calls a decision instead of N, with h the number
of chunks in the buffer. Source: Høeg et al. 2024, sections IV and V.

The buffer is the policy's state: per row its actions, the level of each position, and whether it was filled.

All calls of a decision fall on one tick of a control loop, and the ticks in which its chunk is played have
none. `work_ahead` does some of the next chunk's calls in those ticks, on the observation of the moment.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.observations import Observation, state_of
from policysmith.common.saving import saveable
from policysmith.networks.levels import streaming_levels
from policysmith.networks.noise import ReverseProcess, ddim, ddpm, sample
from policysmith.policies.diffusion import ActionDiffusion
from policysmith.policies.protocol import Policy

BufferStart = Literal["zero", "constant", "denoise"]


@saveable
class StreamingPolicy(Policy):
    """Acts from a rolling buffer [horizon, action] whose levels rise towards the horizon.

    - `sampling_steps` None uses all N training levels (DDPM); a number uses that many strided DDIM levels,
      each told to the network as the training level it stands for.
    - `buffer_start` fills the buffer at an episode's beginning: `zero` (zeros noised to the pattern),
      `constant` (the current position, read from the observation's `position` dimensions, noised; only for
      environments whose actions are positions) or `denoise` (one full denoising run, then noised to the
      pattern but for the first chunk).
    - `noise_past` noises the past actions that stay in the buffer to their label, as the paper intends; False
      leaves them clean though labelled noisy, as the authors' code does.
    """

    pattern: Tensor

    def __init__(
        self,
        model: ActionDiffusion,
        *,
        action_steps: int,
        sampling_steps: int | None = None,
        buffer_start: BufferStart = "zero",
        position: tuple[int, ...] = (),
        noise_past: bool = True,
    ) -> None:
        super().__init__()
        model.check_action_steps(action_steps)
        if model.network.level_positions != model.horizon:
            raise SettingError(
                "a streaming policy needs a network that is told a noise level per position",
                where=f"this {type(model.network).__name__} takes one level per sample",
                cure=f"build the network with level_positions={model.horizon}",
            )
        if buffer_start not in get_args(BufferStart):
            raise SettingError(
                f"'{buffer_start}' is no way to start a buffer", expected=", ".join(get_args(BufferStart))
            )
        inside = all(0 <= dimension < model.observation_size for dimension in position)
        if buffer_start == "constant" and (len(position) != model.action_size or not inside):
            raise SettingError(
                f"a constant buffer start needs the {model.action_size} dimensions of the observation that "
                f"hold the current position, and was given {list(position)}",
                expected=f"{model.action_size} numbers from 0 to {model.observation_size - 1}",
            )
        self.model = model
        self.observation_size, self.action_size = model.observation_size, model.action_size
        self.pictures = model.pictures
        self.observation_steps, self.action_steps = model.observation_steps, action_steps
        self.process: ReverseProcess = (
            ddpm(model.noise) if sampling_steps is None else ddim(model.noise, steps=sampling_steps)
        )
        self.position = tuple(position)
        self.noise_past = noise_past
        self.buffer_start = buffer_start
        pattern = streaming_levels(self.process.steps, model.horizon, self.observation_steps, action_steps)
        self.register_buffer("pattern", pattern, persistent=False)
        self._now = self.observation_steps - 1
        self._last = self._now + action_steps - 1
        # A tail that is no whole chunk is dropped at every roll and drawn anew with the last chunk.
        self._tail = (model.horizon - self._now) % action_steps

    def initial_state(self, batch: int) -> TensorDict:
        """Empty buffers: they are filled at the first decision, which may look at the observation."""
        state = super().initial_state(batch)
        shape = (batch, self.model.horizon)
        state["buffer"] = torch.zeros(*shape, self.action_size, device=self.device)
        state["level"] = torch.full(shape, self.process.steps - 1, device=self.device)
        state["filled"] = torch.zeros(batch, dtype=torch.bool, device=self.device)
        return state

    @torch.inference_mode()
    def act(
        self,
        observation: Observation,
        state: TensorDict,
        *,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "batch step action"], TensorDict]:
        """Finish the next chunk of each row, return it, and roll the buffers on."""
        self.check_batch(observation, state)
        state = state.clone()
        condition = self.model.condition(observation)
        empty = ~state["filled"]
        if empty.any():
            state[empty] = self._fill(observation[empty], condition[empty], state[empty], rng)
        self._lower(condition, state, self._calls_left(state), rng)
        chunk = state["buffer"][:, self._now : self._last + 1]
        self._roll(state, rng)
        return self.model.action_normalizer.inverse(chunk), state

    @torch.inference_mode()
    def work_ahead(
        self,
        observation: Observation,
        state: TensorDict,
        *,
        ticks: Int[Tensor, "batch"],
        rng: torch.Generator,
    ) -> TensorDict:
        """The state after this tick's share of the network calls that the next decision needs.

        `ticks` counts the ticks that share the calls still to be made: this one, those after it and the
        decision's, in which `act` makes what is left. Shares differ by one call at most, and the smaller ones
        come first, so that more calls see newer observations. Rows that have not decided yet in their episode
        are left as they are.

        Where the observation stays the same, the chunk is the same bit for bit, as long as the rows of a
        batch decide at the same ticks (otherwise they take their noise from the common stream in another
        order). Where it changes, these calls have seen one that is `ticks` - 1 ticks older than what `act` is
        given, and as if it were the one at which the chunk begins.
        """
        self.check_batch(observation, state)
        state = state.clone()
        share = torch.where(state["filled"], self._calls_left(state) // ticks, 0)
        if share.any():
            self._lower(self.model.condition(observation), state, share, rng)
        return state

    def _calls_left(self, state: TensorDict) -> Int[Tensor, "batch"]:
        """Network calls until the chunk to be acted is clean."""
        return state["level"][:, self._last] + 1

    def _lower(self, condition: Tensor, state: TensorDict, steps: Tensor, rng: torch.Generator) -> None:
        """Lower each row by its number of `steps`, at most those it has left; 0 leaves it untouched."""
        buffer, level, calls = state["buffer"], state["level"], state["network_calls"]
        for count in steps.unique().tolist():
            if count == 0:
                continue
            # Rows in the same phase (all of them, mostly) need the same number of calls: one loop each.
            rows = (steps == count).nonzero()[:, 0]
            denoise = self.model.network.bind(condition[rows])
            x, levels = buffer[rows], level[rows]
            for _ in range(count):
                predicted = denoise(x, self.process.network_level(levels))
                mean, deviation = self.process.step(x, predicted, levels)
                x = mean + deviation * self._normal(x.shape, rng)
                levels = (levels - 1).clamp(min=-1)
            buffer[rows], level[rows] = x, levels
            calls[rows] += count

    def _roll(self, state: TensorDict, rng: torch.Generator) -> None:
        """Drop what was acted, draw new noise at the end, and label the past like the present."""
        batch, horizon, _ = state["buffer"].shape
        fresh = self.action_steps + self._tail
        kept = slice(self.action_steps, horizon - self._tail)
        noise = self._normal((batch, fresh, self.action_size), rng)
        buffer = torch.cat([state["buffer"][:, kept], noise], dim=1)
        top = torch.full((batch, fresh), self.process.steps - 1, device=self.device)
        level = torch.cat([state["level"][:, kept], top], dim=1)
        if self._now > 0:
            level[:, : self._now] = level[:, self._now : self._now + 1]
            if self.noise_past:
                past = buffer[:, : self._now]
                buffer[:, : self._now] = self._noised(past, level[:, : self._now], rng)
        state["buffer"], state["level"] = buffer, level

    # ---- filling the buffer at the beginning of an episode -------------------------------------------

    def _fill(
        self, observation: Observation, condition: Tensor, state: TensorDict, rng: torch.Generator
    ) -> TensorDict:
        level = self.pattern.expand(len(condition), -1).clone()
        if self.buffer_start == "denoise":
            buffer, level = self._denoise(condition, level, rng)
            state["network_calls"] = state["network_calls"] + self.process.steps
        else:
            held = self._position(observation) if self.buffer_start == "constant" else 0.0
            clean = torch.zeros(*level.shape, self.action_size, device=self.device) + held
            buffer = self._noised(clean, level, rng)
        state["filled"] = torch.ones_like(state["filled"])
        state["buffer"], state["level"] = buffer, level
        return state

    def _position(self, observation: Observation) -> Tensor:
        """Where each row is now, as the normalised action that would keep it there; [batch, 1, action]."""
        position = state_of(observation)[:, -1:, list(self.position)]
        return self.model.action_normalizer(position)

    def _denoise(self, condition: Tensor, level: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        start = self._normal((*level.shape, self.action_size), rng)
        clean = sample(self.model.network.bind(condition), self.process, start, rng=rng)
        # The chunk that is acted first keeps its label, so that all chunks stay in step, but not its noise.
        later = level > self.pattern[self._now]
        return self._noised(clean, torch.where(later, level, -1), rng), level

    def _noised(self, clean: Tensor, level: Tensor, rng: torch.Generator) -> Tensor:
        training_level = torch.where(level < 0, -1, self.process.network_level(level))
        return self.model.noise.add(clean, self._normal(clean.shape, rng), training_level)

    def _normal(self, shape: tuple[int, ...] | torch.Size, rng: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=rng, device=self.device)

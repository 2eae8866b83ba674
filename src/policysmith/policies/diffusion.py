"""Diffusion Policy: windows of actions denoised from pure noise, given the last observations.

What conditions the network is one vector: the normalised states of the last observations and, where there are
cameras, what an encoder makes of their pictures, learnt with the rest. It is made once per decision.

`ActionDiffusion` is the model that diffusion policies of all kinds share (network, noise, normalizers);
`DiffusionPolicy` is the plain way of acting with it: a whole denoising run per decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError
from policysmith.common.observations import Observation, state_of
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.levels import chunk_count
from policysmith.networks.noise import DiscreteNoise, ReverseProcess, ddim, ddpm, sample
from policysmith.networks.normalizers import Normalizer
from policysmith.networks.vision import PictureEncoder
from policysmith.policies.protocol import Policy


@saveable
class ActionDiffusion(nn.Module):
    """A diffusion model of action windows [horizon, action] given observation windows [time, observation].

    Position k of a window is the action at the time of observation k: with To observation steps the action
    for now is position To - 1, and the To - 1 before it are past. `observation_size` is the width of the
    state (0 for none), `eyes` encodes the pictures, and the network's condition is as wide as To of both.
    """

    def __init__(
        self,
        network: Denoiser,
        noise: DiscreteNoise,
        *,
        observation_size: int,
        observation_steps: int,
        eyes: PictureEncoder | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.noise = noise
        self.observation_size = observation_size
        self.observation_steps = observation_steps
        self.eyes = eyes
        self.horizon = network.horizon
        self.action_size = network.action_size
        self.observation_normalizer = Normalizer(observation_size)
        self.action_normalizer = Normalizer(network.action_size)

    @property
    def pictures(self) -> Mapping[str, tuple[int, ...]]:
        """(height, width) of the pictures that the model reads, by camera."""
        return {} if self.eyes is None else self.eyes.pictures

    def condition(self, observation: Observation) -> Float[Tensor, "batch condition"]:
        """The network's condition for observations [batch, time]: states, then features of the pictures.

        Each flattened over time, oldest first. Pictures are as large as the cameras', of which the middle is
        encoded, or cropped already.
        """
        seen = []
        if self.observation_size:
            seen.append(self.observation_normalizer(state_of(observation)).flatten(1))
        if self.eyes is not None:
            assert not isinstance(observation, Tensor)
            seen.append(self.eyes(observation).flatten(1))
        return torch.cat(seen, dim=1)

    def corrupt(
        self, batch: TensorDict, level: Int[Tensor, "batch horizon"], *, rng: torch.Generator
    ) -> TensorDict:
        """The batch with its `noise_level` and the `noise` to be mixed in, and its pictures cropped.

        All of it is drawn here and nowhere else: that keeps the loss a pure function of parameters and batch,
        and its value the same however the batch is cut into micro-batches. The crops of a window are alike.
        """
        action = batch["action"]
        noise = torch.randn(action.shape, generator=rng, device=rng.device).to(action.device)
        drawn = {"noise": noise, "noise_level": level.to(action.device)}
        if self.eyes is not None:
            drawn["observation"] = self.eyes.random_crops(batch["observation"], rng=rng)
        return batch.clone(recurse=False).update(drawn)

    def predict(self, batch: TensorDict) -> Float[Tensor, "batch horizon action"]:
        """The network's prediction of the noise for a corrupted batch."""
        clean = self.action_normalizer(batch["action"])
        level = batch["noise_level"]
        noisy = self.noise.add(clean, batch["noise"], level)
        if self.network.level_positions == 1:
            level = level[:, 0]
        return self.network(noisy, level, self.condition(batch["observation"]))

    def check_action_steps(self, action_steps: int) -> None:
        """Raise `SettingError` where the horizon cannot hold the past and one chunk of actions."""
        chunk_count(self.horizon, self.observation_steps, action_steps)


@saveable
class DiffusionPolicy(Policy):
    """Denoises a whole window from pure noise at every decision and acts its first `action_steps` actions.

    `sampling_steps` None walks all training levels (DDPM, one network call each); a number walks that many by
    strided DDIM, deterministically from the starting noise. Source: Chi et al. 2023 (Diffusion Policy).
    """

    def __init__(
        self, model: ActionDiffusion, *, action_steps: int, sampling_steps: int | None = None
    ) -> None:
        super().__init__()
        model.check_action_steps(action_steps)
        self.model = model
        self.observation_size, self.action_size = model.observation_size, model.action_size
        self.pictures = model.pictures
        self.observation_steps, self.action_steps = model.observation_steps, action_steps
        self.process: ReverseProcess = (
            ddpm(model.noise) if sampling_steps is None else ddim(model.noise, steps=sampling_steps)
        )
        self.deterministic = sampling_steps is not None

    @torch.inference_mode()
    def act(
        self,
        observation: Observation,
        state: TensorDict,
        *,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "batch step action"], TensorDict]:
        """A fresh draw per row; `process.steps` network calls."""
        self.check_batch(observation, state)
        condition = self.model.condition(observation)
        actions = self._denoise(condition, self._draw(len(condition), rng), rng)
        state = state.clone(recurse=False)
        state["network_calls"] = state["network_calls"] + self.process.steps
        return actions, state

    @torch.inference_mode()
    def sample(
        self, observation: Observation, count: int, *, rng: torch.Generator
    ) -> Float[Tensor, "count batch step action"]:
        """`count` independent draws per observation."""
        condition = self.model.condition(observation).repeat(count, 1)
        actions = self._denoise(condition, self._draw(len(condition), rng), rng)
        return actions.unflatten(0, (count, len(observation)))

    def from_noise(
        self,
        observation: Observation,
        noise: Float[Tensor, "batch horizon action"],
    ) -> Float[Tensor, "batch step action"]:
        """The actions that `noise` becomes; needs the deterministic sampler (`sampling_steps` given)."""
        if not self.deterministic:
            raise CapabilityError(
                "this policy adds noise while it denoises, so a starting noise does not fix its actions",
                expected="a deterministic sampler",
                cure="build the policy with sampling_steps (DDIM)",
            )
        return self._denoise(self.model.condition(observation), noise, torch.Generator())

    def _draw(self, batch: int, rng: torch.Generator) -> Tensor:
        shape = (batch, self.model.horizon, self.action_size)
        return torch.randn(shape, generator=rng, device=self.device)

    def _denoise(self, condition: Tensor, start: Tensor, rng: torch.Generator) -> Tensor:
        window = sample(self.model.network.bind(condition), self.process, start, rng=rng)
        now = self.observation_steps - 1
        return self.model.action_normalizer.inverse(window[:, now : now + self.action_steps])

"""Reward from a classifier of success: what a picture or a state of the goal looks like, by examples.

    r = 1[ sigmoid(logit(observation)) >= 1/2 ]

Trained once on frames of success and failure and then frozen, it is an environment's reward
(`ClassifierReward`). Trained on during learning, with what the policy sees as its failures (VICE), its
answers change, and no stored reward stays right: batches are then paid for when they are drawn (`paid_by`).
`training/learners/classifiers.py` trains it.

Sources: Fu et al. 2018 (VICE); Luo et al. 2024 (SERL), section IV-B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.observations import STATE, Observation, Seen, parts_of, stack, state_of, to_tensors
from policysmith.common.saving import saveable
from policysmith.networks.mlp import mlp
from policysmith.networks.vision import PictureEncoder

Label = Callable[[dict[str, Any]], dict[str, Any]]
"""From a sampled batch to the same with other rewards."""


@saveable
class SuccessClassifier(nn.Module):
    """Says whether an observation shows success: `logit`, in nats.

    - `state_size`: width of the state vector, 0 where only pictures are read.
    - `encoder`: reads the pictures of an observation with parts; None where there are none.
    - `hidden`: width of the layer that mixes state and features, behind which come dropout, LayerNorm and a
      ReLU; `dropout` is active in training mode only.

    The state is shifted and scaled by `state_offset` and `state_scale`, which `fit_scale` sets.
    Source: Luo et al. 2024 (SERL), whose encoder is a frozen ResNet-10; here it is learnt.
    """

    state_offset: Tensor
    state_scale: Tensor

    def __init__(
        self,
        state_size: int,
        *,
        encoder: PictureEncoder | None = None,
        hidden: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.feature_size = state_size + (0 if encoder is None else encoder.output_size)
        if self.feature_size == 0:
            raise SettingError(
                "a classifier of nothing", expected="a state of 1 or more numbers, or an encoder of pictures"
            )
        self.state_size, self.encoder = state_size, encoder
        self.register_buffer("state_offset", torch.zeros(state_size))
        self.register_buffer("state_scale", torch.ones(state_size))
        self.mix = nn.Sequential(
            nn.Linear(self.feature_size, hidden), nn.Dropout(dropout), nn.LayerNorm(hidden), nn.ReLU()
        )
        self.head = mlp((hidden, 1))

    def fit_scale(self, seen: Observation) -> SuccessClassifier:
        """Bring states as in `seen` [row, ...] to mean 0 and deviation 1, where they vary; returns itself."""
        if not self.state_size:
            return self
        state = state_of(seen)
        varies = state.amax(0) > state.amin(0)
        self.state_offset.copy_(state.mean(0))
        self.state_scale.copy_(torch.where(varies, state.std(0), 1.0))
        return self

    def features(self, observation: Observation) -> Float[Tensor, "row feature"]:
        """The scaled state, then what the encoder makes of the pictures."""
        parts = parts_of(observation)
        found = []
        if self.state_size:
            if STATE not in parts or parts[STATE].shape[-1] != self.state_size:
                shapes = {name: list(part.shape) for name, part in parts.items()}
                raise ShapeError(
                    f"the classifier was given {shapes}", expected=f"a state of {self.state_size} numbers"
                )
            found.append((parts[STATE] - self.state_offset) / self.state_scale)
        if self.encoder is not None:
            found.append(self.encoder(parts))
        return torch.cat(found, dim=-1)

    def of_features(self, features: Float[Tensor, "row feature"]) -> Float[Tensor, "row"]:
        """The logit of features."""
        return self.head(self.mix(features))[..., 0]

    def logit(self, observation: Observation) -> Float[Tensor, "row"]:
        """How much more likely success is than not, in nats."""
        return self.of_features(self.features(observation))

    @torch.no_grad()
    def says(self, observation: Observation) -> Bool[Tensor, "row"]:
        """Whether success is at least as likely as not, with dropout switched off."""
        training = self.training
        self.eval()
        try:
            return self.logit(observation) >= 0
        finally:
            self.train(training)


def paid_by(classifier: SuccessClassifier) -> Label:
    """Pay every row of a batch anew: 1 where the classifier, as it is now, sees success after the action.

    `terminated` stays as it is stored, and the batch that is given is left alone.
    Source: SERL's agent with VICE, which stores no reward.
    """

    def label(batch: dict[str, Any]) -> dict[str, Any]:
        reward = classifier.says(batch["next_observation"])
        return {**batch, "reward": reward.to(batch["reward"].dtype)}

    return label


class ClassifierReward(gymnasium.Wrapper):
    """Pays 1.0 where a trained classifier sees success, and ends the episode there; 0.0 elsewhere.

    The environment's own `success`, where it tells one, is left in `info`; the classifier's word is
    `info["classified"]`.
    """

    def __init__(self, env: gymnasium.Env, classifier: SuccessClassifier) -> None:
        super().__init__(env)
        self.classifier = classifier

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step, paid for what it shows."""
        observation, _, terminated, truncated, info = self.env.step(action)
        seen = bool(self.classifier.says(_row(observation))[0])
        terminated = bool(terminated or seen)
        info = info | {"classified": float(seen)}
        return observation, float(seen), terminated, bool(truncated and not terminated), info


def _row(observation: Seen | Mapping[str, Any]) -> Observation:
    return to_tensors(stack([observation]), [1])

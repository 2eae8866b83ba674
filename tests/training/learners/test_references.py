"""A reference that moves when it is told to, and only then."""

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder
from policysmith.training.learners.references import MovableReference

TOKEN = torch.tensor([[5, 6, 7, 8]])
BATCH = TensorDict(
    {
        "token": TOKEN,
        "attended": torch.ones_like(TOKEN, dtype=torch.bool),
        "mask": torch.tensor([[False, True, True, True]]),
    },
    batch_size=[1],
)


def tiny(seed: int) -> LanguagePolicy:
    return small_decoder(seed, width=32, layers=1, heads=2, context=16)


def move(policy: LanguagePolicy) -> None:
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * torch.linspace(-1, 1, weight.numel()).view_as(weight))


def test_it_stays_until_it_is_taken_anew():
    policy = tiny(0)
    reference = MovableReference(policy, temperature=1.0)
    before = reference(BATCH)
    move(policy)
    assert torch.equal(reference(BATCH), before)
    same = reference.policy
    reference.take()
    assert not torch.allclose(reference(BATCH), before)
    assert reference.policy is same, "whoever samples from it goes on with the new weights"


def test_it_does_not_learn():
    assert not any(
        weight.requires_grad for weight in MovableReference(tiny(0), temperature=1.0).policy.parameters()
    )


@pytest.mark.parametrize("used", [True, False])
def test_it_survives_a_restart(used):
    policy = tiny(0)
    reference = MovableReference(policy, temperature=1.0)
    before = reference(BATCH) if used else None
    move(policy)
    again = MovableReference(tiny(1), temperature=1.0)
    again.load_state_dict(reference.state_dict())
    if before is not None:
        assert torch.equal(again(BATCH), before)
    else:
        assert reference.state_dict() == {}, "what was never needed is not saved"

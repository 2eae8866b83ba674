"""Critics: what they are fitted to, which rows and steps are theirs, and what the policy gets from them."""

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.networks.running import RunningMoments
from policysmith.policies.language.critic import LanguageCritic
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples, group_requests
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.normalised import normalised
from policysmith.rewards.reward_model import RewardModel
from policysmith.training.learners.critics import (
    CriticSettings,
    check_same_text,
    critic_learner,
    generalised,
    judged,
    language_run_with_critic,
    value_loss,
)
from policysmith.training.learners.group_relative import clipped

PROMPTS = from_rows({"prompt": f"{a}+{b}=", "answer": a + b} for a in range(4) for b in range(4))
SETTINGS = CriticSettings(
    steps=4,
    prompts=8,
    group_size=1,
    answer_limit=5,
    optimizer_steps=2,
    learning_rate=1e-2,
    critic_learning_rate=1e-2,
)


def parity(text: str, prompt: Prompt) -> float:
    return float(sum(map(ord, text)) % 2)


def fresh(**sizes) -> LanguagePolicy:
    return small_decoder(0, **{"width": 32, "layers": 2, "heads": 2, "context": 64} | sizes)


@pytest.fixture
def policy() -> LanguagePolicy:
    return fresh()


@pytest.fixture
def samples(policy) -> Samples:
    asked = group_requests([policy.encode(prompt.text) for prompt in PROMPTS[:4]], 2)
    made = LocalEngine(policy).sample(asked, Sampling(limit=5), rng=torch.Generator().manual_seed(0))
    made.batch["reward"] = torch.tensor([1.0, 0, 1, 0, 1, 1, 0, 0])
    return made


class Says(LanguageCritic):
    """A critic that says the same of every token."""

    def __init__(self, policy: LanguagePolicy, number: float) -> None:
        super().__init__(policy)
        torch.nn.init.constant_(self.head.bias, number)


def test_an_indifferent_critic_gives_every_token_what_the_answer_earned(policy, samples):
    settings = replace(SETTINGS, lam=1.0, whiten=False)
    batch = generalised(Says(policy, 0.0), settings)(samples).batch
    expected = torch.where(batch["mask"], batch["reward"][:, None], 0.0)
    assert torch.equal(batch["advantage"], expected)
    assert torch.equal(batch["value_target"], expected)


def test_a_critic_that_expected_the_reward_leaves_no_advantage(policy, samples):
    samples.batch["reward"] = torch.full((8,), 0.25)
    batch = generalised(Says(policy, 0.25), replace(SETTINGS, whiten=False))(samples).batch
    assert not batch["advantage"].any()
    assert torch.equal(batch["old_value"], torch.where(batch["mask"], 0.25, 0.0))


def test_targets_are_advantages_plus_values_whether_or_not_advantages_are_whitened(policy, samples):
    critic = Says(policy, 0.5)
    plain = generalised(critic, replace(SETTINGS, whiten=False))(samples).batch.clone()
    white = generalised(critic, SETTINGS)(samples).batch
    mask = white["mask"]
    assert torch.equal(white["value_target"], plain["value_target"])
    assert torch.allclose(plain["value_target"], plain["advantage"] + plain["old_value"])
    assert float(white["advantage"][mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(white["advantage"][mask].var()) == pytest.approx(1, abs=1e-4)


def test_leaving_the_reference_costs_the_token_where_it_happened(policy, samples):
    def shifted(batch: TensorDict) -> torch.Tensor:
        return batch["behaviour_log_prob"] - 2.0

    samples.batch["reward"] = torch.zeros(8)
    settings = replace(SETTINGS, lam=0.0, whiten=False)
    batch = generalised(Says(policy, 0.0), settings, kl=0.1, reference=shifted)(samples).batch
    assert torch.allclose(batch["advantage"], torch.where(batch["mask"], -0.2, 0.0))
    assert torch.allclose(batch["log", "kl"], 2.0 * batch["mask"].sum(1))


def test_the_loss_of_values_by_hand(policy, samples):
    batch = samples.batch
    batch["old_value"] = torch.full_like(batch["behaviour_log_prob"], 0.1)
    batch["value_target"] = torch.ones_like(batch["old_value"])
    values, statistics = value_loss(low=0.5, high=0.6)(Says(policy, 0.9), batch)
    assert values[batch["mask"]].tolist() == pytest.approx([0.045] * int(batch["mask"].sum()))
    assert statistics["error"][batch["mask"]].tolist() == pytest.approx([0.1] * int(batch["mask"].sum()))


def test_values_do_not_see_the_token_they_stand_before(policy, samples):
    critic: Any = critic_learner(policy, SETTINGS).module
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(0))
    batch = samples.batch
    before = judged(critic, batch)
    row, place = 0, int(batch["prompt_length"][0])
    other = batch.clone()
    other["token"][row, place] = (other["token"][row, place] + 1) % 40
    after = judged(critic, other)
    assert after[row, place] == before[row, place]
    if bool(batch["mask"][row, place + 1]):
        assert after[row, place + 1] != before[row, place + 1]


def test_the_critic_begins_as_a_copy_of_the_policy_and_learns_alone(policy):
    critic: Any = critic_learner(policy, SETTINGS).module
    theirs = dict(policy.named_parameters())
    for name, weight in critic.policy.named_parameters():
        assert torch.equal(weight, theirs[name])
        assert weight is not theirs[name]


def test_during_its_warm_up_the_critic_learns_and_the_policy_does_not():
    start = fresh()
    run = language_run_with_critic(
        fresh(), PROMPTS, parity, settings=replace(SETTINGS, critic_warmup=2), loss=clipped(), seed=0
    )
    for now in islice(run, 3):
        moved = any(
            not torch.equal(mine, theirs)
            for mine, theirs in zip(
                now.state.learners["policy"].module.parameters(), start.parameters(), strict=True
            )
        )
        assert moved == (now.step > 2)
        assert now.state.learners["critic"].steps == 2 * now.step
        assert ("loss" in now.metrics) == moved


def test_several_passes_are_so_many_steps_of_both_on_the_same_answers():
    options = {"settings": replace(SETTINGS, steps=1), "loss": clipped(), "seed": 0}
    once = next(language_run_with_critic(fresh(), PROMPTS, parity, **options))
    thrice = next(language_run_with_critic(fresh(), PROMPTS, parity, epochs=3, **options))
    assert thrice.metrics["reward"] == once.metrics["reward"]
    for name in ("policy", "critic"):
        assert (once.state.learners[name].steps, thrice.state.learners[name].steps) == (2, 6)


def test_a_schedule_takes_the_place_of_the_warm_up():
    settings = replace(SETTINGS, steps=1, warmup_steps=100)
    run = language_run_with_critic(
        fresh(), PROMPTS, parity, settings=settings, loss=clipped(), schedule=lambda step: 0.5, seed=0
    )
    for learner in next(run).state.learners.values():
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(5e-3)


def test_rewards_of_tokens_are_rescaled_before_they_are_learnt_from(policy, samples):
    settings = replace(SETTINGS, lam=1.0)
    label = generalised(
        Says(policy, 0.0), settings, rescale=lambda reward, mask: 3 * reward, whitening=lambda a, mask: a + 1
    )
    batch = label(samples).batch
    earned = torch.where(batch["mask"], 3 * batch["reward"][:, None], 0.0)
    assert torch.equal(batch["value_target"], earned)
    assert torch.equal(batch["advantage"], earned + 1)


@pytest.mark.filterwarnings("ignore:for 10 steps")
def test_the_critic_learns_what_answers_are_worth():
    settings = replace(SETTINGS, steps=12, prompts=16, critic_warmup=12, value_low=9.0, value_high=9.0)
    run = language_run_with_critic(
        fresh(), PROMPTS, lambda text, prompt: 1.0, settings=settings, loss=clipped(), seed=0
    )
    errors = [now.metrics["critic/error"] for now in run]
    assert errors[0] == pytest.approx(1.0, abs=0.3)
    assert errors[-1] < 0.2 * errors[0]


def test_single_answers_that_differ_in_reward_are_not_said_to_agree():
    run = language_run_with_critic(fresh(), PROMPTS, parity, settings=SETTINGS, loss=clipped(), seed=0)
    assert next(run).metrics["agreeing"] == 0.0


def test_a_critic_of_another_vocabulary_or_a_shorter_context_is_refused(policy):
    other = fresh()
    other.tokenizer.add_tokens(["<more>"])
    with pytest.raises(CapabilityError, match="different tokenizers"):
        check_same_text(policy, other)
    with pytest.raises(CapabilityError, match="reads 32 tokens"):
        check_same_text(policy, fresh(context=32))
    check_same_text(policy, fresh(context=128))


def test_a_critic_may_begin_as_another_model(policy, tmp_path):
    fresh(width=64).save_pretrained(tmp_path / "judge")
    critic: Any = critic_learner(policy, replace(SETTINGS, critic=str(tmp_path / "judge"))).module
    assert critic.head.weight.shape == (1, 64)


def test_of_a_reward_model_the_critic_takes_over_body_and_head(policy, samples, tmp_path):
    model = RewardModel(small_decoder(7, width=32, layers=2, heads=2, context=64))
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(model.head.bias, 0.5)
    model.save_pretrained(tmp_path / "reward")
    critic: Any = critic_learner(policy, replace(SETTINGS, critic=str(tmp_path / "reward"))).module
    for mine, theirs in zip(critic.policy.parameters(), model.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(critic.head.weight, model.head.weight)
    assert torch.equal(critic.head.bias, model.head.bias)
    assert all(weight.requires_grad for weight in critic.parameters())
    # The value behind the last token would be the reward of the whole answer.
    batch = samples.batch
    value = judged(model.as_critic(), batch)
    assert torch.equal(judged(critic, batch), value)


def test_a_reward_model_of_another_vocabulary_is_no_critic(policy, tmp_path):
    other = fresh()
    other.tokenizer.add_tokens(["<more>"])
    other.model.resize_token_embeddings(len(other.tokenizer))
    RewardModel(other).save_pretrained(tmp_path / "reward")
    with pytest.raises(CapabilityError, match="different tokenizers"):
        critic_learner(policy, replace(SETTINGS, critic=str(tmp_path / "reward")))
    with pytest.raises(CapabilityError, match="policy and reference have different tokenizers"):
        check_same_text(policy, other, what="reference")


def test_rewards_are_normalised_over_the_run_and_a_cut_run_goes_on_with_its_moments():
    def begin(moments: RunningMoments, state: Any = None):
        return language_run_with_critic(
            fresh(),
            PROMPTS,
            lambda text, prompt: 100.0 + 10.0 * parity(text, prompt),
            settings=SETTINGS,
            loss=clipped(),
            around=lambda sampler: normalised(sampler, moments, clip=3.0),
            sources={"moments": moments},
            seed=0,
            state=state,
        )

    whole = [now.metrics for now in begin(RunningMoments())]
    assert all(100 <= one["reward"] <= 110 for one in whole)
    assert all(abs(one["reward_rescaled"]) < 3 for one in whole)
    first = RunningMoments()
    (*_, cut) = islice(begin(first), 2)
    assert float(first.count) == 16
    rest = [now.metrics for now in begin(RunningMoments(), cut.state.state_dict())]
    assert rest == whole[2:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"discount": 1.1},
        {"lam": -0.1},
        {"critic_learning_rate": -1.0},
        {"critic_warmup": -1},
        {"value_low": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)

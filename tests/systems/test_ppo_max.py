"""PPO-max and SALSA: each choice can be taken out, what is logged of a collapse, and what is refused."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.evaluation.conformance import check_system
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import from_rows
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.reward_model import RewardModel
from policysmith.systems import ppo_max, salsa, token_ppo

PROMPTS = from_rows({"prompt": f"{a}+{b}="} for a in range(4) for b in range(4))
TEXT = Examples([Example(f"{n}", "a text") for n in range(12)])


def tiny(seed=0, width=32):
    return small_decoder(seed, width=width, layers=1, heads=2, context=48)


def letters(text, prompt):
    return 10.0 + text.count("e")


def run(module, **settings):
    options = {name: settings.pop(name) for name in ("text", "second", "examples") if name in settings}
    config = replace(module.PRESETS["tiny"], **settings)
    return list(module.train(tiny(), PROMPTS, letters, config=config, **options))


@pytest.mark.parametrize("name", ["ppo-max", "salsa"])
def test_keeps_what_every_system_keeps(name, tmp_path):
    check_system(name, tmp_path)


def test_with_everything_taken_out_it_is_plain_ppo():
    out = {
        "rescale": "none", "reward_clip": 0.0, "kl": 0.0, "text_weight": 0.0, "whiten": True, "lam": 0.95,
        "learning_rate": 1e-3, "critic_learning_rate": 1e-3,
    }  # fmt: skip
    plain = {name: out[name] for name in ("kl", "whiten", "lam", "learning_rate", "critic_learning_rate")}
    ours, theirs = run(ppo_max, **out), run(token_ppo, **plain)
    for a, b in zip(ours, theirs, strict=True):
        shared = {name: a.metrics[name] for name in b.metrics}
        assert shared == pytest.approx(b.metrics, abs=1e-6)


def test_rewards_are_on_the_runs_own_scale_and_clipped():
    for now in run(ppo_max, reward_clip=0.5):
        assert abs(now.metrics["reward_rescaled"]) <= 0.5
        assert now.metrics["reward"] >= 10
    scaled = run(ppo_max, rescale="scale", reward_clip=0.0)[-1].metrics
    assert scaled["reward_rescaled"] > 5, "scaling leaves the mean"


def test_what_shows_a_collapse_coming_is_logged():
    first, *_, last = run(ppo_max, learning_rate=1e-2, critic_warmup=0)
    assert first.metrics["kl_per_token"] == pytest.approx(0, abs=1e-4)
    assert first.metrics["perplexity"] == pytest.approx(first.metrics["reference_perplexity"], rel=1e-3)
    assert last.metrics["perplexity"] != pytest.approx(last.metrics["reference_perplexity"], rel=1e-2)
    assert "answer_tokens" in last.metrics


def test_text_is_learnt_in_the_same_steps():
    from policysmith.training.learners.supervised import supervised_batch

    def likelihood(policy):
        batch = supervised_batch(policy, TEXT[:])
        with torch.no_grad():
            found, _ = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])
        return float(found.sum())

    settings = {"learning_rate": 3e-3, "steps": 20, "critic_warmup": 0}
    with_text = run(ppo_max, text=TEXT, text_weight=1.0, **settings)[-1].state.policy()
    without = run(ppo_max, **settings)[-1].state.policy()
    assert likelihood(with_text) > likelihood(without) + 20


def test_a_run_with_text_goes_on_where_it_was_cut():
    config = replace(ppo_max.PRESETS["tiny"], text_weight=0.5)
    whole = list(ppo_max.train(tiny(), PROMPTS, letters, text=TEXT, config=config))
    begun = ppo_max.train(tiny(), PROMPTS, letters, text=TEXT, config=config)
    for _ in range(3):
        now = next(begun)
    saved = now.state.state_dict()
    resumed = list(ppo_max.train(tiny(), PROMPTS, letters, text=TEXT, config=config, state=saved))
    assert [one.metrics for one in resumed] == [one.metrics for one in whole[3:]]


def test_the_critic_can_begin_as_the_reward_model(tmp_path):
    model = RewardModel(tiny(3))
    with torch.no_grad():
        model.head.bias.fill_(2.0)
    model.save_pretrained(tmp_path / "reward")
    config = replace(ppo_max.PRESETS["tiny"], critic=str(tmp_path / "reward"), critic_learning_rate=0.0)
    now = next(iter(ppo_max.train(tiny(), PROMPTS, letters, config=config)))
    assert float(now.state.learners["critic"].module.head.bias.detach()) == 2.0


def test_settings_that_conflict_or_mean_nothing_are_said():
    with pytest.warns(UserWarning, match="all clipped"):
        ppo_max.train(tiny(), PROMPTS, letters, config=replace(ppo_max.PRESETS["tiny"], advantage_clip=0.5))
    for wrong in ({"reward_clip": -1.0}, {"kl": -0.1}, {"text_rows": 0}, {"rescale": "twice"}):
        with pytest.raises(SettingError):
            ppo_max.Config(**wrong)


# ---- SALSA ----------------------------------------------------------------------------------------------


def test_without_a_second_model_it_is_ppo():
    same = {"learning_rate": 1e-3, "kl": 0.1}
    ours, theirs = run(salsa, **same), run(token_ppo, **same, critic_learning_rate=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        assert a.metrics == pytest.approx(b.metrics, abs=1e-5)


def test_the_penalty_is_to_the_soup_from_the_first_step_on():
    first = run(salsa, second=tiny(1))[0].metrics
    assert first["kl"] > 0.001
    whole = run(salsa, second=tiny(1), begin_as_soup=True)[0].metrics
    assert whole["kl"] == pytest.approx(0, abs=1e-4)
    own = run(salsa, second=tiny(1), alpha=1.0)[0].metrics
    assert own["kl"] == pytest.approx(0, abs=1e-4)


def test_the_second_model_is_a_folder_too(tmp_path):
    tiny(1).save_pretrained(tmp_path / "second")
    config = replace(salsa.PRESETS["tiny"], second=str(tmp_path / "second"))
    named = list(salsa.train(tiny(), PROMPTS, letters, config=config))
    given = run(salsa, second=tiny(1))
    assert [one.metrics for one in named] == [one.metrics for one in given]


def test_models_that_cannot_be_mixed_are_refused():
    with pytest.raises(ShapeError, match="in the first network"):
        run(salsa, second=tiny(1, width=16))
    other = tiny(1)
    other.tokenizer.add_tokens(["another"])
    with pytest.raises(CapabilityError, match="tokenizers"):
        run(salsa, second=other)
    with pytest.raises(CapabilityError, match="adapters"):
        run(salsa, second=tiny(1).with_lora(2))
    with pytest.warns(UserWarning, match="all the same"):
        run(salsa, second=tiny(), steps=1)
    with pytest.raises(SettingError, match="alpha"):
        salsa.Config(alpha=1.5)


def test_the_divergences_from_both_models_are_logged_beside_that_from_the_soup():
    metrics = run(salsa, second=tiny(1))[0].metrics
    assert metrics["kl_first"] == pytest.approx(0, abs=1e-4), "the policy begins as the first model"
    assert metrics["kl_second"] > metrics["kl"] > 0.001
    swapped = run(salsa, second=tiny(1), alpha=0.0)[0].metrics
    assert swapped["kl"] == pytest.approx(swapped["kl_second"], abs=1e-5)
    quiet = run(salsa, second=tiny(1), log_parents=False)
    assert "kl_first" not in quiet[0].metrics
    assert quiet[-1].metrics["reward"] == run(salsa, second=tiny(1))[-1].metrics["reward"]


def test_models_that_lie_in_different_basins_are_refused_where_examples_tell():
    from policysmith.training.learners.supervised import SupervisedSettings, supervised_run

    settings = SupervisedSettings(steps=60, batch_size=4, learning_rate=1e-2, warmup_steps=0)

    def taught(model, seed):
        for _ in supervised_run(model, TEXT, settings=settings, seed=seed):
            pass
        return model

    first, apart = taught(tiny(0), 0), taught(tiny(1), 0)
    losses = salsa.check_basin(first, taught(first.frozen_copy().requires_grad_(True), 1), TEXT)
    assert len(losses) == 5
    before = {name: value.clone() for name, value in first.state_dict().items()}
    with pytest.raises(CapabilityError, match="one basin"):
        salsa.train(first, PROMPTS, letters, second=apart, examples=TEXT, config=salsa.PRESETS["tiny"])
    assert all(torch.equal(before[name], value) for name, value in first.state_dict().items())
    # Without examples nothing can be told.
    salsa.train(first, PROMPTS, letters, second=apart, config=salsa.PRESETS["tiny"])

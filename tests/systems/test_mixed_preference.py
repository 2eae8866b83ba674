"""Mixed preference optimisation: which pairs go where, what each stage begins from and is held to."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.evaluation.conformance import check_system
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.reward_model import RewardModel
from policysmith.systems import dpo, mixed_preference, token_ppo
from policysmith.systems.mixed_preference import DIFFICULT, EASY, parts, train

TINY = mixed_preference.PRESETS["tiny"]
SCORES = {"a": 1.0, "b": -0.5, "c": 0.4, "d": 0.1, "e": -0.3, "f": 1.2}
PAIRS = Preferences(
    Preference(Prompt(f"{number}"), answers) for number, answers in enumerate(["ab", "cd", "ef"] * 2)
)


def scored(text, prompt):
    return SCORES.get(text, 0.01 * len(text))


def tiny(seed=0):
    return small_decoder(seed, width=32, layers=1, heads=2, context=48)


def quiet(**settings):
    return replace(TINY, threshold=1.0, **settings)


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_keeps_what_every_system_keeps(tmp_path):
    check_system("mixed-preference", tmp_path)


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_pairs_with_a_large_gap_are_easy_whatever_their_label():
    easy, difficult = parts(PAIRS[:3], scored, quiet())
    assert [row.prompt.text for row in easy] == ["0", "2"]
    assert [row.prompt.text for row in difficult] == ["1"]
    easy, _ = parts(PAIRS[:3], scored, quiet(drop_contradicted=True))
    assert [row.prompt.text for row in easy] == ["0"]
    assert parts(PAIRS, scored, quiet(split=False)) == (PAIRS, PAIRS)


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_the_easy_stage_is_dpo_on_the_easy_pairs():
    config = quiet(steps=4, easy_steps=3)
    found = list(train(tiny(), PAIRS, scored, config=config))[:3]
    easy, _ = parts(PAIRS, scored, config)
    same = dpo.Config(**{name: getattr(config.easy, name) for name in vars(config.easy)}, beta=config.beta)
    alone = list(dpo.train(tiny(), easy, config=same))
    assert [one.metrics for one in found] == [one.metrics for one in alone]


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_the_difficult_stage_is_ppo_held_to_what_dpo_has_come_to():
    config = quiet(easy_learning_rate=1e-2)
    run = train(tiny(), PAIRS, scored, config=config)
    for now in run:
        if now.step == config.easy_steps:
            assert now.state.phase == EASY
            after = now.state.policy()
            break
    rest = list(run)
    assert {one.state.phase for one in rest} == {DIFFICULT}
    assert rest[0].metrics["kl"] == pytest.approx(0, abs=1e-4), "the reference is what PPO begins as"
    _, difficult = parts(PAIRS, scored, config)
    own = {name: getattr(config.difficult, name) for name in vars(config.difficult)}
    alone = list(
        token_ppo.train(after, difficult.prompts, scored, config=token_ppo.Config(**own, kl=config.kl))
    )
    assert [one.metrics["reward"] for one in rest] == [one.metrics["reward"] for one in alone]


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_ppo_can_be_held_to_the_model_as_it_was_given():
    config = quiet(easy_learning_rate=1e-2, start_as_reference=True)
    *_, first_of_ppo = list(train(tiny(), PAIRS, scored, config=config))[: config.easy_steps + 1]
    assert abs(first_of_ppo.metrics["kl"]) > 0.01


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_the_stages_can_be_in_the_other_order():
    found = list(train(tiny(), PAIRS, scored, config=quiet(difficult_first=True)))
    assert [("reward" in one.metrics, "ordered" in one.metrics) for one in found] == [(True, False)] * 3 + [
        (False, True)
    ] * 3
    assert found[3].metrics["margin"] == pytest.approx(0, abs=1e-5), "DPO's reference is what it begins as"


@pytest.mark.filterwarnings("ignore:the reward model ranks")
@pytest.mark.parametrize("cut", [2, 3, 5])
@pytest.mark.parametrize("settings", [{}, {"difficult_first": True}, {"start_as_reference": True}])
def test_a_cut_run_goes_on_to_the_same_numbers_in_either_stage(cut, settings):
    config = quiet(easy_learning_rate=1e-2, learning_rate=1e-3, **settings)
    whole = [one.metrics for one in train(tiny(), PAIRS, scored, config=config)]
    begun = train(tiny(), PAIRS, scored, config=config)
    for _ in range(cut):
        now = next(begun)
    saved = now.state.state_dict()
    rest = list(train(tiny(), PAIRS, scored, config=config, state=saved))
    assert [one.metrics for one in rest] == whole[cut:]
    assert [one.step for one in rest] == list(range(cut + 1, 7))


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_a_saved_reward_model_splits_scores_and_is_what_the_critic_begins_as(tmp_path):
    model = RewardModel(tiny(3))
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        model.head.bias.fill_(2.0)
    model.save_pretrained(tmp_path / "reward")
    config = replace(TINY, reward=str(tmp_path / "reward"), critic_learning_rate=0.0)
    *_, last = train(tiny(), PAIRS, config=config)
    assert float(last.state.learners["critic"].module.head.bias.detach()) == 2.0


@pytest.mark.filterwarnings("ignore:the reward model ranks 66")
def test_what_cannot_be_split_is_said():
    with pytest.raises(SettingError, match="which reward"):
        train(tiny(), PAIRS, config=TINY)
    with pytest.raises(DataError, match="gaps by quantile"):
        train(tiny(), PAIRS, scored, config=replace(TINY, threshold=9.0))
    lists = Preferences([Preference(Prompt("1"), ("a", "b", "c"), (1.0, 0.5, 0.0))])
    with pytest.raises(DataError, match="row 0"):
        train(tiny(), lists, scored, config=TINY)
    with pytest.warns(UserWarning, match="as chance does"):
        train(tiny(), PAIRS, lambda text, prompt: -SCORES.get(text, 0.0), config=quiet())
    for wrong in ({"easy_steps": 0}, {"easy_steps": 2000}, {"quantile": 1.0}, {"beta": 0.0}, {"kl": -1.0}):
        with pytest.raises(SettingError):
            mixed_preference.Config(**wrong)


@pytest.mark.filterwarnings("ignore:the reward model ranks")
def test_a_reference_of_another_vocabulary_is_refused(tmp_path):
    other = small_decoder(0, width=32, layers=1, heads=2, context=48, words=("a", "b"))
    RewardModel(other).save_pretrained(tmp_path / "reward")
    config = quiet(critic=str(tmp_path / "reward"), easy_steps=1)
    run = train(tiny(), PAIRS, scored, config=config)
    with pytest.raises(CapabilityError, match="different tokenizers"):
        list(run)

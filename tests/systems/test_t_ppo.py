"""T-PPO: what a window teaches the policy, what a finished answer teaches the critic, and when it resumes."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.common.errors import SettingError
from policysmith.evaluation.conformance import check_system, language_inputs
from policysmith.objectives.advantages import generalised_advantage, whiten
from policysmith.systems import t_ppo, token_ppo
from policysmith.systems.t_ppo import Config, label

PLAIN = replace(
    t_ppo.PRESETS["bench"], window=4, answer_limit=8, ignore_tail=0, whiten=False, lam=0.9, lam_scalar=0.01
)
"""Short answers have lambda 0.9, and advantages are left as they are."""


def batch(*, truncated: bool, reward: float = 0.0) -> TensorDict:
    """A prompt of one token and an answer of four, all of one window, with the values of the hand example."""
    mask = torch.tensor([[False, True, True, True, True]])
    return TensorDict(
        {
            "mask": mask,
            "written": mask,
            "truncated": torch.tensor([truncated]),
            "reward": torch.tensor([reward]),
            "old_value": torch.tensor([[0.0, 0.2, 0.5, 0.4, 0.7]]),
        },
        batch_size=[1],
    )


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("t-ppo", tmp_path)


def test_an_unfinished_answer_is_judged_by_how_the_opinion_of_it_changed():
    found = label(batch(truncated=True), PLAIN)
    assert found["advantage"][0, 1:].tolist() == pytest.approx([0.453, 0.170, 0.300, 0.0], abs=1e-6)
    assert not found["value_target"].any()


def test_a_finished_answer_is_judged_by_its_reward_which_is_the_target_of_all_its_tokens():
    found = label(batch(truncated=False, reward=1.0), PLAIN)
    assert found["advantage"][0, 1:].tolist() == pytest.approx([0.6717, 0.413, 0.57, 0.3])
    assert found["value_target"][0].tolist() == [0, 1, 1, 1, 1]


def test_the_tail_of_a_cut_has_no_advantage():
    found = label(batch(truncated=True), replace(PLAIN, ignore_tail=2))
    assert found["advantage"][0, 1:].tolist() == pytest.approx([0.453, 0.170, 0, 0], abs=1e-6)


def test_a_cut_that_is_taken_for_a_failure_blames_its_last_token():
    found = label(batch(truncated=True), replace(PLAIN, carry_value=False))
    assert float(found["advantage"][0, -1]) == pytest.approx(-0.7)


def test_without_a_cut_it_is_whitened_generalised_advantage_estimation():
    rng = torch.Generator().manual_seed(0)
    mask = torch.ones(6, 5, dtype=torch.bool)
    value, reward = torch.rand(6, 5, generator=rng), torch.rand(6, generator=rng)
    made = TensorDict(
        {
            "mask": mask,
            "written": mask,
            "truncated": torch.zeros(6, dtype=torch.bool),
            "reward": reward,
            "old_value": value,
        },
        batch_size=[6],
    )
    at_end = torch.zeros(6, 5)
    at_end[:, -1] = reward
    plain = generalised_advantage(at_end, value, torch.zeros(6), mask, discount=1.0, lam=0.9)
    found = label(made, replace(PLAIN, whiten=True, ignore_tail=1))["advantage"]
    assert torch.allclose(found, whiten(plain, mask))


def test_whitened_advantages_are_held_within_their_limit():
    made = batch(truncated=False, reward=100.0)
    found = label(made, replace(PLAIN, whiten=True, lam=0.0, lam_scalar=1e-6, advantage_limit=1.0))
    assert float(found["advantage"].abs().max()) == 1.0


def test_the_policy_learns_from_windows_in_which_nothing_ended_and_the_critic_does_not(tmp_path: Path):
    settings = replace(
        t_ppo.PRESETS["tiny"], window=2, answer_limit=40, critic_warmup=0, ignore_tail=0, imitation=0.0
    )
    run = t_ppo.train(*language_inputs(tmp_path), config=settings, seed=2)
    first = next(run)
    assert first.metrics["ended"] == 0
    assert first.state.learners["policy"].steps == 1
    assert first.state.learners["critic"].steps == 0
    assert not any(name.startswith("critic/") for name in first.metrics)
    assert "reward" not in first.metrics


def test_a_rollout_without_an_end_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(t_ppo, "PATIENCE", 2)  # few tokens, so that none of them is an end token
    settings = replace(t_ppo.PRESETS["tiny"], steps=10, prompts=2, group_size=1, window=1, ignore_tail=0,
                       answer_limit=60, trained_prompts=None)  # fmt: skip
    with pytest.warns(UserWarning, match="no answer has ended for 2 steps"):
        list(t_ppo.train(*language_inputs(tmp_path), config=settings, seed=2))


def test_a_window_as_long_as_the_limit_draws_what_ppo_draws(tmp_path: Path):
    """With nothing to carry over, the two rollouts ask for the same answers to the same prompts."""
    truncated = replace(
        t_ppo.PRESETS["tiny"], prompts=4, group_size=1, answer_limit=5, window=5, trained_prompts=None
    )
    whole = replace(token_ppo.PRESETS["tiny"], answer_limit=5)
    runs = [
        t_ppo.train(*language_inputs(tmp_path / "a"), config=truncated, seed=0),
        token_ppo.train(*language_inputs(tmp_path / "b"), config=whole, seed=0),
    ]
    prompts = [[one["prompt"] for one in next(run).state.shown] for run in runs]
    assert prompts[0] == prompts[1]


def test_unfinished_answers_survive_a_restart(tmp_path: Path):
    settings = t_ppo.PRESETS["tiny"]
    run = t_ppo.train(*language_inputs(tmp_path), config=settings, seed=1)
    second = list(islice(run, 2))[-1]
    saved = second.state.state_dict()
    assert any(len(waiting["token"]) for waiting in saved["sources"]["rollout"]["queue"])
    resumed = next(t_ppo.train(*language_inputs(tmp_path), config=settings, seed=1, state=saved))
    assert resumed.metrics == next(run).metrics


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"window": 0}, "window"),
        ({"window": 97}, "window"),
        ({"ignore_tail": -1}, "ignore_tail"),
        ({"ignore_tail": 24}, "ignore_tail"),
        ({"lam": 1.5}, "lam"),
        ({"discount": -0.5}, "discount"),
        ({"lam_scalar": 0.0}, "lam_scalar"),
        ({"advantage_limit": 0.0}, "advantage_limit"),
        ({"imitation": -0.1}, "imitation"),
        ({"filter_agreeing": True}, "filter_agreeing"),
        ({"trained_prompts": 0}, "trained_prompts"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], named: str):
    with pytest.raises(SettingError, match=named):
        replace(t_ppo.PRESETS["bench"], **wrong)


def test_the_papers_settings_are_those_of_the_port():
    paper = Config()
    assert (paper.window, paper.answer_limit, paper.ignore_tail) == (8192, 3 * 8192, 8)
    assert (paper.clip_low, paper.clip_high, paper.ceiling) == (0.2, 0.28, 10.0)
    assert (paper.value_low, paper.value_high) == (0.5, 0.6)

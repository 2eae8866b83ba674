"""Anyprefer: pairs that go on where a run was cut, rounds that learn them, and what is said of them."""

import itertools
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.common.stages import result_of
from policysmith.experience.prompts import from_rows
from policysmith.policies.language.small import small_decoder
from policysmith.synthesis.feedback import alternatives
from policysmith.synthesis.judging import own_likelihood
from policysmith.synthesis.players import Players
from policysmith.systems import anyprefer

PROMPTS = from_rows({"prompt": f"{number}=", "answer": "e"} for number in range(30))
CONFIG = replace(anyprefer.PRESETS["tiny"], prompts=12, at_a_time=4, group_size=4, answer_limit=6)


def tiny(seed=0):
    return small_decoder(seed, width=32, layers=1, heads=2, context=48)


def letters(prompt, candidates, knowledge, rubric):
    """More points for more small letters of the first half of the alphabet."""
    return [10 * sum("a" <= letter <= "m" for letter in text) / max(1, len(text)) for text in candidates]


def players(**options):
    return Players(letters, **options)


def test_a_run_that_was_cut_makes_the_same_pairs(tmp_path):
    feedback = players(revise=alternatives(targets=["a", "b"]))
    config = replace(CONFIG, threshold=0.9, floor=3)

    def run(state=None):
        return anyprefer.synthesise(tiny(), PROMPTS, feedback, config=config, seed=3, state=state)

    whole = list(run())
    assert [now.step for now in whole] == [1, 2, 3]
    assert whole[-1].metrics["prompts"] == 12
    assert whole[-1].metrics["proposed"] > 0
    first = next(iter(run()))
    save_tree(tmp_path / "state.safetensors", first.state.state_dict())
    resumed = list(run(load_tree(tmp_path / "state.safetensors")))
    pairs = [anyprefer.pairs_of(one[-1].state.sources["game"]) for one in (whole, resumed)]
    assert [*pairs[0]] == [*pairs[1]]
    assert resumed[-1].metrics == whole[-1].metrics


def test_the_policy_comes_to_write_what_the_judge_likes():
    config = replace(
        CONFIG, steps=45, round_steps=15, prompts=24, at_a_time=24, batch_size=16, group_size=6,
        answer_limit=8, learning_rate=3e-3,
    )  # fmt: skip

    def judge(prompt, candidates, knowledge, rubric):
        return [sum(map(str.islower, text)) for text in candidates]

    progress = list(anyprefer.train(tiny(), PROMPTS, Players(judge), config=config))
    pairs = progress[-1].state.sources["game"].pairs

    def mean_score(made):
        scores = [score for one in made for score in one.data["candidate_scores"]]
        return sum(scores) / len(scores)

    assert mean_score(pairs[-15:]) > mean_score(pairs[:15]) + 0.5
    assert len([now for now in progress if "pairs" in now.metrics]) == 3, "each round is played anew"


def test_the_reference_of_a_round_is_the_policy_at_its_start():
    config = replace(CONFIG, steps=4, round_steps=2, learning_rate=1e-2)
    progress = list(anyprefer.train(tiny(), PROMPTS, players(), config=config))
    losses = [now.metrics["loss"] for now in progress]
    assert losses[0] == pytest.approx(0.693147, abs=1e-4)
    assert losses[2] == pytest.approx(0.693147, abs=1e-4)
    assert abs(losses[1] - 0.693147) > 1e-3
    assert abs(losses[3] - 0.693147) > 1e-3


def test_what_is_learnt_is_behind_the_first_instruction_whatever_they_were_written_behind():
    config = replace(CONFIG, steps=1, round_steps=1, threshold=1.0, floor=0, batch_size=4)

    def reward(pair):
        return (1.0 if pair.scores[0] >= 0 and seen.get("instructed") else 0.0), "again"

    seen = {}

    def revise(now, critiques, rng):
        seen["instructed"] = True
        return replace(now, target="Please: ")

    (progress,) = anyprefer.train(tiny(), PROMPTS, players(revise=revise, reward=reward), config=config)
    learner = progress.state.learners["policy"]
    rows = progress.state.sources["rows"].rows
    text = learner.module.decode(rows["token"][0, 0][rows["attended"][0, 0]])
    assert "Please" not in text
    game = progress.state.sources["game"]
    assert game.pairs[0].data["instructions"]["target"] == "Please: "


def test_findings_tell_pairs_costs_and_whether_the_truth_was_told():
    def tool(prompt, candidates):
        return "e"

    found = result_of(anyprefer.generate(tiny(), PROMPTS, players(tools={"e": tool}), config=CONFIG))
    assert found.summary["pairs"] == len(found.pairs) > 5
    assert found.data["counts"]["tool_calls"] == 12
    assert found.pairs.provenance["tools"] == ["e"]
    assert not found.notices
    told = players(verify=lambda text, prompt: float("e" in text))
    found = result_of(anyprefer.generate(tiny(), PROMPTS, told, config=CONFIG))
    assert "supervised" in found.notices[0]


def test_prompts_are_played_once():
    *_, last = anyprefer.synthesise(tiny(), PROMPTS, players(), config=replace(CONFIG, prompts=1000))
    assert last.metrics["prompts"] == len(PROMPTS)
    assert last.step == last.total == 8


def test_a_target_that_judges_itself_is_warned_of():
    policy = tiny()
    for judge in (own_likelihood(policy), policy):
        with pytest.warns(UserWarning, match="self-rewarding"):
            anyprefer.synthesise(policy, PROMPTS, Players(judge), config=CONFIG)


def test_no_pair_at_all_is_an_error_that_says_why():
    with pytest.raises(DataError, match=r"tied: 12"):
        result_of(anyprefer.generate(tiny(), PROMPTS, Players(lambda *a: [1] * len(a[1])), config=CONFIG))
    config = replace(CONFIG, temperature=1e-4)
    with pytest.raises(DataError, match="raise the temperature"):
        result_of(anyprefer.generate(tiny(), PROMPTS, players(), config=config))
    with pytest.raises(SettingError):
        replace(CONFIG, beta=-1)
    with pytest.raises(SettingError):
        replace(CONFIG, round_steps=0)


def test_the_order_of_the_steps_does_not_depend_on_who_drives():
    runs = [anyprefer.synthesise(tiny(), PROMPTS, players(), config=CONFIG) for _ in range(2)]
    shown = [[now.state.shown for now in itertools.islice(one, 2)] for one in runs]
    assert shown[0] == shown[1]
    assert shown[0][0]

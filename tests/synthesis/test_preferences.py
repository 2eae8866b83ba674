"""The game by hand: which pair is kept, what feedback changes, what is refused, and how it goes on."""

import json
from dataclasses import replace

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.preferences import Preferences, preferences_from_dataset
from policysmith.experience.prompts import Prompt
from policysmith.synthesis.feedback import alternatives
from policysmith.synthesis.game_settings import GameSettings
from policysmith.synthesis.players import Instructions, Players
from policysmith.synthesis.preferences import PreferenceGame, histogram
from policysmith.synthesis.tools import NO_KNOWLEDGE

SETTINGS = GameSettings(max_feedback=0)
ASKED = [Prompt(f"question {number}", answer="right") for number in range(60)]


def says(*texts):
    """A target that writes the same candidates whatever it is asked."""
    return lambda prompts, instruction, rng: [list(texts) for _ in prompts]


def gives(points):
    """A judge who has points for each text."""
    return lambda prompt, candidates, knowledge, rubric: [points[text] for text in candidates]


def game(propose, judge, *, settings=SETTINGS, probe=ASKED[:8], seed=0, **players):
    return PreferenceGame(propose, Players(judge, **players), settings, probe=probe, seed=seed)


def played(scores, **options):
    texts = [f"answer {place}" for place in range(len(scores))]
    one = game(says(*texts), gives(dict(zip(texts, scores, strict=True))), **options)
    return one, one.play(ASKED[:1])


# ---- pairs -------------------------------------------------------------------------------------------


def test_best_over_worst_is_kept_by_hand():
    one, made = played((7, 3, 9, 3, 8))
    assert made[0].answers == ("answer 2", "answer 1"), "the first of two worst ones"
    assert made[0].data["scores"] == (9.0, 3.0)
    assert made[0].data["reward"] == pytest.approx(0.982014, abs=1e-6)
    assert one.counts["pairs"] == 1


def test_a_pair_that_is_too_close_or_too_poor_is_not_kept():
    one, made = played((6, 5, 5.5))
    assert made == []
    assert one.metrics()["reward"] == pytest.approx(0.268941, abs=1e-6)
    assert one.counts["rejected"] == 1
    one, made = played((5, 1))
    assert made == []
    assert one.metrics()["reward"] == 0


def test_equal_scores_give_no_pair():
    one, made = played((4, 4, 4))
    assert made == []
    assert one.counts["tied"] == 1


def test_all_pairs_by_a_margin():
    _, made = played((9, 6.5, 3), settings=replace(SETTINGS, pair="all_margin", floor=0, threshold=0.0))
    assert [one.answers for one in made] == [
        ("answer 0", "answer 1"), ("answer 0", "answer 2"), ("answer 1", "answer 2"),
    ]  # fmt: skip


def test_a_candidate_that_cannot_be_judged_is_left_out():
    one, made = played((None, 9, 1))
    assert made[0].answers == ("answer 1", "answer 2")
    assert made[0].data["candidate_scores"] == [None, 9.0, 1.0]
    one, made = played((None, 9))
    assert made == []
    assert one.counts["unjudged"] == 1


def test_ill_formed_and_equal_candidates_are_not_played():
    points = gives({"good": 9, "well": 2, "#": 0, " ": 0})
    one = game(says("good", "#", "good", " ", "well"), points, well_formed=lambda text, _: float(text != "#"))
    (made,) = one.play(ASKED[:1])
    assert made.data["candidates"] == ["good", "well"]
    assert made.answers == ("good", "well")


def test_the_right_answer_may_be_the_better_one_and_the_record_says_so():
    settings = replace(SETTINGS, positive="label")
    one = game(says("right", "so so", "bad"), gives({"so so": 5, "bad": 1}), settings=settings)
    (made,) = one.play(ASKED[:1])
    assert made.answers == ("right", "bad")
    assert made.data["told_the_truth"] is True
    with pytest.raises(DataError, match="no right answer"):
        one.play([Prompt("?")])


# ---- the judge ---------------------------------------------------------------------------------------


def by_place(prompt, candidates, knowledge, rubric):
    return [10.0 - 3 * place for place in range(len(candidates))]


def test_a_judge_of_places_is_foiled_by_random_order():
    one = game(says("a", "b"), by_place)
    firsts = [one.play([prompt])[0].answers[0] for prompt in ASKED]
    assert 15 < firsts.count("a") < 45


def test_the_mean_of_both_orders_takes_the_place_out():
    one = game(says("a", "b"), by_place, settings=replace(SETTINGS, orders=2))
    one.play(ASKED[:10])
    assert one.counts["tied"] == 10


def test_the_judge_is_told_rubric_and_knowledge():
    heard = []

    def judge(prompt, candidates, knowledge, rubric):
        heard.append((knowledge, rubric))
        return [9, 1], ["good", "bad"]

    def broken(prompt, candidates):
        raise TimeoutError

    tools = {"sum": lambda prompt, candidates: "5", "broken": broken, "other": lambda *_: "?"}
    choose = lambda prompt, names: [name for name in names if name != "other"]  # noqa: E731
    one = game(says("a", "b"), judge, rubric="be strict", tools=tools, choose=choose)
    (made,) = one.play(ASKED[:1])
    assert heard == [({"sum": "5", "broken": NO_KNOWLEDGE, "other": ""}, "be strict")]
    assert made.data["tools"]["sum"] == "5"
    assert sorted(made.data["reasons"]) == ["bad", "good"]
    assert (one.counts["tool_calls"], one.counts["tool_failures"], one.counts["toolless"]) == (2, 1, 0)


# ---- feedback ----------------------------------------------------------------------------------------


def writes_by(instruction_quality):
    """A target whose better answer is as good as its instruction says."""

    def propose(prompts, instruction, rng):
        return [[f"{instruction_quality[instruction]}", "0"] for _ in prompts]

    return propose


def number(prompt, candidates, knowledge, rubric):
    return [float(text) for text in candidates]


QUALITY = {"": 5, "worse": 4, "better": 9}


def test_a_better_instruction_is_kept_tried_on_the_prompt_and_stays():
    settings = replace(SETTINGS, max_feedback=3)
    one = game(writes_by(QUALITY), number, settings=settings, revise=alternatives(targets=["better"]))
    (made,) = one.play(ASKED[:1])
    assert made.answers == ("9", "0")
    assert made.data["revisions"] == 1
    assert made.data["instructions"] == {"target": "better", "judge": ""}
    assert one.instructions.target == "better"
    assert (one.counts["proposed"], one.counts["revised"], one.counts["probed"]) == (1, 1, 16)
    (made,) = one.play(ASKED[1:2])
    assert made.data["revisions"] == 0


def test_each_prompt_may_start_from_the_first_instructions():
    settings = replace(SETTINGS, max_feedback=3, reset_prompts=True)
    one = game(writes_by(QUALITY), number, settings=settings, revise=alternatives(targets=["better"]))
    assert [one.play([prompt])[0].data["revisions"] for prompt in ASKED[:3]] == [1, 1, 1]


def test_a_revision_that_makes_the_probe_fall_is_dropped():
    quality = {"": 7, "worse": 4}
    settings = replace(SETTINGS, max_feedback=3, threshold=1.0)
    one = game(writes_by(quality), number, settings=settings, revise=alternatives(targets=["worse"]))
    assert one.play(ASKED[:5]) == []
    assert one.instructions.target == ""
    assert one.counts["revised"] == 0
    assert one.counts["probed"] == 16, "what was tried before is not tried again"


def test_revisions_end_at_their_number():
    settings = replace(SETTINGS, max_feedback=2, threshold=1.0)
    one = game(
        says("8", "0"), number, settings=settings, revise=lambda now, critiques, rng:
        Instructions(f"{now.target}!", now.judge),
    )  # fmt: skip
    one.play(ASKED[:1])
    assert one.counts["proposed"] == 2
    assert one.counts["rejected"] == 1


def test_the_probe_is_the_same_before_and_after():
    """A revision that changes nothing has the same value to the last bit, and is kept."""

    def noisy(prompts, instruction, rng):
        return [torch.randint(100, (2,), generator=rng).div(10).tolist() for _ in prompts]

    def as_text(prompts, instruction, rng):
        return [[str(value) for value in row] for row in noisy(prompts, instruction, rng)]

    one = game(as_text, number)
    assert one._value(Instructions("a")) == one._value(Instructions("b"))


# ---- what is refused ---------------------------------------------------------------------------------


def test_a_target_that_repeats_itself_is_an_error():
    one = game(says("same", "same"), gives({"same": 9}))
    one.play(ASKED[:10])
    assert one.counts["skipped"] == 10
    with pytest.raises(DataError, match="raise the temperature"):
        one.play(ASKED[10:20])


def test_tools_that_all_fail_on_a_fifth_are_an_error_and_fewer_are_not():
    def failing(every):
        def tool(prompt, candidates):
            if int(str(prompt.text).split()[1]) % every == 0:
                raise ConnectionError("gone")

        return game(says("9", "0"), number, tools={"web": tool})

    failing(5).play(ASKED)
    with pytest.raises(DataError, match=r"all tools failed on 15 of 60[\s\S]*gone"):
        failing(4).play(ASKED)


def test_a_threshold_that_is_never_met_is_an_error_with_the_rewards():
    one = game(says("6", "5"), number)
    one.play(ASKED[:49])
    with pytest.raises(DataError, match=r"0\.2 to 0\.4: 50"):
        one.play(ASKED[49:50])


def test_a_reward_outside_its_range_and_a_tool_that_is_not_there_are_errors():
    with pytest.raises(DataError, match="reward of a pair is 2"):
        game(says("9", "0"), number, reward=lambda pair: (2.0, "")).play(ASKED[:1])
    with pytest.raises(SettingError, match="were chosen"):
        game(says("9", "0"), number, choose=lambda prompt, names: ["web"]).play(ASKED[:1])


def test_rewards_are_counted_in_parts():
    assert (
        histogram([0, 0.1, 0.5, 1.0])
        == "0 to 0.2: 2, 0.2 to 0.4: 0, 0.4 to 0.6: 1, 0.6 to 0.8: 0, 0.8 to 1: 1"
    )


# ---- files -------------------------------------------------------------------------------------------


def drawn(prompts, instruction, rng):
    """A target whose candidates are drawn, better behind an instruction."""
    offset = 2 * len(instruction)
    return [
        [str(value + offset) for value in torch.randint(7, (4,), generator=rng).tolist()] for _ in prompts
    ]


def test_a_game_that_was_saved_goes_on_to_the_same_pairs(tmp_path):
    settings = replace(SETTINGS, max_feedback=2, at_a_time=4, floor=5)

    def new():
        revise = alternatives(targets=["!", ""], judges=["x"])
        return game(drawn, number, settings=settings, revise=revise, tools={"web": lambda *_: "known"})

    whole, cut = new(), new()
    for start in range(0, 20, 4):
        whole.play(ASKED[start : start + 4])
    for start in range(0, 8, 4):
        cut.play(ASKED[start : start + 4])
    save_tree(tmp_path / "game.safetensors", cut.state_dict())
    resumed = new()
    resumed.load_state_dict(load_tree(tmp_path / "game.safetensors"))
    for start in range(8, 20, 4):
        resumed.play(ASKED[start : start + 4])
    assert resumed.pairs == whole.pairs
    assert len(whole.pairs) > 10
    assert resumed.metrics() == whole.metrics()
    assert resumed.metrics()["tool_calls"] >= 20, "what is asked for a prompt is counted with the rest"
    assert resumed.instructions == whole.instructions


def test_pairs_are_saved_with_where_they_are_from_and_read_by_whoever_learns(tmp_path):
    pytest.importorskip("datasets")
    one = game(drawn, number, settings=replace(SETTINGS, floor=0), tools={"web": lambda *_: None})
    one.play(ASKED)
    pairs = Preferences(one.pairs)
    pairs.save(tmp_path / "pairs.jsonl")
    row = json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])
    told = (
        "candidates candidate_scores candidate_reasons tools reasons instructions reward critique revisions"
    )
    assert {"prompt", "chosen", "rejected", *told.split()} <= set(row)
    again = preferences_from_dataset(str(tmp_path / "pairs.jsonl"))
    assert again.fingerprint == pairs.fingerprint
    assert again[0].data["scores"] == pairs[0].data["scores"]

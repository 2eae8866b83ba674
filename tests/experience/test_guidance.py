"""Hints: who gets one, how long it is, and what the answers are learnt on."""

import pytest
import torch

pytest.importorskip("transformers")

from scripted import Script, Scripted

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.guidance import (
    beginning,
    check_solutions,
    failed_groups,
    gives_away,
    guided,
    with_hint,
)
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.experience.rollouts import sampled
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.scored import scored
from policysmith.rewards.scoring import Scoring

SHORT = "{question}|{hint}|"
EASY, HARD = Prompt("easy", "1", {"solution": "so 1"}), Prompt("hard", "2", {"solution": "abcdefgh so 2"})
RIGHT = Scoring({"right": lambda text, prompt: float(text == prompt.answer)})
POLICY = small_decoder(0, width=32, layers=1, heads=2, context=64)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ask(script: Script, *groups: Prompt, scoring: Scoring = RIGHT, version: int = 0, **options):
    """Answers to the groups, two to each, and the sampler that was asked."""
    inside = Scripted(POLICY, script, scoring, copies=2)
    sampler = guided(inside, template=SHORT, **options)
    return sampler(dict(enumerate(groups)), rng=rng(), version=version), inside


def with_help(needed: int) -> Script:
    """The first copy is right where at least `needed` characters of the solution are shown."""

    def script(prompt: Prompt, copy: int) -> str:
        parts = str(prompt.text).split("|")
        shown = len(parts[1]) if len(parts) > 1 else 0
        known = parts[0] == "easy" or shown >= needed
        return str(prompt.answer) if known and copy == 0 else "?"

    return script


# ---- the hint ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "share", "shown"), [(11, 0.25, 3), (11, 0.5, 6), (10, 0.25, 2)])
def test_a_hint_is_cut_by_characters_and_halves_go_to_the_even_number(length, share, shown):
    assert beginning("x" * length, share) == "x" * shown


def test_a_hinted_prompt_keeps_what_answers_are_checked_against():
    hinted = with_hint(HARD, 0.5, template=SHORT)
    assert hinted.text == "hard|abcdef|"
    assert (hinted.answer, hinted.data) == (HARD.answer, HARD.data)


def test_in_a_conversation_the_users_last_turn_gets_the_hint():
    turns = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"})
    asked = Prompt((*turns, {"role": "user", "content": "hard"}), "2", HARD.data)
    hinted = with_hint(asked, 0.5, template=SHORT)
    assert hinted.text == (*turns, {"role": "user", "content": "hard|abcdef|"})


def test_questions_and_solutions_may_hold_braces():
    asked = Prompt(r"\frac{1}{2}", "0.5", {"solution": r"{x} is 0.5"})
    assert with_hint(asked, 0.3, template=SHORT).text == r"\frac{1}{2}|{x}|"


def test_a_hint_gives_the_answer_away_where_it_stands_there_by_itself():
    assert gives_away("3+2=5;", "5")
    assert not gives_away("3+2=15;", 5)
    assert not gives_away("3+", "5")


# ---- who is asked again ------------------------------------------------------------------------------


def test_only_groups_without_a_right_answer_are_asked_again():
    samples, inside = ask(with_help(6), EASY, HARD)
    assert inside.asked == [["easy", "hard"], ["hard|abc|"], ["hard|abcdef|"]]
    assert samples.batch["group_id"].tolist() == [0, 0, 1, 1]
    assert samples.texts == ["1", "?", "2", "?"]


def test_a_group_keeps_the_prompt_its_answers_were_written_on_whatever_the_others_need():
    """One group is solved at the first stage while another needs the second."""
    also = Prompt("also", "2", {"solution": "abcdefghijklmnopqrstuvwx so 2"})
    samples, inside = ask(with_help(6), EASY, also, HARD)
    assert inside.asked[1:] == [["also|abcdefg|", "hard|abc|"], ["hard|abcdef|"]]
    assert [one.text for one in samples.about[::2]] == ["easy", "also|abcdefg|", "hard|abcdef|"]
    for row, prompt in enumerate(samples.about):
        length = int(samples.batch["prompt_length"][row])
        assert POLICY.decode(samples.batch["token"][row, :length].tolist()) == prompt.text
    assert not bool(samples.batch["mask"][:, 0].any()), "a hint is context, and no target"
    written = [len(text) + 1 for text in samples.texts]
    assert samples.batch["mask"].sum(1).tolist() == written


def test_where_no_hint_helps_the_answers_to_the_longest_stay():
    samples, inside = ask(with_help(99), HARD)
    assert inside.asked[-1] == ["hard|abcdefgh s|"]
    assert len(inside.asked) == 4, "a group costs at most four times its answers"
    assert samples.about[0].text == "hard|abcdefgh s|"
    assert samples.batch["log", "unsolved"].tolist() == [1.0, 1.0]


def test_without_hard_groups_nothing_is_changed():
    samples, inside = ask(with_help(99), EASY, EASY)
    assert len(inside.asked) == 1
    assert samples.texts == ["1", "?", "1", "?"]


def test_form_says_nothing_of_difficulty():
    scoring = Scoring(
        {"accuracy": RIGHT.rewards["right"], "form": lambda text, prompt: 1.0}, weights={"form": 0.5}
    )
    _, inside = ask(with_help(3), HARD, scoring=scoring, column="accuracy")
    assert inside.asked == [["hard"], ["hard|abc|"]]
    with pytest.raises(SettingError, match=r"(?s)none is named.*accuracy"):
        ask(with_help(3), HARD, scoring=scoring)
    with pytest.raises(SettingError, match="'right' is not there"):
        ask(with_help(3), HARD, scoring=scoring, column="right")


def test_before_its_first_version_nobody_is_helped():
    for version, calls in ((19, 1), (20, 2)):
        samples, inside = ask(with_help(3), HARD, begin=20, version=version)
        assert len(inside.asked) == calls
        assert samples.batch["log", "hard"].tolist() == [1.0, 1.0]


def test_a_group_is_failed_at_scores_of_zero_and_below():
    samples, _ = ask(with_help(0), EASY, HARD, HARD)
    samples.batch["score", "right"] = torch.tensor([0.0, 0.1, 0.0, -1.0, 1.0, 0.0])
    assert failed_groups(samples) == [1]


# ---- what is logged ----------------------------------------------------------------------------------


def test_the_log_says_what_help_was_given_and_what_it_cost():
    samples, _ = ask(with_help(6), EASY, HARD)
    log = samples.batch["log"]
    assert log["hard"].tolist() == [0, 0, 1, 1]
    assert log["unsolved"].tolist() == [0, 0, 0, 0]
    assert log["hinted"].tolist() == [0, 0, 1, 1]
    assert log["hint"].tolist() == [0, 0, 0.5, 0.5]
    assert [float(log[f"hint/{share}"].mean()) for share in ("0.25", "0.5", "0.75")] == [0, 0.5, 0]
    assert float(log["unaided_reward"].mean()) == 0.25
    # Two characters an answer, the end token one of them: twice for the easy group, six times for the hard.
    assert log["sampled_tokens"].tolist() == [2, 2, 6, 6]


def test_the_log_tells_hints_that_held_the_answer():
    telling = Prompt("hard", "2", {"solution": "2 is it, and so on"})
    for prompt, leaked in ((telling, 1.0), (HARD, 0.0)):
        samples, _ = ask(with_help(3), prompt)
        assert samples.batch["log", "leaked"].tolist() == [leaked] * 2


# ---- with a model ------------------------------------------------------------------------------------


def real(limit: int = 4):
    return scored(sampled(POLICY, LocalEngine(POLICY), Sampling(limit=limit), copies=2), RIGHT)


def test_whoever_shares_the_groups_gets_the_same_answers():
    sampler = guided(real(), template=SHORT)
    whole = sampler({0: EASY, 1: HARD, 2: EASY}, rng=rng())
    parts = [sampler(part, rng=rng()) for part in ({0: EASY, 2: EASY}, {1: HARD})]
    assert whole.texts == [*parts[0].texts[:2], *parts[1].texts, *parts[0].texts[2:]]


def test_a_hinted_prompt_that_does_not_fit_is_refused_and_not_cut():
    long = Prompt("hard", "2", {"solution": "x" * 100})
    with pytest.raises(DataError, match=r"(?s)do not fit the context.*hard\|x"):
        guided(real(), template=SHORT)({0: long}, rng=rng())


# ---- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [(), (0.5, 0.25), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0), (-0.1,)])
def test_stages_rise_between_nothing_and_all(stages):
    with pytest.raises(SettingError, match="stages"):
        guided(real(), stages=stages)


@pytest.mark.parametrize("template", ["{question}", "{hint}", "{question}{hint}{more}", "{question}{hint}{"])
def test_templates_have_their_fields_and_no_others(template):
    with pytest.raises(SettingError, match="template"):
        guided(real(), template=template)


def test_a_question_without_a_solution_is_named_and_left_alone_by_choice_only():
    bare = Prompt("bare", "3")
    with pytest.raises(DataError, match=r"(?s)no solution.*bare"):
        ask(with_help(3), EASY, bare)
    samples, inside = ask(with_help(3), HARD, bare, skip_unsolved=True)
    assert inside.asked == [["hard", "bare"], ["hard|abc|"]]
    assert samples.batch["log", "hint"].tolist() == [0.25, 0.25, 0, 0]
    rows = from_rows([{"prompt": "a", "answer": "1", "solution": "so 1"}, {"prompt": "b", "solution": " "}])
    with pytest.raises(DataError, match=r"(?s)row 1 'b'"):
        check_solutions(rows)


def test_answers_whose_verifier_cannot_tell_are_dropped_and_counted():
    def verify(text: str, prompt: Prompt):
        return None if prompt.text == "easy" else float(text == prompt.answer)

    samples, inside = ask(with_help(3), EASY, HARD, scoring=Scoring({"right": verify}, on_error="drop"))
    assert inside.asked == [["easy", "hard"], ["hard|abc|"]]
    assert samples.batch["group_id"].tolist() == [1, 1]
    assert samples.batch["log", "failed_rewards"].tolist() == [2, 2]

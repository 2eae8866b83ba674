"""Refinements: what is asked, which is taken, and on what it is learnt."""

from collections.abc import Callable

import pytest
import torch

pytest.importorskip("transformers")

from scripted import Script, Scripted

from policysmith.common.errors import SettingError
from policysmith.experience.guidance import guided
from policysmith.experience.prompts import Prompt
from policysmith.experience.refinement import first_best, in_first_place, refined
from policysmith.experience.rollouts import sampled
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.critiques import Wording, verdicts
from policysmith.rewards.scored import scored
from policysmith.rewards.scoring import Scoring

POLICY = small_decoder(0, width=32, layers=1, heads=2, context=96)
RIGHT = Scoring({"right": lambda text, prompt: float(text == prompt.answer)})
SAY: Callable[[Samples], list[str]] = verdicts(
    tell_truth=True, wording=Wording(right="ok", wrong="no", truth=" {truth}")
)
TEMPLATE = "{question}!{answer}~{critique}:"
FIRST, SECOND = Prompt("q", "5"), Prompt("longer", "77")


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ask(script: Script, *groups: Prompt, **options):
    inside = Scripted(POLICY, script, RIGHT, copies=3)
    sampler = refined(inside, POLICY, critique=SAY, template=TEMPLATE, **options)
    return sampler(dict(enumerate(groups, start=4)), rng=rng()), inside


def learning(prompt: Prompt, copy: int) -> str:
    """Wrong at first but for the last copy, right when told so of the answer 1."""
    text = str(prompt.text)
    if "!" not in text:
        return str(copy) if copy < 2 else str(prompt.answer)
    return str(prompt.answer) if "!1~" in text else "no idea"


def stubborn(prompt: Prompt, copy: int) -> str:
    return "again" if "!" in str(prompt.text) else str(copy)


# ---- what is asked -----------------------------------------------------------------------------------


def test_every_answer_is_refined_once_with_its_critique_in_view():
    _, inside = ask(learning, FIRST)
    assert inside.asked == [["q"], ["q!0~no 5:", "q!1~no 5:", "q!5~ok 5:"]]


# ---- which is taken ----------------------------------------------------------------------------------


def test_the_first_best_refinement_of_a_group_is_chosen():
    reward = torch.tensor([0.0, 1.0, 1.0, 0.2, 0.5, 0.5])
    assert first_best(reward, torch.tensor([7, 7, 7, 2, 2, 2])).tolist() == [1, 4]


def test_it_takes_the_first_place_of_its_group():
    samples, _ = ask(learning, FIRST, SECOND)
    assert samples.texts == ["5", "1", "5", "77", "1", "77"]
    assert samples.batch["group_id"].tolist() == [4, 4, 4, 5, 5, 5]
    assert samples.batch["off_policy"].tolist() == [True, False, False] * 2
    assert samples.batch["reward"].tolist() == [1, 0, 1] * 2
    assert len({(one.group_id, one.copy) for one in samples.requests}) == 6


def test_where_no_refinement_is_right_the_first_enters_to_be_penalised():
    samples, _ = ask(stubborn, FIRST)
    assert samples.texts == ["again", "1", "2"]
    assert samples.batch["off_policy"].tolist() == [True, False, False]


def test_or_the_answers_stay_by_choice():
    samples, _ = ask(stubborn, FIRST, only_right=True)
    assert samples.texts == ["0", "1", "2"]
    assert not bool(samples.batch["off_policy"].any())
    both, _ = ask(
        lambda p, c: (learning if p.answer == "5" else stubborn)(p, c), SECOND, FIRST, only_right=True
    )
    assert both.texts == ["0", "1", "2", "5", "1", "5"]


# ---- what it is learnt on ----------------------------------------------------------------------------


def test_a_refinement_is_hung_on_the_question_as_first_asked():
    samples, _ = ask(learning, FIRST, SECOND)
    batch = samples.batch
    for row, prompt in ((0, FIRST), (3, SECOND)):
        assert samples.about[row] is prompt
        attended = int(batch["attended"][row].sum())
        token = batch["token"][row, :attended].tolist()
        written = [*POLICY.encode(str(prompt.answer)), POLICY.end_tokens[0]]
        assert token == [*POLICY.encode(str(prompt.text)), *written], "neither critique nor failed solution"
        assert batch["mask"][row].nonzero()[:, 0].tolist() == list(range(len(prompt.text), attended)), (
            "the end token is learnt too"
        )
        assert not bool(batch["behaviour_log_prob"][row].any())


def test_the_other_rows_are_what_they_were():
    samples, inside = ask(learning, FIRST)
    plain = inside({4: FIRST}, rng=rng())
    for key in ("token", "mask", "behaviour_log_prob"):
        time = plain.batch[key].shape[1]
        assert torch.equal(samples.batch[key][1:, :time], plain.batch[key][1:])


def test_places_are_found_in_groups_of_any_size():
    samples, inside = ask(stubborn, FIRST, SECOND, only_right=True)
    ragged = samples.select([1, 2, 3])
    other = inside({5: SECOND}, rng=rng(), copies=1)
    other.batch["off_policy"] = torch.tensor([True])
    assert in_first_place(ragged, other).texts == ["1", "2", "0"]
    assert in_first_place(ragged, other).batch["off_policy"].tolist() == [False, False, True]


# ---- what is logged, and with whom it combines -------------------------------------------------------


def test_the_log_says_how_often_refining_helped_and_what_it_cost():
    samples, _ = ask(learning, FIRST)
    log = samples.batch["log"]
    assert float(log["refined_right"][0]) == pytest.approx(1 / 3)
    assert float(log["unaided_reward"][0]) == pytest.approx(1 / 3)
    assert float(log["replaced"][0]) == 1.0
    # Three answers of two tokens; refinements of 8, 2 and 8.
    assert float(log["sampled_tokens"].sum()) == 6 + 18


def test_whoever_shares_the_groups_gets_the_same_refinements():
    inside = scored(sampled(POLICY, LocalEngine(POLICY), Sampling(limit=4), copies=2), RIGHT)
    sampler = refined(inside, POLICY, critique=lambda samples: ["?"] * len(samples), template=TEMPLATE)
    whole = sampler({0: FIRST, 1: SECOND, 2: FIRST}, rng=rng())
    parts = [sampler(part, rng=rng()) for part in ({0: FIRST, 2: FIRST}, {1: SECOND})]
    assert whole.texts == [*parts[0].texts[:2], *parts[1].texts, *parts[0].texts[2:]]


def test_hints_and_refinements_wrap_one_another():
    asked = Prompt("q", "5", {"solution": "some way to 5"})

    def script(prompt: Prompt, copy: int) -> str:
        return "5" if "|" in str(prompt.text) and "!" in str(prompt.text) else "?"

    inside = Scripted(POLICY, script, RIGHT, copies=2)
    sampler = guided(
        refined(inside, POLICY, critique=SAY, template=TEMPLATE), template="{question}|{hint}", stages=(0.5,)
    )
    samples = sampler({0: asked}, rng=rng())
    assert samples.texts == ["5", "?"]
    assert samples.batch["off_policy"].tolist() == [True, False]
    assert [one.text for one in samples.about] == ["q|some w"] * 2
    assert float(samples.batch["log", "sampled_tokens"].sum()) == 4 * 2 * 2


def test_a_template_needs_all_three():
    with pytest.raises(SettingError, match="critique"):
        refined(
            Scripted(POLICY, stubborn, RIGHT, copies=1), POLICY, critique=SAY, template="{question}{answer}"
        )

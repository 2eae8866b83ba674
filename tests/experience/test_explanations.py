"""Explanations: asked with the answer in view, learnt without it, left out or closed where they are wrong."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.explanations import (
    Notebook,
    answer_in_view,
    check_answers,
    explained_pairs,
    explaining,
    imitating,
    kept,
    reciting,
)
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.rollouts import Groups, Sampler, encode_prompt
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.scored import score
from policysmith.rewards.scoring import Scoring
from policysmith.rewards.verifiers import after, exact

SUM, DIFFERENCE = Prompt("2+3=", "5", {"solution": "3+2=5;#5"}), Prompt("9-2=", "7", {"solution": "2+7=9;#7"})
GROUPS = {3: SUM, 8: DIFFERENCE}
ASK = answer_in_view("{question}{answer}?")


@pytest.fixture
def policy() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=1, heads=2, context=64)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def saying(policy: LanguagePolicy, say: Callable[[Prompt, int], str], *, usual: int = 2) -> Any:
    """A sampler that says what it is told to, with rewards, and remembers what it was asked."""
    asked: list[dict[int, Any]] = []

    def sample(groups: Groups, *, rng, version=0, copies=None) -> Samples:
        asked.append({group: prompt.text for group, prompt in groups.items()})
        requests, written, texts = [], [], []
        for group, prompt in groups.items():
            for copy in range(usual if copies is None else copies):
                texts.append(say(prompt, copy))
                token = [*policy.encode(texts[-1]), policy.end_tokens[0]]
                requests.append(Request(encode_prompt(policy, prompt), group, copy, about=prompt))
                written.append(Written(token, [-0.5] * len(token), True))
        samples = Samples(collate(requests, written, pad=0, version=version), requests, texts)
        samples.log("answer_tokens", samples.batch["mask"].sum(1))
        return score(samples, Scoring({"right": exact(after("#"))}))

    sample.asked = asked  # type: ignore[attr-defined]
    return sample


def right(prompt: Prompt, copy: int) -> str:
    return f"so;#{prompt.answer}"


def wrong(prompt: Prompt, copy: int) -> str:
    return "so;#0"


def read(policy: LanguagePolicy, samples: Samples, row: int) -> str:
    batch = samples.batch
    return policy.decode(batch["token"][row][batch["attended"][row]])


def test_the_answer_is_seen_by_who_explains_and_not_by_who_learns(policy, rng):
    sampler = saying(policy, right)
    samples = explaining(sampler, policy, ask=ASK)(GROUPS, rng=rng)
    assert sampler.asked == [{3: "2+3=5?", 8: "9-2=7?"}]
    assert [read(policy, samples, row) for row in range(2)] == ["2+3=so;#5", "9-2=so;#7"]
    assert samples.batch["off_policy"].all()
    assert samples.about == [SUM, DIFFERENCE]
    answer = [policy.decode(samples.batch["token"][row][samples.batch["mask"][row]]) for row in range(2)]
    assert answer == ["so;#5", "so;#7"], "the question is read, the explanation with its answer learnt"


def test_a_wrong_explanation_is_closed_with_the_right_answer(policy, rng):
    def half(prompt: Prompt, copy: int) -> str:
        return "so;#5" if prompt.answer == "5" else "so;#0"

    samples = explaining(saying(policy, half), policy, ask=ASK, closing="; or #{answer}")(GROUPS, rng=rng)
    assert samples.texts == ["so;#5", "so;#0; or #7"]
    assert read(policy, samples, 1) == "9-2=so;#0; or #7"
    end = policy.end_tokens[0]
    token = samples.batch["token"][1][samples.batch["mask"][1]].tolist()
    assert token.index(end) == len(token) - 1, "the text goes on where it had ended"
    assert samples.batch["log", "right"].tolist() == [0.5, 0.5]


def test_a_wrong_explanation_can_be_left_out(policy, rng):
    def half(prompt: Prompt, copy: int) -> str:
        return right(prompt, copy) if prompt.answer == "5" else "no"

    samples = explaining(saying(policy, half), policy, ask=ASK, only_right=True)(GROUPS, rng=rng)
    assert samples.batch["group_id"].tolist() == [3]
    assert samples.batch["log", "right"].tolist() == [0.5], "of all, not of those that are left"
    nothing = explaining(saying(policy, wrong), policy, ask=ASK, only_right=True)(GROUPS, rng=rng)
    assert len(nothing) == 0


def test_empty_explanations_are_dropped_and_counted(policy, rng):
    groups = {0: SUM, 1: SUM, 2: DIFFERENCE}

    def seldom(prompt: Prompt, copy: int) -> str:
        return "" if prompt.answer == "7" else right(prompt, copy)

    samples = explaining(saying(policy, seldom), policy, ask=ASK)(groups, rng=rng)
    assert samples.batch["group_id"].tolist() == [0, 1]
    assert samples.batch["log", "empty"].tolist() == pytest.approx([1 / 3] * 2)


def test_mostly_empty_explanations_are_an_error(policy, rng):
    with pytest.raises(DataError, match="2 of 2 explanations are empty"):
        explaining(saying(policy, lambda *_: " "), policy, ask=ASK)(GROUPS, rng=rng)


def test_asking_in_the_words_of_the_question_is_refused(policy, rng):
    with pytest.raises(SettingError, match="same words"):
        explaining(saying(policy, right), policy, ask=lambda prompt: prompt)(GROUPS, rng=rng)


def test_a_template_without_the_answer_is_refused():
    with pytest.raises(SettingError, match="answer"):
        answer_in_view("{question} Why?")


def test_a_question_without_answer_is_named():
    with pytest.raises(DataError) as caught:
        check_answers(Prompts([SUM, Prompt("1+1=")]))
    assert caught.value.where.startswith("row 1")
    assert "1+1=" in caught.value.where


def test_solutions_are_recited_as_if_they_had_been_written(policy, rng):
    samples = reciting(policy)(GROUPS, rng=rng)
    assert [read(policy, samples, row) for row in range(2)] == ["2+3=3+2=5;#5", "9-2=2+7=9;#7"]
    assert samples.batch["mask"].sum(1).tolist() == [9, 9]
    with pytest.raises(DataError, match="no solution"):
        reciting(policy)({0: Prompt("1+1=", "2")}, rng=rng)


def test_explanations_stand_beside_the_answers_with_their_weight(policy, rng):
    sampler = saying(policy, wrong)
    explainer = explaining(saying(policy, right), policy, ask=ASK)
    samples = imitating(sampler, explainer, weight=lambda step: 0.1 / (1 + step))(GROUPS, rng=rng, version=1)
    assert samples.batch["imitation"].tolist() == pytest.approx([0, 0, 0, 0, 0.05, 0.05])
    assert samples.batch["group_id"].tolist() == [3, 3, 8, 8, 3, 8]
    assert samples.batch["off_policy"].tolist() == [False] * 4 + [True] * 2


def test_what_is_logged_of_answers_is_not_mixed_with_explanations(policy, rng):
    explainer = explaining(saying(policy, right), policy, ask=ASK)
    samples = imitating(saying(policy, wrong), explainer, weight=lambda step: 0.1)(GROUPS, rng=rng)
    log = {key: value.nanmean().item() for key, value in samples.batch["log"].items()}
    assert log["reward"] == 0.0
    assert log["explanation/reward"] == 1.0
    assert log["answer_tokens"] == log["explanation/answer_tokens"] == 6.0
    assert log["explanation/asked"] == 1.0
    assert samples.batch["log", "reward"][4:].isnan().all()


def test_recited_solutions_can_stand_there_too(policy, rng):
    samples = imitating(saying(policy, wrong), reciting(policy), weight=lambda step: 0.1, name="solution")(
        GROUPS, rng=rng
    )
    assert samples.texts[4:] == ["3+2=5;#5", "2+7=9;#7"]
    assert samples.batch["log", "solution/answer_tokens"].nanmean().item() == 9.0
    assert samples.batch["score", "right"].tolist() == [0.0] * 6


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_without_weight_nothing_is_asked(policy, rng, weight):
    explainer = saying(policy, right)
    samples = imitating(saying(policy, wrong), explainer, weight=lambda step: weight)(GROUPS, rng=rng)
    assert explainer.asked == []
    assert not samples.batch["imitation"].any()
    assert len(samples) == 4


def test_only_groups_that_fail_can_be_explained(policy, rng):
    def sometimes(prompt: Prompt, copy: int) -> str:
        return right(prompt, copy) if prompt.answer == "5" and copy == 1 else "#0"

    explainer = explaining(saying(policy, right), policy, ask=ASK)
    samples = imitating(saying(policy, sometimes), explainer, weight=lambda step: 0.1, only_failed=True)(
        GROUPS, rng=rng
    )
    assert samples.batch["group_id"].tolist() == [3, 3, 8, 8, 8]
    assert samples.batch["log", "explanation/asked"].tolist() == [0.5] * 5


def counting(policy: LanguagePolicy) -> Sampler:
    """Explanations that are numbered as they are written."""
    count = iter(range(100))
    return explaining(saying(policy, lambda prompt, copy: f"{next(count)};#{prompt.answer}"), policy, ask=ASK)


@pytest.mark.parametrize(("every", "written"), [(1, [0, 1, 2, 3]), (2, [0, 0, 1, 1]), (0, [0, 0, 0, 0])])
def test_an_explanation_is_used_for_so_many_steps(policy, rng, every, written):
    sampler = kept(counting(policy), Notebook(), refresh_every=every)
    texts = [sampler({step: SUM}, rng=rng, version=step).texts[0] for step in range(4)]
    assert texts == [f"{number};#5" for number in written]


def test_a_kept_explanation_moves_to_the_group_it_is_asked_for(policy, rng):
    sampler = kept(counting(policy), Notebook(), refresh_every=0)
    sampler({3: SUM}, rng=rng, version=0)
    both = sampler({5: SUM, 6: DIFFERENCE}, rng=rng, version=1)
    assert both.batch["group_id"].tolist() == [5, 6]
    assert both.texts == ["0;#5", "1;#7"]
    assert both.about == [SUM, DIFFERENCE]


def test_kept_explanations_survive_a_restart(policy, rng, tmp_path):
    notebook = Notebook()
    before = kept(counting(policy), notebook, refresh_every=0)(GROUPS, rng=rng, version=0)
    save_tree(tmp_path / "notebook", notebook.state_dict())
    again = Notebook()
    again.load_state_dict(load_tree(tmp_path / "notebook"))
    after_all = kept(saying(policy, wrong), again, refresh_every=0)(GROUPS, rng=rng, version=5)
    assert after_all.texts == before.texts
    for key in ("token", "mask", "off_policy", "reward"):
        assert torch.equal(after_all.batch[key], before.batch[key])


def test_a_pair_is_an_explanation_and_a_wrong_answer(policy, rng):
    def sometimes(prompt: Prompt, copy: int) -> str:
        if prompt.answer == "5":
            return right(prompt, copy) if copy == 0 else "so;#4"
        return right(prompt, copy)

    explainer = explaining(saying(policy, lambda prompt, copy: f"told;#{prompt.answer}"), policy, ask=ASK)
    samples = imitating(saying(policy, sometimes), explainer, weight=lambda step: 0.1)(GROUPS, rng=rng)
    rows = explained_pairs(samples)
    written = [
        policy.decode(side[learnt]) for side, learnt in zip(rows["token"][0], rows["mask"][0], strict=True)
    ]
    assert len(rows) == 1, "8 has no wrong answer"
    assert written == ["told;#5", "so;#4"]


def test_the_logarithm_of_a_row_on_another_prompt_is_not_known(policy, rng):
    samples = explaining(saying(policy, right), policy, ask=ASK)(GROUPS, rng=rng)
    assert math.isclose(float(samples.batch["behaviour_log_prob"].abs().sum()), 0.0)

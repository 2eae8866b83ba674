"""Further measurements: by hand, and where they are zero, one or even."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from policysmith.claims.common.language import Measuring, _answers, _place
from policysmith.claims.common.measurements import (
    by_reward,
    distinct_answers,
    perplexity,
    sequence_kl,
    win_rate,
    wins,
)
from policysmith.claims.common.review_language import WORDS
from policysmith.claims.common.reviews import gold, prompts
from policysmith.common.errors import DataError
from policysmith.evaluation.answers import answer
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'"
)
torch.set_num_threads(1)
ASKED = prompts(6, 0)
SAMPLING = Sampling(limit=6, temperature=1.0)


def decoder(seed):
    return small_decoder(seed, width=16, layers=1, heads=2, context=40, words=WORDS, spread=0.3)


@pytest.fixture(scope="module")
def policy():
    return decoder(0)


@pytest.fixture(scope="module")
def found(policy):
    return answer(policy, ASKED, gold, sampling=SAMPLING, copies=3)


def test_a_policy_has_no_kl_to_itself_and_the_kl_to_another_is_the_sum_of_the_log_ratios(policy, found):
    assert sequence_kl(policy)(policy, found.samples) == 0
    other = decoder(1)
    batch = found.samples.batch
    with torch.no_grad():
        ratio = [
            one.log_prob(batch["token"], batch["attended"], mask=batch["mask"])[0] for one in (policy, other)
        ]
    by_hand = sum(float((ratio[0] - ratio[1])[row][batch["mask"][row]].sum()) for row in range(18)) / 18
    assert sequence_kl(other)(policy, found.samples) == pytest.approx(by_hand, rel=1e-4)
    assert by_hand > 0


def test_perplexity_of_even_guesses_is_the_number_of_words(policy, found):
    even = decoder(2)
    with torch.no_grad():
        for weight in even.parameters():
            weight.zero_()
    assert perplexity(even)(policy, found.samples) == pytest.approx(len(WORDS) + 3, rel=1e-4)


def test_distinct_answers_are_counted_once():
    samples = SimpleNamespace(texts=["great .", "poor .", "great .", "great ."])
    assert distinct_answers(None, samples) == 0.5


def test_a_reward_is_averaged_over_answers(policy, found):
    assert by_reward(gold)(policy, found.samples) == pytest.approx(found.score.mean(), abs=1e-6)


def test_every_answer_meets_every_rival_and_a_tie_is_half_a_win():
    asked = ASKED[0]
    samples = SimpleNamespace(texts=["aa", "a"], about=[asked, asked])
    rate = win_rate(lambda text, prompt: float(len(text)), {asked.text: ["a", "aaa"]})
    assert rate(None, samples) == (1 + 0 + 0.5 + 0) / 4
    with pytest.raises(DataError, match="rival"):
        win_rate(gold, {})(None, samples)


def test_wins_of_scores_are_those_of_the_answers_prompt_by_prompt():
    scores = np.array([[[0.2, 0.9], [0.5, 0.5]], [[0.1, 0.1], [0.9, 0.5]]], dtype=np.float32)
    assert wins(scores, np.array([0.1, 0.5])).tolist() == [[1.0, 0.5], [0.5, 0.75]]


def test_scores_kept_in_single_precision_tie_with_the_same_ones_in_double():
    kept = torch.tensor([[[0.7]]], dtype=torch.float32).double().numpy()
    assert kept.item() != 0.7
    assert wins(kept, np.array([0.7])).item() == 0.5


def test_wins_of_scores_agree_with_wins_of_texts(policy, found):
    rivals = answer(decoder(1), ASKED, gold, sampling=SAMPLING)
    by_text = {prompt.text: texts for prompt, texts in zip(ASKED, rivals.texts, strict=True)}
    of_texts = win_rate(gold, by_text)(policy, found.samples)
    assert wins(found.score[None], rivals.score[:, 0]).mean() == pytest.approx(of_texts)


def test_further_measurements_stand_beside_the_others_and_leave_their_places_alone(policy, tmp_path):
    plain = Measuring(gold, SAMPLING, copies=3)
    more = Measuring(gold, SAMPLING, copies=3, further={"distinct": distinct_answers})
    numbers = _answers(policy, ASKED, more).numbers
    assert 0 < numbers.pop("distinct") <= 1
    assert numbers == _answers(policy, ASKED, plain).numbers
    run = SimpleNamespace(path=tmp_path)
    assert _place(run, ASKED, plain, -1) != _place(run, ASKED, more, -1)


def test_what_was_measured_before_there_was_anything_further_is_found_where_it_was(tmp_path):
    plain = Measuring(gold, Sampling(limit=6), copies=3)
    place = _place(SimpleNamespace(path=tmp_path), Prompts([Prompt("1+1=")]), plain, -1)
    assert place == tmp_path / "answers" / "edbc1c135cbc-end.json"

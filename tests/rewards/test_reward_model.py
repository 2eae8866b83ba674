"""Reward models: where the score is read, on which tokens, as what kind of reward, and how they are saved."""

from __future__ import annotations

import warnings

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, FileError
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import encode_prompt
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.samples import Request
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards import named
from policysmith.rewards.reward_model import RewardModel, check_trained, is_reward_model, outcome_scores
from policysmith.rewards.scored import score
from policysmith.rewards.scoring import Scoring, batched

PROMPTS = [Prompt("2+3="), Prompt("what is seven?"), Prompt("2+3=")]
TEXTS = ["5", "it is 7", "five or six"]


def by_hand(model, token):
    """w . h + b at the last of `token`, by the model's own module."""
    with torch.no_grad():
        hidden = model.policy.body(input_ids=torch.tensor([token])).last_hidden_state[0, -1]
        return float(model.head(hidden))


def whole(model, prompt, text, *, ended=True):
    policy = model.policy
    return [*encode_prompt(policy, prompt), *policy.encode(text), *policy.end_tokens[: int(ended)]]


def sampled(policy, *, limit=6):
    requests = [
        Request(encode_prompt(policy, prompt), group_id=group, about=prompt)
        for group, prompt in enumerate(PROMPTS)
    ]
    made = LocalEngine(policy).sample(requests, Sampling(limit=limit), rng=torch.Generator().manual_seed(0))
    return made


def test_a_text_is_scored_at_its_end_token_whatever_stands_beside_it(reward_model):
    found = reward_model(TEXTS, PROMPTS)
    expected = [by_hand(reward_model, whole(reward_model, *row)) for row in zip(PROMPTS, TEXTS, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == 3
    assert not found.requires_grad


def test_an_untrained_reward_model_says_nothing(policy):
    assert RewardModel(policy)(TEXTS, PROMPTS).tolist() == [0, 0, 0]


def test_samples_are_scored_on_the_tokens_that_were_written(reward_model, make_policy):
    samples = sampled(make_policy(5))
    found = reward_model.score_samples(samples)
    for row in range(3):
        token = samples.batch["token"][row][samples.batch["attended"][row]].tolist()
        assert float(found[row]) == pytest.approx(by_hand(reward_model, token), abs=1e-5)


def test_an_answer_cut_by_the_limit_is_scored_at_its_last_token_and_not_as_if_it_had_ended(
    reward_model, make_policy
):
    samples = sampled(make_policy(5), limit=3)
    assert not samples.batch["finished"].any()
    found = reward_model.score_samples(samples)
    as_texts = reward_model(samples.texts, PROMPTS)
    for row in range(3):
        cut = whole(reward_model, PROMPTS[row], samples.texts[row], ended=False)
        assert float(found[row]) == pytest.approx(by_hand(reward_model, cut), abs=1e-5)
        assert float(found[row]) != pytest.approx(float(as_texts[row]), abs=1e-4)


def test_an_ended_sample_scores_as_its_text_does(reward_model, make_policy):
    samples = sampled(make_policy(5), limit=3)
    end = reward_model.policy.end_tokens[0]
    for row in range(3):
        last = int(samples.batch["attended"][row].sum()) - 1
        samples.batch["token"][row, last] = end
    samples.texts = [reward_model.policy.decode(samples.answer(row)) for row in range(3)]
    found = reward_model.score_samples(samples)
    assert found.tolist() == pytest.approx(reward_model(samples.texts, PROMPTS).tolist(), abs=1e-5)


def test_answers_of_a_model_with_other_tokens_are_scored_as_texts(reward_model, make_policy):
    samples = sampled(make_policy(5))
    samples.batch["token"] = (samples.batch["token"] + 1) % 90
    assert reward_model.score_samples(samples).tolist() == reward_model(samples.texts, PROMPTS).tolist()


def test_a_sample_without_an_answer_is_named(reward_model, make_policy):
    samples = sampled(make_policy(5))
    samples.batch["mask"][1] = False
    with pytest.raises(DataError, match=r"no answer(.|\n)*row 1, group 1"):
        reward_model.score_samples(samples)


def test_an_empty_answer_is_an_answer_that_ended_at_once(reward_model):
    found = reward_model([""], PROMPTS[:1])
    assert float(found[0]) == pytest.approx(
        by_hand(reward_model, whole(reward_model, PROMPTS[0], "")), abs=1e-5
    )


def test_texts_beyond_the_context_are_named(reward_model):
    with pytest.raises(DataError, match=r"68 tokens(.|\n)*row 1: 'what"):
        reward_model(["5", "x" * 53, "6"], PROMPTS)


def test_the_system_message_stands_before_the_prompt(make_policy, opinionated):
    model = opinionated(RewardModel(make_policy(1), system="be brief: "))
    found = model(["5"], [Prompt("2+3=")])
    bare = opinionated(RewardModel(make_policy(1)))(["5"], [Prompt("be brief: 2+3=")])
    assert found.tolist() == bare.tolist()


# ---- at the seam -------------------------------------------------------------------------------------


def test_a_weighted_scoring_gives_tokens_to_the_reward_that_reads_them(reward_model, make_policy):
    samples = sampled(make_policy(5), limit=3)
    scoring = Scoring(
        {"model": reward_model, "length": lambda text, prompt: len(text)}, weights={"length": 0.5}
    )
    on_tokens = reward_model.score_samples(samples)
    lengths = torch.tensor([float(len(text)) for text in samples.texts])
    batch = score(samples, scoring).batch
    assert batch["score", "model"].tolist() == on_tokens.tolist()
    assert batch["reward"].tolist() == pytest.approx((on_tokens + 0.5 * lengths).tolist())


def test_texts_alone_are_scored_in_one_call(reward_model):
    assert (
        Scoring({"model": reward_model})(TEXTS, PROMPTS).total.tolist()
        == reward_model(TEXTS, PROMPTS).tolist()
    )


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (lambda rows: torch.zeros(rows, 4), r"an array of shape \[3, 4\]"),
        (lambda rows: torch.zeros(rows, 1), r"an array of shape \[3, 1\]"),
        (lambda rows: torch.zeros(rows + 1), "4 values"),
        (lambda rows: [[0.0, 1.0]] * rows, "no number"),
        (lambda rows: [0.0, float("nan"), 0.0], "returned nan"),
        (lambda rows: torch.tensor([0.0, float("inf"), 0.0]), "returned inf"),
    ],
)
def test_a_batched_reward_gives_one_finite_number_per_answer(said, what):
    reward = batched(lambda texts, prompts: said(len(texts)))
    with pytest.raises(DataError, match=rf"'judge' returned {what}|{what}"):
        Scoring({"judge": reward})(TEXTS, PROMPTS)


def test_a_reward_of_one_answer_gives_one_number():
    with pytest.raises(DataError, match="no number"):
        Scoring({"judge": lambda text, prompt: torch.zeros(4)})(TEXTS, PROMPTS)


# ---- files -------------------------------------------------------------------------------------------


def test_what_is_saved_scores_as_before(reward_model, tmp_path):
    reward_model.save_pretrained(tmp_path / "model")
    again = RewardModel.from_pretrained(tmp_path / "model")
    assert again(TEXTS, PROMPTS).tolist() == reward_model(TEXTS, PROMPTS).tolist()
    assert again.settings == {"system": ""}


def test_its_folder_is_the_name_of_a_reward_and_so_is_a_run_that_holds_it(reward_model, tmp_path):
    assert not is_reward_model(tmp_path)
    reward_model.save_pretrained(tmp_path / "policy")
    for folder in (tmp_path, tmp_path / "policy"):
        assert is_reward_model(folder)
        found = named.reward_named(str(folder))
        assert found(TEXTS, PROMPTS).tolist() == reward_model(TEXTS, PROMPTS).tolist()
        assert not any(weight.requires_grad for weight in found.parameters())


def test_a_folder_without_its_head_or_of_another_kind_is_refused(reward_model, tmp_path):
    reward_model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "head.safetensors").unlink()
    with pytest.raises(FileError, match="head"):
        RewardModel.from_pretrained(tmp_path / "model")
    text = (tmp_path / "model" / "scalar.json").read_text()
    (tmp_path / "model" / "scalar.json").write_text(text.replace("reward model", "preference model"))
    assert not is_reward_model(tmp_path / "model")
    with pytest.raises(FileError, match="holds a preference model"):
        RewardModel.from_pretrained(tmp_path / "model")


# ---- rows of preferences -----------------------------------------------------------------------------


def preference_rows_by_hand(model, lists):
    """Answers to the first prompt as rows of outcomes."""
    outcomes = max(map(len, lists))
    tokens = [[whole(model, PROMPTS[0], text) for text in texts] for texts in lists]
    time = max(len(token) for row in tokens for token in row)
    shape = (len(lists), outcomes, time)
    token, attended = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    mask, present = attended.clone(), torch.zeros(shape[:2], dtype=torch.bool)
    for row, texts in enumerate(tokens):
        for place, one in enumerate(texts):
            token[row, place, : len(one)] = torch.tensor(one)
            attended[row, place, : len(one)] = True
            mask[row, place, 4 : len(one)] = True
            present[row, place] = True
    entries = {"token": token, "attended": attended, "mask": mask, "present": present}
    return TensorDict(entries, batch_size=[len(lists)])


def test_outcomes_score_as_their_texts_do_and_absent_ones_score_nothing(reward_model):
    rows = preference_rows_by_hand(reward_model, [["5", "it is 7", "six"], ["no", "5"]])
    found = outcome_scores(reward_model, rows, at_a_time=1)
    expected = reward_model(["5", "it is 7", "six", "no", "5"], PROMPTS[:1] * 5)
    assert found.flatten()[:5].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert float(found[1, 2]) == 0
    assert reward_model.score_outcomes(rows).requires_grad


def test_a_critic_begins_as_the_reward_of_what_is_written_so_far(reward_model):
    token = torch.tensor([whole(reward_model, PROMPTS[0], "five")])
    mask = torch.zeros_like(token, dtype=torch.bool)
    mask[:, 4:] = True
    critic = reward_model.as_critic()
    value = critic.value(token, torch.ones_like(mask), mask=mask)
    for place in range(4, token.shape[1]):
        before = token[0, :place].tolist()
        assert float(value[0, place].detach()) == pytest.approx(by_hand(reward_model, before), abs=1e-5)
    assert critic.head is not reward_model.head
    assert critic.policy is not reward_model.policy


# ---- whether it has learnt anything ------------------------------------------------------------------


def test_a_model_that_ranks_as_chance_does_is_warned_of():
    with pytest.warns(UserWarning, match="ranks 50.0% of 100 pairs"):
        check_trained(torch.cat([torch.ones(50), -torch.ones(50)]))
    with pytest.warns(UserWarning, match="chance"):
        check_trained(torch.zeros(10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_trained(torch.cat([torch.ones(61), -torch.ones(39)]))
    with pytest.raises(DataError, match="no pairs"):
        check_trained(torch.zeros(0))

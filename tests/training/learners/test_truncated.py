"""Learning from windows: who is judged, whose prompts are chosen, what is imitated, how it is averaged."""

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.policies.language.samples import Request, Samples
from policysmith.rewards.scoring import Scoring
from policysmith.training.learners.truncated import (
    chosen,
    finished_answers,
    imitating,
    judge_finished,
    window_mean_weight,
    with_imitation,
)


def rows(**entries) -> TensorDict:
    tensors = {name: torch.tensor(values) for name, values in entries.items()}
    return TensorDict(tensors, batch_size=[len(next(iter(tensors.values())))])


def test_nobody_judges_an_answer_that_goes_on():
    seen = []

    def reward(text, prompt):
        seen.append(text)
        return 1.0

    batch = rows(truncated=[True, False, True], group_id=[0, 1, 2])
    samples = Samples(batch, [Request([1], group_id=group) for group in range(3)], ["a", "b", "c"])
    judge_finished(samples, Scoring({"reward": reward}))
    assert seen == ["b"]
    assert batch["reward"].tolist() == [0, 1, 0]


def test_where_nothing_has_ended_nothing_is_judged():
    batch = rows(truncated=[True], group_id=[0])
    judge_finished(Samples(batch, [Request([1])], ["a"]), Scoring({"reward": lambda *_: 1 / 0}))
    assert batch["reward"].tolist() == [0]


GROUPS = {
    #  equal rewards  going on      unequal      one going on, one right
    "group_id": [4, 4, 5, 5, 6, 6, 7, 7],
    "reward": [1.0, 1, 0, 0, 1, 0, 0, 1],
    "truncated": [False, False, True, True, False, False, True, False],
}


@pytest.mark.parametrize(
    ("most", "groups"), [(None, {4, 5, 6, 7}), (4, {4, 5, 6, 7}), (3, {5, 6, 7}), (2, {5, 6}), (1, {6})]
)
def test_unequal_rewards_come_first_then_unfinished_answers_then_the_rest(most, groups):
    batch = rows(**GROUPS)
    assert set(batch["group_id"][chosen(batch, most)].tolist()) == groups


def test_the_choice_keeps_groups_whole_and_rows_in_order():
    assert chosen(rows(**GROUPS), 2).tolist() == [2, 3, 4, 5]


def test_where_all_go_on_the_oldest_are_chosen():
    batch = rows(group_id=[0, 1, 2], reward=[0.0, 0, 0], truncated=[True, True, True])
    assert chosen(batch, 2).tolist() == [0, 1]


BATCH = {
    "truncated": [False, True, False],
    "reward": [1.0, 0.0, 0.0],
    "mask": [[False, False, True, True], [False, True, True, False], [False, True, False, False]],
    "written": [[True, True, True, True], [False, True, True, False], [False, True, False, False]],
}


def test_the_critic_learns_from_all_windows_of_what_has_ended():
    batch = rows(**BATCH)
    found = finished_answers(batch)
    assert found["mask"].tolist() == [BATCH["written"][0], BATCH["written"][2]]
    assert batch["mask"].tolist() == BATCH["mask"], "the policy's own rows stay as they are"


def test_right_answers_are_imitated_over_all_windows_with_a_mean_of_their_own():
    batch = rows(**BATCH)
    batch["window"] = batch["mask"]
    prepare = imitating(0.1)
    assert prepare is not None
    batch = prepare(None, batch, torch.Generator())  # type: ignore[arg-type]
    assert batch["mask"].tolist() == [BATCH["written"][0], BATCH["mask"][1], BATCH["mask"][2]]

    log_prob = torch.tensor([[-1.0, -2, -3, -4], [-9.0, -9, -9, -9], [-9.0, -9, -9, -9]])
    loss = with_imitation(lambda log_prob, entropy, batch: (torch.zeros(3, 4), {}), 0.1)
    values, _ = loss(log_prob, torch.zeros(3, 4), batch)
    assert float((values * window_mean_weight(batch)).sum()) == pytest.approx(0.1 * 10 / 4)


def test_without_a_weight_nothing_is_imitated():
    def loss(log_prob, entropy, batch):
        return log_prob, {}

    assert imitating(0.0) is None
    assert with_imitation(loss, 0.0) is loss


def test_tokens_without_an_advantage_count_in_the_mean():
    batch = rows(**BATCH)
    batch["window"] = batch["mask"]
    assert window_mean_weight(batch)[batch["mask"]].tolist() == [pytest.approx(0.2)] * 5

"""Conversations: what the policy wrote is learnt from as it was recorded, and nothing else is."""

from __future__ import annotations

import pickle

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.conversations import demonstrated, played
from policysmith.experience.prompts import Prompt
from policysmith.experience.world_prompts import Table, from_world, world_of
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.samples import Samples, Written, collate
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.policies.language.turns import PlainTurns
from policysmith.worlds.guessing import halving
from policysmith.worlds.text import TextStep


class Echo:
    """Lasts `seed` turns, pays turn / 10 for each, and says how long the text was."""

    def reset(self, seed):
        self.turns, self.turn = seed, 0
        return TextStep(f"{seed} turns")

    def step(self, text):
        self.turn += 1
        return TextStep(f"{len(text)} long", self.turn / 10, self.turn == self.turns)


class Sayings:
    """An engine that writes what it is told to, whatever the policy thinks."""

    def __init__(self, policy, *answers, finished=True):
        self.policy, self.answers, self.finished, self.asked = policy, list(answers), finished, []

    def sample(self, requests, sampling, *, rng, version=0):
        self.asked.append(requests)
        answer = self.answers.pop(0)
        written = [
            Written(answer[: r.limit], [-0.5] * len(answer[: r.limit]), self.finished) for r in requests
        ]
        batch = collate(requests, written, pad=0, version=version)
        return Samples(batch, list(requests), [""] * len(requests), steps=1, prefilled=10)


@pytest.fixture(scope="module")
def policy():
    policy = small_decoder(0, width=32, layers=2, heads=2, context=128)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(4)  # fresh models are nearly indifferent
    return policy


def groups(*turns):
    return {group: Prompt(f"{count} turns", data={"seed": count}) for group, count in enumerate(turns)}


def play(policy, asked, *, engine=None, limit=5, copies=2, seed=0, version=0, **table):
    table.setdefault("world", lambda prompt: Echo())
    sampling = Sampling(limit=limit, temperature=0.9)
    sampler = played(policy, engine or LocalEngine(policy), sampling, copies=copies, table=Table(**table))
    return sampler(asked, rng=torch.Generator().manual_seed(seed), version=version)


def pieces(samples, row):
    """The tokens behind the opening as (turn, tokens), the world's words as turn 0."""
    begin, end = int(samples.batch["prompt_length"][row]), int(samples.batch["attended"][row].sum())
    found = []
    for token, turn in zip(
        samples.batch["token"][row, begin:end].tolist(),
        samples.batch["turn"][row, begin:end].tolist(),
        strict=True,
    ):
        if not found or found[-1][0] != turn:
            found.append((turn, []))
        found[-1][1].append(token)
    return found


# ---- what a row is -----------------------------------------------------------------------------------


def test_a_row_is_the_conversation_and_its_mask_is_what_the_policy_wrote(policy):
    samples = play(policy, groups(1, 4, 2), version=3)
    batch = samples.batch
    assert torch.equal(batch["mask"], batch["turn"] > 0)
    assert torch.equal(batch["weights_version"], torch.where(batch["mask"], 3, -1))
    assert batch["group_id"].tolist() == [0, 0, 1, 1, 2, 2]
    for row, (count, prompt) in enumerate(zip([1, 1, 4, 4, 2, 2], samples.about, strict=True)):
        episode = prompt.data["episode"]
        assert prompt.data["seed"] == count == len(episode.texts)
        said = pieces(samples, row)
        assert [turn for turn, _ in said] == [part for t in range(1, count + 1) for part in (t, 0)][:-1]
        assert [policy.decode(token) for turn, token in said if turn] == episode.texts
        replies = [policy.decode(token) for turn, token in said if not turn]
        assert replies == [f"\n{len(text)} long\n" for text in episode.texts[:-1]]
        assert samples.answer(row) == [t for _, token in said for t in token]
        assert policy.decode(samples.requests[row].prompt) == f"{count} turns\n"
    assert batch["finished"].all()


def test_the_learner_sees_what_was_recorded_turn_by_turn(policy):
    batch = play(policy, groups(1, 4, 2)).batch
    scored, _ = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"], temperature=0.9)
    torch.testing.assert_close(batch["behaviour_log_prob"], scored, atol=1e-4, rtol=0)
    assert batch["behaviour_log_prob"][batch["mask"]].lt(0).all()
    assert not batch["behaviour_log_prob"][~batch["mask"]].any()


def test_rewards_lie_on_the_last_token_of_their_turn(policy):
    samples = play(policy, groups(1, 3))
    batch = samples.batch
    torch.testing.assert_close(batch["reward"], torch.tensor([0.1, 0.1, 0.6, 0.6]))
    for row in range(4):
        paid = batch["token_reward"][row].nonzero()[:, 0]
        turns = batch["turn"][row][paid]
        torch.testing.assert_close(batch["token_reward"][row][paid], turns / 10)
        assert turns.tolist() == list(range(1, len(turns) + 1))
        # The next token is the world's, or there is none.
        assert not torch.nn.functional.pad(batch["turn"][row], (0, 1))[paid + 1].any()


def test_what_is_written_is_never_made_into_other_tokens(policy):
    unknown, a, end = policy.tokenizer.unk_token_id, *policy.encode("a"), policy.tokenizer.eos_token_id
    # `<unk>` is not in the text that the world is told, and no text would bring it back.
    engine = Sayings(policy, [a, unknown, end], [unknown, a, end])
    samples = play(policy, groups(2), engine=engine, copies=1)
    assert [token for turn, token in pieces(samples, 0) if turn] == [[a, unknown, end], [unknown, a, end]]
    assert samples.about[0].data["episode"].texts == ["a", "a"]
    second = engine.asked[1][0]
    assert list(second.prefix) == samples.answer(0)[: len(second.prefix)]
    assert second.prefix_learnt == [True] * 3 + [False] * len("\n1 long\n")


def test_only_conversations_that_go_on_are_asked_again(policy):
    end = [policy.tokenizer.eos_token_id]
    engine = Sayings(policy, *[end] * 4)
    play(policy, groups(1, 4, 2), engine=engine)
    rows = [[(r.group_id, r.copy) for r in requests] for requests in engine.asked]
    assert rows == [[(g, c) for g in going for c in (0, 1)] for going in ((0, 1, 2), (1, 2), (1,), (1,))]


# ---- repeatable --------------------------------------------------------------------------------------


def test_the_same_generator_plays_the_same_and_moves_the_same_whatever_is_said(policy):
    assert play(policy, groups(1, 4)).texts == play(policy, groups(1, 4)).texts
    assert play(policy, groups(1, 4)).texts != play(policy, groups(1, 4), seed=1).texts
    sampler = played(
        policy, LocalEngine(policy), Sampling(limit=5), copies=1, table=Table(world=lambda p: Echo())
    )
    short, long = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    sampler(groups(1), rng=short)
    sampler(groups(5), rng=long)
    assert torch.equal(short.get_state(), long.get_state())


def test_a_conversation_is_the_same_in_any_company(policy):
    whole, alone = play(policy, groups(1, 4, 2)), play(policy, {1: groups(1, 4, 2)[1]})
    assert alone.texts == whole.texts[2:4]
    assert len(set(whole.texts)) == 6


def test_prompts_of_a_world_are_its_episodes(policy):
    prompts = from_world("guessing-game", size=5, seed=0, high=7)
    assert len({prompt.data["seed"] for prompt in prompts}) == 5
    assert prompts.fingerprint == from_world("guessing-game", size=5, seed=0, high=7).fingerprint
    assert prompts.fingerprint != from_world("guessing-game", size=5, seed=1, high=7).fingerprint
    samples = play(policy, dict(enumerate(prompts)), world=world_of)
    assert all(
        prompt.data["episode"].steps[0].observation == "Guess from 1 to 7." for prompt in samples.about
    )
    assert samples.batch["log", "success"].mean() == samples.batch["reward"].mean()


def test_samples_can_be_sent_to_another_process(policy):
    samples = play(policy, groups(2))
    again = pickle.loads(pickle.dumps(samples.about))
    assert [p.data["episode"].texts for p in again] == [p.data["episode"].texts for p in samples.about]


# ---- limits ------------------------------------------------------------------------------------------


def test_a_conversation_cut_by_its_turns_is_not_finished(policy):
    samples = play(policy, groups(2, 3, 5), turns=3, copies=1)
    assert samples.batch["finished"].tolist() == [True, True, False]
    assert [p.data["episode"].ended for p in samples.about] == ["done", "done", "the limit of turns"]
    assert samples.batch["log", "cut_by_turns"].tolist() == [0, 0, 1]
    assert samples.batch["log", "turns"].tolist() == [2, 3, 3]
    assert pieces(samples, 2)[-1][0] == 3  # whole turns, the policy's last


def test_a_conversation_cut_by_its_tokens_ends_behind_a_whole_turn(policy):
    a, end = *policy.encode("a"), policy.tokenizer.eos_token_id
    opening, reply = len("4 turns\n"), len("\n1 long\n")
    # Room for two answers and the reply between them, and one token short of a third answer.
    tokens = opening + 2 + reply + 2 + reply
    samples = play(policy, groups(4), engine=Sayings(policy, *[[a, end]] * 2), copies=1, tokens=tokens)
    assert not samples.batch["finished"].any()
    assert samples.about[0].data["episode"].ended == "the limit of tokens"
    assert [turn for turn, _ in pieces(samples, 0)] == [1, 0, 2]
    torch.testing.assert_close(samples.batch["reward"], torch.tensor([0.1 + 0.2]))
    assert samples.batch["log", "cut_by_tokens"].tolist() == [1]


def test_an_answer_that_the_conversations_limit_cuts_is_told_to_nobody(policy):
    a = policy.encode("a")
    engine = Sayings(policy, a * 5, a * 5, finished=False)
    tokens = len("4 turns\n") + 5 + len("\n5 long\n") + 3
    samples = play(policy, groups(4), engine=engine, copies=1, tokens=tokens)
    episode = samples.about[0].data["episode"]
    assert episode.texts == ["aaaaa"]  # cut by its own limit, and told as it is
    assert [token for turn, token in pieces(samples, 0) if turn] == [a * 5, a * 3]
    assert (episode.ended, bool(samples.batch["finished"][0])) == ("the limit of tokens", False)


def test_a_last_answer_that_just_fits_counts(policy):
    a, end = *policy.encode("a"), policy.tokenizer.eos_token_id
    tokens = len("1 turns\n") + 2
    samples = play(policy, groups(1), engine=Sayings(policy, [a, end]), copies=1, tokens=tokens)
    assert samples.batch["finished"].all()
    assert samples.batch["reward"].tolist() == [pytest.approx(0.1)]


def test_what_the_calls_cost_is_added_up(policy):
    end = [policy.tokenizer.eos_token_id]
    samples = play(policy, groups(3), engine=Sayings(policy, *[end] * 3))
    assert (samples.steps, samples.prefilled) == (3, 30)


# ---- demonstrations ----------------------------------------------------------------------------------


def test_a_player_is_written_down_to_be_imitated(policy):
    prompts = dict(enumerate(from_world("guessing-game", size=8, seed=0)))
    samples = demonstrated(policy, halving)(prompts, rng=torch.Generator())
    assert samples.batch["reward"].tolist() == [1.0] * 8
    assert not samples.batch["behaviour_log_prob"].any()
    assert samples.batch["weights_version"].eq(-1).all()
    for row, prompt in enumerate(samples.about):
        spoken = [token for turn, token in pieces(samples, row) if turn]
        assert [policy.decode(token) for token in spoken] == prompt.data["episode"].texts
        assert all(token[-1] == policy.tokenizer.eos_token_id for token in spoken)


def test_a_demonstration_has_its_limits_too(policy):
    prompts = {0: Prompt("x", data={"seed": 3})}
    table = Table(world=lambda prompt: Echo(), tokens=len("3 turns\n") + 4)
    samples = demonstrated(policy, lambda episode: "too long", table=table)(prompts, rng=torch.Generator())
    assert samples.texts == ["too "]
    assert not samples.batch["finished"].any()


# ---- what goes wrong ---------------------------------------------------------------------------------


class Faulty(Echo):
    """Breaks in its second turn; counts who was closed."""

    closed = 0

    def step(self, text):
        if self.turn == 1 and self.turns == 3:
            raise RuntimeError("no light")
        return super().step(text)

    def close(self):
        Faulty.closed += 1


def test_a_world_that_fails_stops_the_run_and_leaves_no_world_open(policy):
    Faulty.closed = 0
    with pytest.raises(DataError, match="the world 'Faulty' raised RuntimeError: no light") as caught:
        play(policy, groups(2, 3), copies=1, world=lambda prompt: Faulty())
    assert caught.value.where.startswith("episode of seed 3, turn 2, told ")
    assert Faulty.closed == 2


def test_or_ends_its_conversation_alone(policy):
    samples = play(policy, groups(2, 3), copies=1, world=lambda prompt: Faulty(), on_error="end")
    assert samples.batch["finished"].tolist() == [True, False]
    torch.testing.assert_close(samples.batch["reward"], torch.tensor([0.3, 0.1]))
    assert samples.batch["log", "failed_worlds"].tolist() == [0, 1]
    assert "no light" in samples.about[1].data["episode"].ended
    assert pieces(samples, 1)[-1][0] == 2  # what was said last is kept, without a reward


def test_prompts_and_limits_that_cannot_be_played_are_refused(policy):
    with pytest.raises(DataError, match="the seed of an episode is None") as caught:
        play(policy, {0: Prompt("a question")})
    assert caught.value.where == "prompt 'a question', data['seed']"
    with pytest.raises(DataError, match="an opening of 8 tokens leaves no room") as caught:
        play(policy, groups(1), tokens=8)
    assert caught.value.expected == "less than 8 tokens"
    with pytest.raises(SettingError, match="a limit of 0 turns"):
        Table(turns=0)
    with pytest.raises(SettingError, match="1 prompts with 0 conversations"):
        play(policy, groups(1), copies=0)


def test_plain_turns_may_be_laid_out_otherwise(policy):
    samples = play(policy, groups(1), form=PlainTurns(policy, system="Play: ", after=" ="))
    assert policy.decode(samples.requests[0].prompt) == "Play: 1 turns ="

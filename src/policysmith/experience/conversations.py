"""Conversations with text worlds: a sampler that answers a prompt by playing an episode.

    prompts = from_world("guessing-game", size=1000, seed=0)                (world_prompts)
    sampler = played(policy, LocalEngine(policy), Sampling(limit=8), copies=8)

Every turn is one call of the engine for all conversations that still go on, each with all of itself so far in
front. A conversation is one row: tokens that the policy wrote are learnt from (`mask`) with what was recorded
when they were drawn; what the world said lies between them and is in no loss. Copies of a group play the same
episode, from the same seed; what they are told differs only by what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import draw_seed, generator
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import Groups, Sampler
from policysmith.experience.world_prompts import USUAL, Table
from policysmith.policies.language.engine import Engine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.turns import Turns, turns_of
from policysmith.worlds.text import Episode, Player

TOKENS, TURNS = "the limit of tokens", "the limit of turns"
"""Why a conversation was cut, in its episode's `ended`."""


def played(
    policy: LanguagePolicy, engine: Engine, sampling: Sampling, *, copies: int, table: Table = USUAL
) -> Sampler:
    """A sampler that plays `copies` conversations per prompt; `sampling.limit` is that of one answer.

    The samples are one row per conversation. `texts` and `answer` are all that follows the opening, the
    world's words included; `finished` says that the world ended it. Beside the usual entries there are

    - `turn` [row, time]: which of the policy's turns wrote the token, from 1; 0 where none did;
    - `token_reward` [row, time]: the reward of a turn, on its last token;
    - `reward` [row]: their sum;

    and `about` is the prompt with the row's `Episode` as `data["episode"]`. Raises `DataError` for a prompt
    without a seed, an opening that leaves no room for an answer, and whatever a world does wrong.
    """
    usual = copies

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        seed, steps, prefilled = draw_seed(rng), 0, 0

        def speak(going: Sequence[Conversation], turn: int) -> list[Written]:
            nonlocal steps, prefilled
            requests = [one.request(limit=min(sampling.limit, one.room)) for one in going]
            # A generator per turn, so that the run's own moves as far however long the conversations are.
            answers = engine.sample(requests, sampling, rng=generator(seed, "turn", turn), version=version)
            steps, prefilled = steps + answers.steps, prefilled + answers.prefilled
            return [_drawn(answers, row) for row in range(len(answers))]

        conversations = _begin(policy, table, groups, usual if copies is None else copies)
        _hold(conversations, table, speak, version=version, enough=sampling.limit)
        samples = _gathered(conversations, policy)
        return replace(samples, steps=steps, prefilled=prefilled)

    return sample


def demonstrated(policy: LanguagePolicy, player: Player, *, copies: int = 1, table: Table = USUAL) -> Sampler:
    """A sampler like `played` in which `player` speaks, in the tokens of `policy`, to be imitated.

    `mask` is True on what the player said, the end token included; nobody drew it, so `behaviour_log_prob` is
    0 and `weights_version` -1.
    """
    usual = copies

    def speak(going: Sequence[Conversation], turn: int) -> list[Written]:
        written = []
        for one in going:
            token = [*policy.encode(player(one.episode)), policy.end_tokens[0]]
            written.append(Written(token[: one.room], [0.0] * len(token[: one.room]), len(token) <= one.room))
        return written

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        conversations = _begin(policy, table, groups, usual if copies is None else copies)
        _hold(conversations, table, speak, version=-1, enough=policy.context + 1)
        return _gathered(conversations, policy)

    return sample


@dataclass
class Conversation:
    """A conversation as a row of tokens: its `opening`, and behind it each token with what is known of it.

    - `turn`: which of the policy's turns wrote it, from 1, 0 for what the world said; `reward`: of a turn, on
      its last token; `log_prob`, `version`: as recorded when it was drawn.
    - `limit`: at most so many tokens, the opening included.
    """

    prompt: Prompt
    group_id: int
    copy: int
    episode: Episode
    policy: LanguagePolicy
    form: Turns
    opening: list[int]
    limit: int
    token: list[int] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)

    @property
    def room(self) -> int:
        """How many more tokens there may be."""
        return self.limit - len(self.opening) - len(self.token)

    def request(self, *, limit: int | None = None) -> Request:
        """What asks for the next answer."""
        return Request(
            self.opening,
            group_id=self.group_id,
            copy=self.copy,
            prefix=list(self.token),
            prefix_learnt=[turn > 0 for turn in self.turn],
            prefix_log_prob=list(self.log_prob),
            prefix_version=list(self.version),
            limit=limit,
            about=self.prompt,
        )

    def add(self, token: list[int], *, turn: int, log_prob: list[float], version: int) -> None:
        """Append what the policy wrote in its `turn`, or, with 0, what the world said."""
        count = len(token)
        self.token += token
        self.turn += [turn] * count
        self.log_prob += log_prob
        self.version += [version] * count
        self.reward += [0.0] * count

    def hear(self, said: str) -> bool:
        """Append the world's reply; False, and nothing appended, where no answer would fit behind it."""
        reply = self.form.reply(said, self.token[-1])
        if len(reply) >= self.room:
            return False
        self.add(reply, turn=0, log_prob=[0.0] * len(reply), version=-1)
        return True


_Speak = Callable[[Sequence[Conversation], int], list[Written]]
"""(conversations that go on, the turn's number) -> what is said in each."""


def _begin(policy: LanguagePolicy, table: Table, groups: Groups, copies: int) -> list[Conversation]:
    if copies < 1 or not groups:
        raise SettingError(
            f"{len(groups)} prompts with {copies} conversations each", expected="at least 1 of both"
        )
    form = turns_of(policy) if table.form is None else table.form
    limit = policy.context if table.tokens is None else min(table.tokens, policy.context)
    return [
        _begun(prompt, policy, table, form=form, limit=limit, group_id=group, copy=copy)
        for group, prompt in groups.items()
        for copy in range(copies)
    ]


def _begun(
    prompt: Prompt,
    policy: LanguagePolicy,
    table: Table,
    *,
    form: Turns,
    limit: int,
    group_id: int,
    copy: int,
) -> Conversation:
    if not isinstance(seed := prompt.data.get("seed"), int):
        raise DataError(
            f"the seed of an episode is {seed!r:.40}",
            where=f"prompt {str(prompt.text)[:80]!r}, data['seed']",
            expected="a whole number",
            cure="make the prompts by from_world, or give rows a column 'seed'",
        )
    episode = Episode(table.world(prompt), seed, name=prompt.data.get("world", ""))
    opening = form.opening(episode.steps[0].observation)
    if len(opening) >= limit:
        raise DataError(
            f"an opening of {len(opening)} tokens leaves no room for an answer",
            where=f"world '{episode.name}', episode of seed {seed}",
            expected=f"less than {limit} tokens",
            cure="let the world say less, or raise the limit of tokens",
        )
    row = replace(prompt, data={**prompt.data, "episode": episode})
    return Conversation(row, group_id, copy, episode, policy, form, opening, limit)


def _hold(
    conversations: Sequence[Conversation], table: Table, speak: _Speak, *, version: int, enough: int
) -> None:
    """Hold all conversations to their ends, a turn of each at a time.

    `enough` is what an answer may have where the conversation's own limit does not cut it.
    """
    turn = 0
    try:
        while going := [one for one in conversations if not one.episode.ended]:
            turn += 1
            rooms = [one.room for one in going]
            for one, room, answer in zip(going, rooms, speak(going, turn), strict=True):
                one.add(answer.token, turn=turn, log_prob=answer.log_prob, version=version)
                if not answer.finished and room < enough:
                    one.episode.close(TOKENS)  # half an answer is told to nobody
                else:
                    _tell(one, table, turn, answer)
    finally:
        for one in conversations:
            one.episode.close("an error elsewhere")


def _tell(one: Conversation, table: Table, turn: int, answer: Written) -> None:
    """Tell the world what was said, and put down its reward and its reply."""
    try:
        step = one.episode.step(one.policy.decode(answer.token))
    except DataError as error:
        if table.on_error == "stop":
            raise
        one.episode.close(str(error))
        return
    one.reward[-1] = float(step.reward)
    if step.done:
        return
    if table.turns is not None and turn >= table.turns:
        one.episode.close(TURNS)
    elif not one.hear(step.observation):
        one.episode.close(TOKENS)


def _drawn(answers: Samples, row: int) -> Written:
    """What was drawn now for a row, without the conversation in front of it."""
    batch = answers.batch
    begin = int(batch["prompt_length"][row] + batch["prefix_length"][row])
    end = int(batch["attended"][row].sum())
    return Written(
        batch["token"][row, begin:end].tolist(),
        batch["behaviour_log_prob"][row, begin:end].tolist(),
        bool(batch["finished"][row]),
    )


def _gathered(conversations: Sequence[Conversation], policy: LanguagePolicy) -> Samples:
    """Conversations as samples, a row each."""
    ended = [one.episode.ended for one in conversations]
    batch = collate(
        [one.request() for one in conversations],
        [Written([], [], why == "done") for why in ended],
        pad=policy.tokenizer.pad_token_id,
        version=-1,
    )
    batch["prefix_length"].zero_()  # behind the opening comes what was drawn
    batch["turn"] = torch.zeros_like(batch["token"])
    batch["token_reward"] = torch.zeros_like(batch["behaviour_log_prob"])
    for row, one in enumerate(conversations):
        behind = slice(len(one.opening), len(one.opening) + len(one.token))
        batch["turn"][row, behind] = torch.tensor(one.turn)
        batch["token_reward"][row, behind] = torch.tensor(one.reward)
    batch["reward"] = batch["token_reward"].sum(1)
    requests = [
        Request(one.opening, group_id=one.group_id, copy=one.copy, about=one.prompt) for one in conversations
    ]
    samples = Samples(batch, requests, [policy.decode(one.token) for one in conversations])
    _log(samples, [one.episode for one in conversations])
    return samples


def _log(samples: Samples, episodes: Sequence[Episode]) -> None:
    ended = [episode.ended for episode in episodes]
    samples.log("reward", samples.batch["reward"])
    samples.log("turns", [len(episode.texts) for episode in episodes])
    samples.log("answer_tokens", samples.batch["mask"].sum(1))
    samples.log("finished", samples.batch["finished"])
    samples.log("cut_by_tokens", [why == TOKENS for why in ended])
    samples.log("cut_by_turns", [why == TURNS for why in ended])
    samples.log("failed_worlds", [why not in ("done", TOKENS, TURNS) for why in ended])
    success = [episode.success for episode in episodes]
    if None not in success:
        samples.log("success", success)
    told = [episode.told for episode in episodes]
    for name in sorted(set.intersection(*map(set, told))):
        samples.log(f"world/{name}", [one[name] for one in told])

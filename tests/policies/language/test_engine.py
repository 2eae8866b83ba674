"""The engine: what it records is what the models say, and company, slots and order change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError, DataError, SettingError, ShapeError
from policysmith.policies.language import llama_decoder
from policysmith.policies.language.decoders import LlamaDecoder, ModuleDecoder, decoder
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, group_requests
from policysmith.policies.language.sampling import Sampling, geometric_mixture

PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25, 26], [30]]
LIMIT = 20


def write(policy, requests=None, *, seed=0, sampling=None, version=0, **options):
    rng = torch.Generator().manual_seed(seed)
    requests = group_requests(PROMPTS, 4) if requests is None else requests
    sampling = Sampling(limit=LIMIT, temperature=0.9) if sampling is None else sampling
    return LocalEngine(policy, **options).sample(requests, sampling, rng=rng, version=version)


def answers(samples):
    return [samples.answer(row) for row in range(len(samples))]


def log_prob(policy, samples, temperature=0.9):
    """By the module itself, with whole logits."""
    token, mask = samples.batch["token"], samples.batch["mask"]
    with torch.no_grad():
        logits = policy.model(input_ids=token, attention_mask=torch.ones_like(token)).logits
    log_p = (logits[:, :-1] / temperature).log_softmax(-1).gather(2, token[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(log_p, (1, 0)) * mask


# ---- what is recorded --------------------------------------------------------------------------------


def test_recorded_log_probabilities_are_those_of_transformers(any_policy):
    samples = write(any_policy)
    recorded = samples.batch["behaviour_log_prob"]
    torch.testing.assert_close(recorded, log_prob(any_policy, samples), atol=1e-4, rtol=0)
    assert recorded[samples.batch["mask"]].lt(0).all()


def test_the_learner_sees_what_the_engine_recorded(any_policy):
    batch = write(any_policy).batch
    scored, _ = any_policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"], temperature=0.9)
    torch.testing.assert_close(scored, batch["behaviour_log_prob"], atol=1e-4, rtol=0)


def test_llama_and_its_kin_take_the_fast_path_and_it_writes_what_the_module_writes(make_tiny, monkeypatch):
    assert isinstance(decoder(make_tiny("gpt2")), ModuleDecoder)
    for kind in ("llama", "qwen2"):
        policy = make_tiny(kind)
        assert isinstance(decoder(policy), LlamaDecoder)
        fast = answers(write(policy))
        with monkeypatch.context() as patch:
            patch.setattr(LlamaDecoder, "knows", staticmethod(lambda policy: False))
            assert answers(write(policy)) == fast


def test_greedy_answers_are_those_of_generate(any_policy):
    prompt = PROMPTS[1]
    with torch.no_grad():
        theirs = any_policy.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=LIMIT,
        )
    samples = write(any_policy, [Request(prompt)], sampling=Sampling(limit=LIMIT, temperature=0))
    assert samples.answer(0) == theirs[0, len(prompt) :].tolist()


def test_a_batch_is_laid_out_as_it_says(policy):
    samples = write(policy, version=7)
    batch = samples.batch
    for row, request in enumerate(samples.requests):
        begin, end = len(request.prompt), len(request.prompt) + len(samples.answer(row))
        assert batch["token"][row, :begin].tolist() == list(request.prompt)
        assert batch["mask"][row].nonzero()[:, 0].tolist() == list(range(begin, end))
        assert batch["attended"][row].sum() == end
        assert batch["token"][row, end:].eq(policy.tokenizer.pad_token_id).all()
        assert batch["weights_version"][row].tolist() == [7 if m else -1 for m in batch["mask"][row]]
        assert samples.texts[row] == policy.decode(samples.answer(row))
    assert batch["group_id"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_rows_end_at_an_end_token_and_only_there_or_at_the_limit(policy):
    samples = write(policy)
    for row, answer in enumerate(answers(samples)):
        finished = bool(samples.batch["finished"][row])
        assert finished == (answer[-1] == policy.tokenizer.eos_token_id)
        assert policy.tokenizer.eos_token_id not in answer[:-1]
        assert finished or len(answer) == LIMIT
    assert 0 < int(samples.batch["finished"].sum()) < len(samples)


# ---- company, slots, order ---------------------------------------------------------------------------


def test_a_row_says_the_same_in_any_company(any_policy):
    requests = group_requests(PROMPTS, 4)
    whole = dict(
        zip(((r.group_id, r.copy) for r in requests), answers(write(any_policy, requests)), strict=True)
    )
    some = [requests[index] for index in (9, 2, 4)]
    assert answers(write(any_policy, some)) == [whole[r.group_id, r.copy] for r in some]


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_rows_that_wait_for_a_slot_say_the_same(any_policy, slots):
    samples, few = write(any_policy), write(any_policy, slots=slots)
    assert answers(few) == answers(samples)
    torch.testing.assert_close(
        few.batch["behaviour_log_prob"], samples.batch["behaviour_log_prob"], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("slots", [None, 3])
@pytest.mark.parametrize(("first", "together"), [(2, 1), (4, 3), (4, 4), (8, 16)])
def test_columns_that_are_read_before_they_are_written_are_not_seen(
    policy, monkeypatch, slots, first, together
):
    expected = write(policy, slots=slots)
    monkeypatch.setattr(llama_decoder, "FIRST_BLOCK", first)
    monkeypatch.setattr(llama_decoder, "READ_TOGETHER", together)
    samples = write(policy, slots=slots)
    assert answers(samples) == answers(expected)
    torch.testing.assert_close(
        samples.batch["behaviour_log_prob"], expected.batch["behaviour_log_prob"], atol=1e-5, rtol=0
    )


def test_slots_are_refilled_as_soon_as_rows_end(policy):
    requests = [Request([10 + row], group_id=row, limit=1 + row % 5) for row in range(20)]
    samples = write(policy, requests, slots=4)
    # In waves of four each row would wait for the slowest of its wave; the first token comes from the prompt.
    waves = sum(max(len(a) for a in answers(samples)[i : i + 4]) - 1 for i in range(0, 20, 4))
    assert samples.steps < waves


def test_a_prompt_is_run_once_for_its_group(any_policy):
    assert write(any_policy).prefilled == sum(map(len, PROMPTS))


def test_long_lists_of_prompts_are_run_in_parts(policy, monkeypatch):
    whole = answers(write(policy))
    monkeypatch.setattr(llama_decoder, "PREFILL_TOKENS", 8)
    assert answers(write(policy)) == whole


def test_seeds_groups_and_copies_differ(policy):
    samples = write(policy, group_requests([PROMPTS[0]] * 2, 4))
    assert len(set(map(tuple, answers(samples)))) == 8
    assert answers(write(policy, seed=1)) != answers(write(policy))
    assert answers(write(policy)) == answers(write(policy))


def test_generators_advance_so_that_calls_differ(policy):
    rng = torch.Generator().manual_seed(0)
    engine, requests = LocalEngine(policy), group_requests(PROMPTS, 2)
    first, second = (engine.sample(requests, Sampling(limit=9), rng=rng) for _ in range(2))
    assert answers(first) != answers(second)


# ---- limits, stops, prefixes -------------------------------------------------------------------------


def test_limits_are_a_rows_own(policy):
    requests = [Request(PROMPTS[0], copy=copy, limit=limit) for copy, limit in enumerate((1, 5, None))]
    lengths = [len(answer) for answer in answers(write(policy, requests, sampling=Sampling(limit=8)))]
    assert lengths[0] == 1
    assert lengths[1] <= 5
    assert lengths[2] <= 8


def test_a_stop_string_ends_the_answer_that_completes_it(policy):
    free = write(policy)
    row = max(range(len(free)), key=lambda row: len(free.texts[row]))
    stop = free.texts[row][6:8]
    cut = free.texts[row].index(stop) + 2
    stopped = write(policy, sampling=Sampling(limit=LIMIT, temperature=0.9, stop=(stop, "never said")))
    assert stopped.texts[row] == free.texts[row][:cut]
    assert stopped.batch["finished"][row]
    for before, after in zip(free.texts, stopped.texts, strict=True):
        assert before.startswith(after)
        assert after == before or after.endswith(stop)


def test_a_stop_string_may_begin_in_the_prefix_but_not_end_there(policy):
    free = write(policy)
    row = max(range(len(free)), key=lambda row: len(free.texts[row]))
    going_on = replace(free.requests[row], prefix=free.answer(row)[:7])
    alone = write(policy, [going_on]).texts[0]

    def with_stop(stop: str) -> str:
        sampling = Sampling(limit=LIMIT, temperature=0.9, stop=(stop,))
        return write(policy, [going_on], sampling=sampling).texts[0]

    assert with_stop(alone[6:8]) == alone[:8]
    assert alone[5:7] not in alone[6:]
    assert with_stop(alone[5:7]) == alone


def test_a_hint_is_given_shared_and_not_learnt(any_policy):
    hint = [40, 41, 42]
    requests = [Request(PROMPTS[1], copy=copy, prefix=hint) for copy in range(3)]
    samples = write(any_policy, requests)
    begin = len(PROMPTS[1])
    assert samples.prefilled == begin + 3
    assert all(answer[:3] == hint for answer in answers(samples))
    assert not samples.batch["mask"][:, : begin + 3].any()
    assert not samples.batch["behaviour_log_prob"][:, : begin + 3].any()
    torch.testing.assert_close(
        samples.batch["behaviour_log_prob"], log_prob(any_policy, samples), atol=1e-4, rtol=0
    )
    # What is drawn is what would be drawn with the hint as a part of the prompt.
    as_prompt = [Request([*PROMPTS[1], *hint], copy=copy) for copy in range(3)]
    assert [answer[3:] for answer in answers(samples)] == answers(write(any_policy, as_prompt))


def test_a_prefix_that_is_learnt_is_scored_under_the_weights_of_now(any_policy):
    samples = write(any_policy, [Request(PROMPTS[0], prefix=[40, 41, 42], prefix_learnt=[True, False, True])])
    assert samples.batch["mask"][0, 3:6].tolist() == [True, False, True]
    recorded = samples.batch["behaviour_log_prob"]
    torch.testing.assert_close(recorded, log_prob(any_policy, samples), atol=1e-4, rtol=0)


def test_unfinished_rows_go_on_under_other_weights_and_keep_what_was_recorded(any_policy):
    first = write(any_policy, sampling=Sampling(limit=4), version=1)
    waiting = first.unfinished(limit=3)
    assert len(waiting) == int((~first.batch["finished"]).sum()) > 0
    with torch.no_grad():
        for weight in any_policy.parameters():
            weight.mul_(1.3)
    second = write(any_policy, waiting, sampling=Sampling(limit=9), version=2)
    before = [row for row in range(len(first)) if not first.batch["finished"][row]]
    now = second.batch["weights_version"] == 2
    torch.testing.assert_close(
        second.batch["behaviour_log_prob"][now], log_prob(any_policy, second, 1.0)[now], atol=1e-4, rtol=0
    )
    for row, old in enumerate(before):
        begin = len(first.requests[old].prompt)
        assert second.answer(row)[:4] == first.answer(old)
        assert len(second.answer(row)) <= 7
        assert second.batch["weights_version"][row, begin : begin + 4].tolist() == [1] * 4
        assert torch.equal(
            second.batch["behaviour_log_prob"][row, begin : begin + 4],
            first.batch["behaviour_log_prob"][old, begin : begin + 4],
        )


# ---- several models, adapters ------------------------------------------------------------------------


def test_combined_logits_of_two_models_are_drawn_from_and_recorded(make_tiny):
    policy, other = make_tiny("llama"), make_tiny("gpt2", seed=1)
    samples = write(policy, others=[other], combine=geometric_mixture(0.4), sampling=Sampling(limit=9))
    token = samples.batch["token"]
    with torch.no_grad():
        mine, theirs = (
            p.model(input_ids=token, attention_mask=torch.ones_like(token)).logits for p in (policy, other)
        )
    log_p = (0.6 * mine + 0.4 * theirs).log_softmax(-1)[:, :-1].gather(2, token[:, 1:, None])[..., 0]
    mask = samples.batch["mask"]
    torch.testing.assert_close(
        samples.batch["behaviour_log_prob"][:, 1:][mask[:, 1:]], log_p[mask[:, 1:]], atol=1e-4, rtol=0
    )


def test_a_mixture_with_nothing_of_the_other_is_the_policy(make_tiny):
    policy, other = make_tiny("llama"), make_tiny("gpt2", seed=1)
    assert answers(write(policy, others=[other], combine=geometric_mixture(0))) == answers(write(policy))


@pytest.mark.parametrize("fused", [0, 1 << 22])
def test_adapters_are_written_with_and_left_out_as_the_module_does(make_tiny, monkeypatch, fused):
    pytest.importorskip("peft")
    monkeypatch.setattr(llama_decoder, "FUSED_WEIGHTS", fused)
    plain = answers(write(make_tiny("qwen2")))
    policy = make_tiny("qwen2").with_lora(4)
    assert answers(write(policy)) == plain  # adapters begin as nothing
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.3)
    samples = write(policy)
    assert answers(samples) != plain
    torch.testing.assert_close(
        samples.batch["behaviour_log_prob"], log_prob(policy, samples), atol=1e-4, rtol=0
    )
    with policy.without_lora():
        assert answers(write(policy)) == plain


def test_weights_are_read_where_they_lie(policy):
    engine = LocalEngine(policy)
    requests, rng = group_requests(PROMPTS, 4), torch.Generator()
    before = answers(engine.sample(requests, Sampling(limit=9), rng=rng.manual_seed(0)))
    with torch.no_grad():
        policy.body.layers[0].mlp.down_proj.weight.neg_()
    after = engine.sample(requests, Sampling(limit=9), rng=rng.manual_seed(0))
    assert answers(after) != before
    torch.testing.assert_close(
        after.batch["behaviour_log_prob"], log_prob(policy, after, 1.0), atol=1e-4, rtol=0
    )


def test_samples_may_be_learnt_from(policy):
    batch = write(policy).batch
    policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])[0].sum().backward()
    assert policy.head.grad.abs().sum() > 0


# ---- bad input ---------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused_by_name(policy):
    request = Request([5] * 70, group_id=3, copy=2)
    with pytest.raises(SettingError, match="do not fit the context") as caught:
        write(policy, [Request([5]), request])
    assert caught.value.where == "group 3, copy 2"
    assert caught.value.cure == "drop or shorten the prompt"
    with pytest.raises(SettingError, match="limit of 20") as caught:
        write(policy, [Request([5] * 50)])
    assert caught.value.cure == "lower the limit"


def test_rows_that_cannot_be_written_are_refused(policy):
    with pytest.raises(DataError, match="an empty prompt"):
        Request([])
    with pytest.raises(SettingError, match="limit of 0"):
        Request([1], limit=0)
    with pytest.raises(ShapeError, match="1 log-probabilities for a prefix of 2"):
        Request([1], prefix=[2, 3], prefix_log_prob=[-1.0])
    with pytest.raises(SettingError, match="0 answers"):
        group_requests(PROMPTS, 0)
    with pytest.raises(DataError, match="nothing to write"):
        write(policy, [])
    with pytest.raises(DataError, match="same group and copy"):
        write(policy, [Request([5]), Request([6])])


def test_engines_that_cannot_be_built_are_refused(policy, make_tiny):
    with pytest.raises(SettingError, match="0 slots"):
        LocalEngine(policy, slots=0)
    with pytest.raises(SettingError, match="go together"):
        LocalEngine(policy, others=[policy])
    smaller = make_tiny("gpt2")
    smaller.model.resize_token_embeddings(120)
    with pytest.raises(CapabilityError, match="vocabularies of 99 and 120"):
        LocalEngine(
            policy, others=[LanguagePolicy(smaller.model, smaller.tokenizer)], combine=geometric_mixture(0.5)
        )

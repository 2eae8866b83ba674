"""Language policies: their log-probabilities are the model's own, however the rows are run."""

from __future__ import annotations

import copy
import json

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError, DataError, FileError, SettingError, ShapeError
from policysmith.policies.language import policy as module
from policysmith.policies.language.critic import LanguageCritic
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.shared_prompts import share_prompts


def rows_of_two_groups(rng):
    """Six rows, two prompts, answers of unequal length, one with a token that the policy did not write."""
    token = torch.randint(3, 90, (6, 12), generator=rng)
    token[:3, :5], token[3:, :3] = token[0, :5].clone(), token[3, :3].clone()
    mask = torch.zeros(6, 12, dtype=torch.bool)
    mask[:3, 5:], mask[3:, 3:10] = True, True
    mask[1, 7], mask[2, 9:] = False, False
    attended = torch.ones_like(mask)
    attended[3:, 10:], attended[2, 9:] = False, False
    return token, attended, mask


def by_transformers(policy, token, mask, temperature=1.0):
    log_p = (
        policy.model(input_ids=token, attention_mask=torch.ones_like(token)).logits / temperature
    ).log_softmax(-1)
    log_prob = log_p[:, :-1].gather(2, token[:, 1:, None])[..., 0]
    entropy = -(log_p.exp() * log_p).sum(-1)[:, :-1]
    pad = torch.nn.functional.pad
    return pad(log_prob, (1, 0)) * mask, pad(entropy, (1, 0)) * mask


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_those_of_the_models_own_logits(any_policy, rng, temperature):
    token, attended, mask = rows_of_two_groups(rng)
    mine = any_policy.log_prob(token, attended, mask=mask, temperature=temperature)
    theirs = by_transformers(any_policy, token, mask, temperature)
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_sharing_prompts_changes_no_gradient(any_policy, rng):
    token, attended, mask = rows_of_two_groups(rng)
    assert any_policy.can_share_prompts
    scale = torch.linspace(-1, 1, 12)
    gradients = []
    for log_prob, entropy in (
        any_policy.log_prob(token, attended, mask=mask),
        by_transformers(any_policy, token, mask),
    ):
        loss = (scale * log_prob + scale.flip(0) * entropy).sum()
        gradients.append(torch.autograd.grad(loss, list(any_policy.parameters()), allow_unused=True))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_a_prompt_is_run_once_for_all_its_answers(rng):
    token, _, mask = rows_of_two_groups(rng)
    layout = share_prompts(token, mask)
    # Prompts of 5 and 3 tokens share 4 and 2; answers of 7, 7, 4 and three times 7 tokens run from the
    # prompt's last token to the one before their own last.
    assert layout.token.numel() == (4 + 2) + (7 + 7 + 4) + (7 + 7 + 7)
    for row in range(6):
        last = int(mask[row].nonzero()[-1])
        assert torch.equal(layout.token[0][layout.source[row]][:last], token[row, :last])
        assert layout.position[0][layout.source[row]][:last].tolist() == list(range(last))


def test_the_state_at_the_end_is_that_of_the_last_attended_token(any_policy, rng):
    token, attended, mask = rows_of_two_groups(rng)
    states = any_policy.body(input_ids=token, attention_mask=torch.ones_like(token)).last_hidden_state
    last = attended.sum(1) - 1
    assert sorted(set(last.tolist())) == [8, 9, 11]
    mine = any_policy.hidden_at_end(token, attended, mask=mask)
    theirs = states[torch.arange(6), last]
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    scale = torch.linspace(-1, 1, mine.numel()).view_as(mine)
    weights = [weight for name, weight in any_policy.named_parameters() if "lm_head" not in name]
    gradients = [
        torch.autograd.grad((scale * found).sum(), weights, allow_unused=True) for found in (mine, theirs)
    ]
    for one, other in zip(*gradients, strict=True):
        if one is not None or other is not None:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_row_as_long_as_the_context_has_an_end_and_one_without_a_token_does_not(policy, rng):
    token = torch.randint(3, 90, (2, policy.context), generator=rng)
    attended = torch.ones_like(token, dtype=torch.bool)
    mask = attended.clone()
    mask[:, :5] = False
    with torch.no_grad():
        found = policy.hidden_at_end(token, attended, mask=mask)
        states = policy.body(input_ids=token, attention_mask=torch.ones_like(token)).last_hidden_state
    torch.testing.assert_close(found, states[:, -1], atol=1e-4, rtol=0)
    attended[1], mask[1] = False, False
    with pytest.raises(DataError, match=r"without a token(.|\n)*row 1"):
        policy.hidden_at_end(token, attended, mask=mask)


def test_rows_with_nothing_in_common_are_run_as_they_are(rng):
    token = torch.arange(40).view(4, 10)
    mask = torch.ones(4, 10, dtype=torch.bool)
    mask[:, 0] = False
    assert share_prompts(token, mask) is None


def test_without_gradients_few_rows_at_a_time_say_the_same(policy, rng, monkeypatch):
    token, attended, mask = rows_of_two_groups(rng)
    whole = policy.log_prob(token, attended, mask=mask)
    monkeypatch.setattr(module, "TOKENS_AT_A_TIME", 24)
    seen = []
    run = policy._run
    monkeypatch.setattr(
        policy, "_run", lambda token, *a, **k: seen.append(token.numel()) or run(token, *a, **k)
    )
    with torch.no_grad():
        parts = policy.log_prob(token, attended, mask=mask)
    assert len(seen) == 3
    assert max(seen) <= 24
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_tokens_outside_the_mask_get_zero_and_padding_counts_for_nothing(policy, rng):
    token, attended, mask = rows_of_two_groups(rng)
    log_prob, entropy = policy.log_prob(token, attended, mask=mask)
    assert not log_prob[~mask].any()
    assert not entropy[~mask].any()
    changed = token.masked_fill(~attended, 7)
    torch.testing.assert_close(policy.log_prob(changed, attended, mask=mask)[0], log_prob)


def test_training_leaves_dropout_off(make_tiny, rng):
    policy = make_tiny("gpt2").train()
    token, attended, mask = rows_of_two_groups(rng)
    assert policy.training
    first, second = (policy.log_prob(token, attended, mask=mask)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("entropy_too", [False, True])
def test_nothing_of_the_size_of_the_logits_is_kept_for_the_way_back(policy, rng, entropy_too):
    token, attended, mask = rows_of_two_groups(rng)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        log_prob, entropy = policy.log_prob(token, attended, mask=mask)
        (log_prob + entropy if entropy_too else log_prob).sum()
    vocabulary = len(policy.head)
    assert not [shape for shape in kept if vocabulary in shape and len(policy.head[0]) not in shape]


# ---- text --------------------------------------------------------------------------------------------


def test_text_without_a_template_is_concatenated(policy):
    assert policy.encode_question("2+3=", system="Add. ") == policy.encode("Add. 2+3=")
    assert policy.decode(policy.encode("2+3=\n 5")) == "2+3=\n 5"


def test_a_conversation_needs_a_template(policy):
    turns = [{"role": "user", "content": "2+3"}]
    with pytest.raises(CapabilityError, match="no chat template"):
        policy.encode_conversation(turns)
    policy.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert policy.encode_conversation(turns) == policy.encode("user:2+3;assistant:")
    assert policy.encode_question("2+3", system="Add") == policy.encode("system:Add;user:2+3;assistant:")


def test_a_missing_padding_token_is_the_end_token_and_said(policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.pad_token = None
    again = LanguagePolicy(policy.model, tokenizer)
    assert again.tokenizer.pad_token_id == again.tokenizer.eos_token_id
    assert "no padding token" in again.notice
    assert policy.notice == ""


def test_neither_padding_nor_end_token_is_refused(policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(CapabilityError, match="neither a padding token nor an end token"):
        LanguagePolicy(policy.model, tokenizer)


def test_a_tokenizer_larger_than_the_model_is_refused(policy):
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.add_tokens(["<think>"])
    with pytest.raises(CapabilityError, match="100 tokens and the model 99"):
        LanguagePolicy(policy.model, tokenizer)


def test_a_model_that_caps_its_logits_is_refused(policy):
    class Capped(type(policy.model)):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits.clamp(-0.1, 0.1)
            return output

    policy.model.__class__ = Capped
    with pytest.raises(CapabilityError, match="more to its logits"):
        LanguagePolicy(policy.model, policy.tokenizer)


# ---- bad input ---------------------------------------------------------------------------------------


def test_what_cannot_be_scored_is_refused(policy, rng):
    token, attended, mask = rows_of_two_groups(rng)
    with pytest.raises(ShapeError, match="row, time"):
        policy.log_prob(token, attended[:, :5], mask=mask)
    with pytest.raises(ShapeError, match="padding before a token"):
        policy.log_prob(token, attended.flip(1), mask=mask)
    with pytest.raises(DataError, match="padding, or the first"):
        policy.log_prob(token, attended, mask=torch.ones_like(mask))
    long = torch.zeros(1, 65, dtype=torch.long)
    with pytest.raises(SettingError, match="context of 64"):
        policy.log_prob(long, torch.ones(1, 65, dtype=torch.bool))


def test_a_mask_of_nothing_scores_nothing(policy, rng):
    token, attended, mask = rows_of_two_groups(rng)
    log_prob, _ = policy.log_prob(token, attended, mask=torch.zeros_like(mask))
    assert not log_prob.any()


def test_a_model_that_is_nowhere_is_said_to_be(tmp_path):
    with pytest.raises(FileError, match="no model of that name can be reached"):
        LanguagePolicy.load("surely/not-a-model", local_files_only=True)
    with pytest.raises(FileError, match=r"no file gone\.gguf"):
        LanguagePolicy.load(tmp_path / "gone.gguf")


def test_a_pickle_is_not_opened(policy, tmp_path):
    policy.tokenizer.save_pretrained(tmp_path)
    policy.model.config.save_pretrained(tmp_path)
    torch.save(policy.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="a pickle is not opened"):
        LanguagePolicy.load(tmp_path, local_files_only=True)


# ---- adapters, references, files ---------------------------------------------------------------------


@pytest.fixture
def adapted(policy, tmp_path):
    pytest.importorskip("peft")
    policy.save_pretrained(tmp_path / "base")
    adapted = LanguagePolicy.load(tmp_path / "base", local_files_only=True).with_lora(4)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    return adapted


def scores(policy, rng):
    token, attended, mask = rows_of_two_groups(rng.manual_seed(0))
    return policy.log_prob(token, attended, mask=mask)[0]


def test_a_saved_policy_scores_as_before(any_policy, rng, tmp_path):
    any_policy.save_pretrained(tmp_path / "policy")
    loaded = LanguagePolicy.load(tmp_path / "policy", local_files_only=True)
    assert torch.equal(scores(loaded, rng), scores(any_policy, rng))
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["model_type"]
    assert not list((tmp_path / "policy").glob("*.bin"))


def test_adapters_alone_are_trained_and_their_base_is_the_reference(adapted, policy, rng):
    assert all("lora" in name for name, weight in adapted.named_parameters() if weight.requires_grad)
    with adapted.without_lora():
        torch.testing.assert_close(scores(adapted, rng), scores(policy, rng))
    assert (scores(adapted, rng) - scores(policy, rng)).abs().max() > 0.01


def test_merged_adapters_score_as_before(adapted, rng):
    merged = adapted.merged()
    assert not merged.has_lora
    torch.testing.assert_close(scores(merged, rng), scores(adapted, rng), atol=1e-5, rtol=0)


def test_saved_adapters_score_as_before(adapted, rng, tmp_path):
    adapted.save_pretrained(tmp_path / "adapted")
    loaded = LanguagePolicy.load(tmp_path / "adapted", local_files_only=True)
    assert loaded.has_lora
    torch.testing.assert_close(scores(loaded, rng), scores(adapted, rng))
    adapted.source = ""
    with pytest.raises(FileError, match="has no name"):
        adapted.save_pretrained(tmp_path / "nowhere")


def test_a_frozen_copy_stays_while_the_policy_moves(policy, rng):
    reference = policy.frozen_copy()
    before = scores(policy, rng)
    with torch.no_grad():
        policy.head.add_(torch.randn(policy.head.shape, generator=rng))
    assert torch.equal(scores(reference, rng), before)
    assert not any(weight.requires_grad for weight in reference.parameters())
    with pytest.raises(CapabilityError, match="no adapters"), policy.without_lora():
        pass


def test_a_value_is_of_what_stands_before_its_token(policy, rng):
    token, attended, mask = rows_of_two_groups(rng)
    critic = LanguageCritic(copy.deepcopy(policy))
    assert not critic.value(token, attended, mask=mask).any()
    with torch.no_grad():
        critic.head.weight.normal_(generator=rng)
    before = critic.value(token, attended, mask=mask)
    changed = token.clone()
    changed[0, 8] = (token[0, 8] + 1) % 90
    after = critic.value(changed, attended, mask=mask)
    torch.testing.assert_close(after[0, :9], before[0, :9])
    assert not torch.isclose(after[0, 9], before[0, 9])
    assert not before[~mask].any()

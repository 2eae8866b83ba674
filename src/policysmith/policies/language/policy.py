"""A language model as a policy: its actions are tokens, and it says how likely each of them was.

    log_prob[row, t] = log softmax(head . h[row, t - 1] / temperature)[token[row, t]]

Arrays of tokens are [row, time], the prompt on the left, the answer behind it, padding at the end; every
array is indexed by the token it speaks of. Logits are never held: hidden states go straight to the
log-probabilities of the tokens that are asked for, and rows that answer the same prompt run it once
(`shared_prompts`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, DataError, FileError, SettingError, ShapeError
from policysmith.common.extras import require
from policysmith.common.saving import load_json, save_json, write_beside
from policysmith.networks.token_log_prob import token_log_prob
from policysmith.policies.language.llama_scoring import hidden_states, of_the_family
from policysmith.policies.language.loading import EXTRA, complete_tokenizer, load_model, without_bars
from policysmith.policies.language.shared_prompts import Layout, attending_by_layout, share_prompts

TOKENS_AT_A_TIME = 1 << 14
"""Without gradients, at most so many tokens (or one row) go through the model at once."""

_SETTINGS = "policy.json"
_FORMAT = 1
_ADAPTER = "adapter"

Message = Mapping[str, str]
"""One turn of a conversation: {"role": "system", "user" or "assistant", "content": text}."""


class LanguagePolicy(nn.Module):
    """A causal language model with its tokenizer.

    - `model`: a Hugging Face causal model, or one wrapped by peft; `tokenizer`: its tokenizer.
    - `source`: where the model came from; a LoRA policy is saved as its adapter and this name.
    - `notice`: what had to be added to the tokenizer, for whoever shows it; empty for nothing.

    Dropout stays off in training: it would make the ratio of a policy to itself differ from one. Raises
    `CapabilityError` for models whose logits are not the last layer times the last hidden state.
    """

    def __init__(self, model: Any, tokenizer: Any, *, source: str = "") -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.source = source
        self.notice = complete_tokenizer(tokenizer, self.head.shape[0])
        self.eval()
        _check_head(self)

    @classmethod
    def load(cls, source: str | os.PathLike[str], **options: Any) -> LanguagePolicy:
        """The model at a path or of a name; see `loading.load_model` for the options."""
        if (Path(source) / _SETTINGS).is_file():
            return cls.from_pretrained(source, **options)
        model, tokenizer = load_model(source, **options)
        return cls(model, tokenizer, source=str(source))

    # ---- what it is ----------------------------------------------------------------------------------

    @property
    def causal(self) -> Any:
        """The model with its head, without what peft wraps around it."""
        return self.model.get_base_model() if self.has_lora else self.model

    @property
    def body(self) -> Any:
        """What turns tokens into hidden states."""
        return getattr(self.causal, self.causal.base_model_prefix)

    @property
    def head(self) -> Float[Tensor, "vocabulary width"]:
        """The matrix of the last layer."""
        return self.causal.get_output_embeddings().weight

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.head.device

    @property
    def context(self) -> int:
        """The most tokens of prompt and answer together."""
        config = self.causal.config
        return int(getattr(config, "max_position_embeddings", None) or config.n_positions)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: the tokenizer's, and those of the model's own settings."""
        named = [self.tokenizer.eos_token_id]
        configured = getattr(getattr(self.causal, "generation_config", None), "eos_token_id", None)
        named += configured if isinstance(configured, list) else [configured]
        return tuple(dict.fromkeys(token for token in named if token is not None))

    @property
    def has_lora(self) -> bool:
        """Whether low-rank adapters are what is trained."""
        return hasattr(self.model, "peft_config")

    def train(self, mode: bool = True) -> LanguagePolicy:
        """Set the flag of training; the model itself stays without dropout."""
        super().train(mode)
        self.model.eval()
        return self

    # ---- text ----------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """The tokens of `text` as it stands: no template, no special tokens added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_question(self, question: str, *, system: str = "") -> list[int]:
        """The prompt that asks `question`, by the chat template where the tokenizer has one.

        Without a template it is plain concatenation, `system` then `question`, nothing between or after
        them, behind the beginning-of-text token where the tokenizer has one.
        """
        if self.tokenizer.chat_template:
            turns = [{"role": "system", "content": system}] if system else []
            return self.encode_conversation([*turns, {"role": "user", "content": question}])
        begin = self.tokenizer.bos_token_id
        return ([] if begin is None else [begin]) + self.encode(system + question)

    def encode_conversation(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation up to where the policy is to speak.

        Raises `CapabilityError` where the tokenizer has no chat template: roles cannot be told apart.
        """
        if not self.tokenizer.chat_template:
            raise CapabilityError(
                "a conversation was given, and this tokenizer has no chat template",
                cure="set tokenizer.chat_template, or give prompts as plain text",
            )
        return list(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=True, add_generation_prompt=True, return_dict=False
            )
        )

    def decode(self, token: Sequence[int] | Int[Tensor, "time"]) -> str:
        """The text of tokens, special tokens left out."""
        return self.tokenizer.decode(token, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # ---- scoring -------------------------------------------------------------------------------------

    def log_prob(
        self,
        token: Int[Tensor, "row time"],
        attended: Bool[Tensor, "row time"],
        *,
        mask: Bool[Tensor, "row time"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[Float[Tensor, "row time"], Float[Tensor, "row time"]]:
        """Log-probability of each token in `mask`, and the entropy of what it was drawn from; 0 elsewhere.

        `attended` is False on padding, which lies behind each row. `mask` is every attended token but the
        first where it is not given. Both results are differentiable; without gradients the rows go through
        the model a few at a time.
        """
        mask = self._check(token, attended, mask)
        log_prob = torch.zeros(token.shape, dtype=self.head.dtype, device=token.device)
        entropy = torch.zeros_like(log_prob)
        scores = [
            token_log_prob(hidden, self.head, token[rows][mask[rows]], temperature=temperature)
            for rows, hidden in self._hidden(token, mask)
        ]
        if not scores:
            return log_prob, entropy
        of_tokens, of_entropy = (torch.cat(part) for part in zip(*scores, strict=True))
        return log_prob.masked_scatter(mask, of_tokens), entropy.masked_scatter(mask, of_entropy)

    def hidden_before(
        self,
        token: Int[Tensor, "row time"],
        attended: Bool[Tensor, "row time"],
        *,
        mask: Bool[Tensor, "row time"],
    ) -> Float[Tensor, "token width"]:
        """The hidden state that each token in `mask` was predicted from, row after row."""
        mask = self._check(token, attended, mask)
        states = [hidden for _, hidden in self._hidden(token, mask)]
        return torch.cat(states) if states else self.head.new_zeros(0, self.head.shape[1])

    def hidden_at_end(
        self,
        token: Int[Tensor, "row time"],
        attended: Bool[Tensor, "row time"],
        *,
        mask: Bool[Tensor, "row time"],
    ) -> Float[Tensor, "row width"]:
        """The hidden state at the last attended token of each row: what is made of all of it.

        `mask` marks the answers, so that rows which begin alike run what lies before theirs once. Raises
        `DataError` naming the first row without a token.
        """
        mask = self._check(token, attended, mask)
        if not bool(attended[:, 0].all()):
            row = int((~attended[:, 0]).nonzero()[0])
            raise DataError("a row without a token", where=f"row {row}", expected="at least one token")
        # What is at the last token is what comes before the one behind it, were there one.
        token, mask = F.pad(token, (0, 1)), F.pad(mask, (0, 1))
        mask[torch.arange(len(mask), device=mask.device), attended.sum(1)] = True
        hidden = torch.cat([states for _, states in self._hidden(token, mask)])
        return hidden[mask.sum(1).cumsum(0) - 1]

    def _check(self, token: Tensor, attended: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            mask = attended.clone()
            mask[:, 0] = False
        if token.dim() != 2 or not token.shape == attended.shape == mask.shape:
            raise ShapeError(
                f"tokens {list(token.shape)}, attended {list(attended.shape)}, mask {list(mask.shape)}",
                expected="[row, time] each",
            )
        if bool((attended[:, 1:] & ~attended[:, :-1]).any()):
            raise ShapeError(
                "padding before a token", expected="rows that begin at the left, padding at the end"
            )
        if bool((mask & ~attended).any()) or bool(mask[:, 0].any()):
            raise DataError(
                "a token that is padding, or the first of its row, was to be scored",
                expected="a mask of attended tokens with at least one token before them",
            )
        if token.shape[1] > self.context:
            raise SettingError(
                f"rows of {token.shape[1]} tokens for a context of {self.context}",
                cure="lower the limits of prompt and answer",
            )
        return mask

    def _hidden(self, token: Tensor, mask: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For a few rows at a time: the rows, and the hidden states before their tokens in `mask`."""
        rows = len(token) if torch.is_grad_enabled() else max(1, TOKENS_AT_A_TIME // token.shape[1])
        for start in range(0, len(token), rows):
            chunk = slice(start, start + rows)
            if bool(mask[chunk].any()):
                yield chunk, self._hidden_of(token[chunk], mask[chunk])

    def _hidden_of(self, token: Tensor, mask: Tensor) -> Tensor:
        end = int(mask.any(0).nonzero().max()) + 1
        token, mask = token[:, :end], mask[:, :end]
        layout = share_prompts(token, mask) if self.can_share_prompts else None
        if layout is None:
            position = torch.arange(end - 1, device=token.device)[None]
            return self._run(token[:, :-1], position)[mask[:, 1:]]
        hidden = self._run(layout.token, layout.position, layout)
        return hidden[0, layout.source[mask[:, 1:]]]

    def _run(self, token: Tensor, position: Tensor, layout: Layout | None = None) -> Tensor:
        if self.is_plain_llama:
            return hidden_states(self.body, token, position, layout)
        told = nullcontext() if layout is None else attending_by_layout(self.causal.config)
        options = {} if layout is None else {"layout": layout}
        with told:
            # Causal attention needs no mask for padding behind the text; models warn where none is given.
            output = self.body(
                input_ids=token,
                attention_mask=torch.ones_like(token),
                position_ids=position,
                use_cache=False,
                **options,
            )
        return output.last_hidden_state

    @property
    def can_share_prompts(self) -> bool:
        """Whether attention can be told who sees whom: full attention behind transformers' interface."""
        config = self.causal.config
        full = getattr(config, "sliding_window", None) is None and not any(
            kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()
        )
        return full and bool(getattr(self.causal, "_supports_attention_backend", False))

    @property
    def is_plain_llama(self) -> bool:
        """Whether its layers are run by `llama_scoring`: of that family, and without adapters."""
        return self.can_share_prompts and of_the_family(self.causal.config) and not self.has_lora

    # ---- adapters, references, files -----------------------------------------------------------------

    def with_lora(
        self, rank: int = 16, *, alpha: float = 32.0, modules: Sequence[str] | str = "all-linear"
    ) -> LanguagePolicy:
        """This model with low-rank adapters as all that is trained; its own weights stay as they are.

        The adapters begin as zero change. They are drawn from PyTorch's global generator, as peft does it:
        use `common.rng.seeded_initialisation`. Source: Hu et al. 2021 (LoRA).
        """
        if rank < 1:
            raise SettingError(f"adapters of rank {rank}", expected="at least 1")
        if self.has_lora:
            raise SettingError("the policy has adapters already", cure="merge them first: policy.merged()")
        peft = require("peft", extra=EXTRA)
        named = modules if isinstance(modules, str) else list(modules)
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=named, task_type="CAUSAL_LM")
        return LanguagePolicy(peft.get_peft_model(self.model, config), self.tokenizer, source=self.source)

    def merged(self) -> LanguagePolicy:
        """A copy whose adapters have been added to its weights."""
        if not self.has_lora:
            return deepcopy(self)
        return LanguagePolicy(
            deepcopy(self.model).merge_and_unload(), self.tokenizer, source=self.source
        ).requires_grad_(True)

    @contextmanager
    def without_lora(self) -> Iterator[LanguagePolicy]:
        """Inside the block the policy is what its adapters started from: a reference that costs nothing."""
        if not self.has_lora:
            raise CapabilityError("the policy has no adapters to leave out", cure="use frozen_copy()")
        with self.model.disable_adapter():
            yield self

    def frozen_copy(self) -> LanguagePolicy:
        """A copy that does not learn, to stand as a reference."""
        return deepcopy(self).requires_grad_(False).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a Hugging Face folder (safetensors, tokenizer); of a LoRA policy the adapter and its base."""
        if self.has_lora and not self.source:
            raise FileError(
                "the base of these adapters has no name to be found by",
                where=str(folder),
                cure="save the whole model: policy.merged().save_pretrained(folder)",
            )
        with write_beside(folder) as temporary, without_bars():
            self.model.save_pretrained(str(temporary / _ADAPTER if self.has_lora else temporary))
            self.tokenizer.save_pretrained(str(temporary))
            base = self.source if self.has_lora else None
            save_json(temporary / _SETTINGS, {"format": _FORMAT, "base": base})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **options: Any) -> LanguagePolicy:
        """The policy that `save_pretrained` wrote into `folder`."""
        settings = load_json(Path(folder) / _SETTINGS)
        if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
            raise FileError("not a language policy of this version", where=str(Path(folder) / _SETTINGS))
        base = settings.get("base")
        model, tokenizer = load_model(folder if base is None else _located(base), **options)
        if base is None:
            return cls(model, tokenizer, source=str(folder))
        peft = require("peft", extra=EXTRA)
        # Only safetensors: peft would otherwise fall back to a pickle of that name.
        if not (Path(folder) / _ADAPTER / "adapter_model.safetensors").is_file():
            raise FileError("the adapter's weights are missing", where=str(Path(folder) / _ADAPTER))
        adapted = peft.PeftModel.from_pretrained(model, str(Path(folder) / _ADAPTER), is_trainable=True)
        return cls(adapted, tokenizer, source=base)


def _located(base: str) -> str | os.PathLike[str]:
    from policysmith.policies.language.models import located  # it makes policies, and so imports this module

    return located(base)


@torch.no_grad()
def _check_head(policy: LanguagePolicy) -> None:
    """Compare with the model's own logits on three tokens: some models cap or scale them, or add a bias."""
    token = torch.arange(3, device=policy.device)[None] % policy.head.shape[0]
    hidden: list[Tensor] = []
    hook = policy.body.register_forward_hook(lambda body, given, output: hidden.append(output[0]))
    try:
        theirs = policy.causal(input_ids=token, attention_mask=torch.ones_like(token)).logits
    finally:
        hook.remove()
    mine = hidden[-1] @ policy.head.t()
    if mine.shape != theirs.shape or not torch.allclose(mine, theirs, rtol=1e-2, atol=1e-2):
        raise CapabilityError(
            f"{type(policy.causal).__name__} does more to its logits than multiply by its last layer",
            expected="a model without bias, scale or cap on its logits",
        )

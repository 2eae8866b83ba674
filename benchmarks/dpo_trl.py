"""Policysmith against TRL: whole steps of DPO on the same model and pairs, in turn within one run.

    python benchmarks/dpo_trl.py [--size small] [--size smollm2] [--json FILE]

A step is: make a batch of pairs, run it forward and backward, take one optimiser step. Both sides do it
through their own ordinary entry (TRL's `DPOTrainer`, Policysmith's `dpo.train`), with the same weights,
pairs, beta, batch, threads and precision (float32), AdamW, and one backward pass per step. Two sizes:

- `small`: the decoder over words of the reviews (0.8 million weights), 512 pairs of a good and a bad review
  of one record (prompts of 9 to 13 tokens, answers of up to 24), 32 to a batch. A round has as many steps as
  a pass over the pairs, each side making batches of them in its own way;
- `smollm2`: SmolLM2-135M-Instruct, prompts of 64 tokens and answers of 48, 4 pairs to a batch.

What the reference says of a pair does not change, and can be asked once, before the first step. Policysmith
always does so; TRL does with `precompute_ref_log_probs=True` (`precomputed` below), and by default keeps a
second model and runs it in every step (`default`). The headline compares like with like: steps of
Policysmith with steps of `precomputed`, what was asked before them left out on both sides. `one_pass` has
the ratios with the asking counted on both sides, as for a run that meets each pair once; it is measured once
per run and not per round. TRL's default stands beside both.

Before anything is timed, the sides have to agree: on the tokens, on the loss of the first pairs to 1e-4 and
on the norm of its gradient to a thousandth, under a reference that says 0 of every answer (under the true
one the first loss is log 2, whatever the model says), and on what the true reference says of every pair.

Printed are pairs per second of whole steps; where the processor's time goes; and the peak of memory above
weights, gradients, the optimiser's state and what was there before (the interpreter, imports). A second
model counts as use of memory. The sides answer in turn, and a ratio is taken per round, by the clock and by
the processor's time (see `peers.py`); the median is printed with the smallest and the largest. TRL lives in
an environment of its own (`--peer-python`, or `--peer-env`, made on the first run with the PyTorch that
Policysmith runs on).
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from peers import Answer, arguments_of, middle, speeds, versions
from trl_peer import (
    REPORTED,
    ClockWithMemory,
    Loaded,
    check_equal,
    count,
    load,
    model_folder,
    on_the_clock,
    peaks,
    run,
    same_work,
    take_turns,
)

PAIRS = "pairs.jsonl"
PEERS = ("precomputed", "default")
BETA = 0.1
ENOUGH = 4096
"""Steps, more than a run of the benchmark takes."""


@dataclass(frozen=True)
class Work:
    """The work, the same for all sides: `pairs` in all, `batch` of them to a step, `steps` to a round."""

    size: str
    pairs: int
    batch: int
    prompt_tokens: int
    answer_tokens: int
    learning_rate: float
    steps: int
    threads: int = 1


WORK = {
    "small": Work("small", 512, 32, prompt_tokens=13, answer_tokens=24, learning_rate=1e-4, steps=16),
    "smollm2": Work("smollm2", 32, 4, prompt_tokens=64, answer_tokens=48, learning_rate=1e-6, steps=1),
}
"""Of `small`, the numbers of tokens are the most there are; of `smollm2` all have as many."""

COMMON = (
    "the a and of to in for with on at from by old new small large good long red green river house road "
    "water light day night year time world city school book table door window garden morning story friend"
)
"""Words of one token each."""


# ---- the pairs -------------------------------------------------------------------------------------------


def write_pairs(work: Work, folder: Path) -> None:
    """The pairs as both sides read them; prompts end on a boundary between tokens."""
    rows = reviews(work) if work.size == "small" else word_lists(work, folder)
    (folder / PAIRS).write_text("\n".join(map(json.dumps, rows)) + "\n")


def reviews(work: Work) -> list[dict[str, str]]:
    """Records with a faultless review and one of the lowest quality, cut to fit."""
    from policysmith.claims.common.review_language import read_record
    from policysmith.claims.common.review_writing import write
    from policysmith.claims.common.reviews import prompts
    from policysmith.common.rng import numpy_generator

    rng = numpy_generator(0, "benchmark")
    rows = []
    for prompt in prompts(work.pairs, seed=0):
        record = read_record(prompt.text)
        texts = (write(record, rng, quality=quality) for quality in (1.0, 0.0))
        # The end token is one of the answer's.
        chosen, rejected = (" ".join(text.split()[: work.answer_tokens - 1]) for text in texts)
        rows.append({"prompt": f"{prompt.text} ", "chosen": chosen, "rejected": rejected})
    return rows


def word_lists(work: Work, folder: Path) -> list[dict[str, str]]:
    """Common words, as many as there shall be tokens."""
    from policysmith.policies.language.policy import LanguagePolicy

    policy = LanguagePolicy.load(folder / "model")
    rng, words = random.Random(0), COMMON.split()

    def filled(length: Callable[[str], int], tokens: int) -> str:
        text = rng.choice(words)
        while length(text) < tokens:
            text = f"{text} {rng.choice(words)}"
        return text

    def asked(text: str) -> int:
        return len(policy.encode_question(text))

    def answered(text: str) -> int:
        return len(policy.encode(text)) + 1

    return [
        {
            "prompt": filled(asked, work.prompt_tokens),
            "chosen": filled(answered, work.answer_tokens),
            "rejected": filled(answered, work.answer_tokens),
        }
        for _ in range(work.pairs)
    ]


# ---- the two sides ----------------------------------------------------------------------------------------


def our_side(work: Work, folder: str, clock: ClockWithMemory) -> None:
    import torch

    from policysmith.experience.outcomes import PreferenceSampler, preference_rows
    from policysmith.experience.preferences import preferences_from_dataset
    from policysmith.objectives.preferences import dpo_loss
    from policysmith.policies.language.policy import LanguagePolicy
    from policysmith.systems import dpo
    from policysmith.training.learners import preference

    policy = LanguagePolicy.load(Path(folder) / "model")
    pairs = preferences_from_dataset(str(Path(folder) / PAIRS))
    rows = preference_rows(policy, pairs)
    first = rows[: work.batch].clone()
    first["reference_log_prob"] = torch.zeros(work.batch, 2)
    loss = preference.over_outcomes(preference.on_pairs(partial(dpo_loss, beta=BETA)))
    agreeing = loss_and_gradient(policy, lambda: loss(policy, first)[0].mean())
    clock.timed(preference, "_ask_reference", "reference")
    clock.timed(PreferenceSampler, "rows", "batch")
    clock.timed(LanguagePolicy, "log_prob", "forward")
    clock.timed(torch.Tensor, "backward", "backward")
    config = dpo.Config(
        steps=ENOUGH,
        batch_size=work.batch,
        learning_rate=work.learning_rate,
        warmup_steps=0,
        beta=BETA,
    )
    steps = dpo.train(policy, pairs, config=config)
    clock.holding(policy)
    clock.parts.clear()
    progress = next(steps)  # the reference is asked before it
    said = progress.state.sources["preferences"].rows(range(work.pairs))["reference_log_prob"]
    clock.ready(
        weights=count(policy),
        versions=versions(REPORTED),
        tokens=int(rows["attended"].sum()),
        answer_tokens=int(rows["mask"].sum()),
        reference=said.tolist(),
        reference_seconds=clock.parts["reference"],
        **agreeing,
    )
    while True:
        clock.begin()
        next(steps)
        clock.end()


def peer_side(work: Work, folder: str, clock: ClockWithMemory, *, precomputed: bool) -> None:
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = load(f"{folder}/model")
    rows = [json.loads(line) for line in (Path(folder) / PAIRS).read_text().splitlines()]
    if tokenizer.chat_template:
        # As text: TRL would have a conversation's answers end with a line break behind the end token.
        for row in rows:
            asked = [{"role": "user", "content": row["prompt"]}]
            row["prompt"] = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    clock.timed(DPOTrainer, "_precompute_ref_logps", "reference")
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            **same_work(work.learning_rate),
            per_device_train_batch_size=work.batch,
            beta=BETA,
            precompute_ref_log_probs=precomputed,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[on_the_clock(clock)],
    )
    asked_in = clock.parts["reference"]
    pairs = list(trainer.train_dataset)
    first = trainer.data_collator(pairs[: work.batch])
    first |= {f"ref_{side}_logps": torch.zeros(work.batch) for side in ("chosen", "rejected")}
    trainer.precompute_ref_logps = True  # for this one batch, also where a second model is asked
    agreeing = loss_and_gradient(model, lambda: trainer.compute_loss(model, first))
    trainer.precompute_ref_logps = precomputed
    clock.timed(trainer, "data_collator", "batch")
    clock.timed(trainer, "compute_loss", "forward")
    clock.timed(torch.Tensor, "backward", "backward")
    if not precomputed:
        clock.timed(trainer.ref_model, "forward", "reference", within="forward")
    clock.holding(model, *([] if precomputed else [trainer.ref_model]))
    answers = [(pair["chosen_ids"], pair["rejected_ids"]) for pair in pairs]
    said = [(pair["ref_chosen_logps"], pair["ref_rejected_logps"]) for pair in pairs if precomputed]
    answer_tokens = sum(map(len, chain.from_iterable(answers)))
    clock.ready(
        weights=count(model),
        versions=versions(REPORTED),
        tokens=answer_tokens + sum(2 * len(pair["prompt_ids"]) for pair in pairs),
        answer_tokens=answer_tokens,
        reference=said,
        reference_seconds=asked_in,
        **agreeing,
    )
    trainer.train()


def loss_and_gradient(model: Any, loss: Callable[[], Any]) -> dict[str, float]:
    """A loss, and the norm of its gradient, which is not kept."""
    import torch

    value = loss()
    value.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return {"loss": float(value.detach()), "gradient_norm": float(norm)}


# ---- measuring -------------------------------------------------------------------------------------------


def check(about: Mapping[str, Answer]) -> None:
    """End the script unless all sides compute the same."""
    check_equal(about, "weights", "tokens", "answer_tokens")
    found = agreement(about)
    if found["loss"] > 1e-4 or found["gradient_norm"] > 1e-3 or found["reference"] > 1e-2:
        raise SystemExit(f"the sides compute something else: {found}")


def agreement(about: Mapping[str, Answer]) -> dict[str, float]:
    """How far the sides are apart in loss, norm of the gradient (relative) and what the reference says."""
    ours, theirs = (chain.from_iterable(about[side]["reference"]) for side in ("ours", "precomputed"))
    losses, norms = ([one[name] for one in about.values()] for name in ("loss", "gradient_norm"))
    return {
        "loss": max(losses) - min(losses),
        "gradient_norm": max(norms) / min(norms) - 1,
        "reference": max(abs(one - other) for one, other in zip(ours, theirs, strict=True)),
    }


def measure(work: Work, python: Path, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model").symlink_to(model_folder(work.size, folder, words=words_of(work)))
        write_pairs(work, folder)
        about, taken = take_turns(
            Loaded(work, temporary),
            {**dict.fromkeys(PEERS, python), "ours": Path(sys.executable)},
            check=check,
            rounds=rounds,
            shown=lambda answer: f"{work.batch / answer['seconds']:.1f} pairs/s",
        )
    memory = peaks(taken)
    found = speeds(taken, per_step=work.batch, peers=PEERS)
    del found["returns"]
    return {
        "work": asdict(work),
        **{name: about["ours"][name] for name in ("weights", "tokens", "answer_tokens", "loss")},
        "apart": agreement(about),
        "versions": {side: values["versions"] for side, values in about.items()},
        **found,
        "one_pass": one_pass(work, about, taken),
        "memory_mb": memory,
        "memory_ratio": {peer: memory["ours"] / memory[peer] for peer in PEERS},
        "rounds": rounds,
    }


def words_of(work: Work) -> tuple[str, ...]:
    from policysmith.claims.common.review_language import WORDS

    return WORDS if work.size == "small" else ()


def one_pass(
    work: Work, about: Mapping[str, Answer], taken: Mapping[str, list[Answer]]
) -> dict[str, dict[str, float]]:
    """Milliseconds of processor per pair, the reference asked once before the steps, and the ratios."""
    asking = {side: 1e3 * values["reference_seconds"] / work.pairs for side, values in about.items()}
    whole = {
        side: asking[side] + 1e3 / work.batch * middle(answers, lambda one: one["cpu_seconds"])
        for side, answers in taken.items()
    }
    return {
        "asking": asking,
        "asking_and_steps": whole,
        "times_as_fast": {f"ours against {peer}": whole[peer] / whole["ours"] for peer in PEERS},
    }


def main() -> None:
    run(
        arguments_of(__doc__, rounds=7),
        "dpo_trl",
        sizes=WORK,
        sides={
            "ours": our_side,
            "precomputed": partial(peer_side, precomputed=True),
            "default": partial(peer_side, precomputed=False),
        },
        # By the processor's time, which other work on the machine does not touch.
        clock=lambda answers: ClockWithMemory(answers, rest="optimiser", timer=time.process_time),
        measure=measure,
    )


if __name__ == "__main__":
    main()

"""Policysmith against TRL: whole steps of GRPO on the same model and prompts, in turn within one run.

    python benchmarks/grpo_trl.py [--size small] [--size smollm2] [--json FILE]

A step is: write a group of completions for every prompt, score them, take one optimiser step. Both sides do
it through their own ordinary entry (TRL's `GRPOTrainer`, Policysmith's `grpo.train`), with the same weights,
prompts, group size, number of rows per backward pass, threads and precision (float32), without a reference
model, AdamW, one step per rollout. No completion may end early, so that both write the same number of tokens:
TRL is given `min_new_tokens`, Policysmith a policy without end tokens. Two sizes:

- `small`: the decoder over characters (0.8 million weights), 32 prompts x 8 completions of 64 tokens;
- `smollm2`: SmolLM2-135M-Instruct, 4 prompts x 4 completions of 48 tokens.

Printed are completion tokens per second of whole steps; where the time goes; how near a step comes to the
time that its matrix products alone would take at the rate measured for large ones; and the peak of memory
above weights, gradients, the optimiser's state and what was there before (the interpreter, imports).

The sides answer in turn, and a ratio is taken per round (see `peers.py`); the median is printed with the
smallest and the largest. TRL lives in an environment of its own (`--peer-python`, or
`--peer-env`, made on the first run with the PyTorch that Policysmith runs on).
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers import Answer, arguments_of, middle, ratio, versions
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


@dataclass(frozen=True)
class Work:
    """The work of a step, the same for both sides."""

    size: str
    prompts: int
    group_size: int
    answer_limit: int
    micro_batch: int
    learning_rate: float
    threads: int = 1
    steps: int = 1

    @property
    def rows(self) -> int:
        return self.prompts * self.group_size

    @property
    def tokens(self) -> int:
        """Of the completions."""
        return self.rows * self.answer_limit


WORK = {
    "small": Work("small", prompts=32, group_size=8, answer_limit=64, micro_batch=64, learning_rate=1e-4),
    "smollm2": Work("smollm2", prompts=4, group_size=4, answer_limit=48, micro_batch=4, learning_rate=1e-6),
}

QUESTIONS = (
    "A baker fills 14 trays with 12 rolls each and sells 95 of them before noon. Then she bakes 3 "
    "more trays of the same size. How many rolls does she have then?",
    "A train leaves at 9:40 and stands at 4 stations for 3 minutes each. Without these stops it "
    "would be under way for 1 hour and 25 minutes. When does the train arrive?",
    "Mira saves 7 euros a week and her brother saves 4. Together they want to buy a tent for 143 euros, "
    "and their aunt gives them 22 euros. After how many weeks can they buy it?",
    "A rectangular field is 60 metres long and half as wide. A fence goes around it, with a gate of 4 metres "
    "that needs no fence. How many metres of fence are needed?",
)


def questions(size: str) -> list[str]:
    """The prompts of a step."""
    if size == "smollm2":
        return list(QUESTIONS)
    rng = random.Random(0)
    return [
        "+".join(str(rng.randint(1, 999)) for _ in range(rng.randint(3, 5))) + "="
        for _ in range(WORK[size].prompts)
    ]


def digits(completion: Any, *_: Any) -> float:
    """The reward: how much of the completion is digits."""
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    return sum(map(str.isdigit, text)) / max(1, len(text))


# ---- the two sides ----------------------------------------------------------------------------------------


def our_side(work: Work, folder: str, clock: ClockWithMemory) -> None:
    from policysmith.experience.prompts import from_rows
    from policysmith.policies.language.engine import LocalEngine
    from policysmith.policies.language.llama_decoder import LlamaDecoder
    from policysmith.policies.language.policy import LanguagePolicy
    from policysmith.rewards.scoring import Scoring
    from policysmith.systems import grpo

    class Endless(LanguagePolicy):
        """Never ends an answer by itself."""

        end_tokens = ()

    policy = Endless.load(folder)
    clock.timed(LocalEngine, "sample", "decode")
    clock.timed(LlamaDecoder, "admit", "prefill", within="decode")
    clock.timed(Scoring, "__call__", "reward")
    config = grpo.Config(
        steps=1_000_000,
        prompts=work.prompts,
        group_size=work.group_size,
        answer_limit=work.answer_limit,
        micro_batch=work.micro_batch,
        learning_rate=work.learning_rate,
        beta=0.0,
    )
    rows = [{"prompt": question} for question in questions(work.size)]
    steps = grpo.train(policy, from_rows(rows), digits, config=config)
    lengths = [len(policy.encode_question(question)) for question in questions(work.size)]
    body = sum(p.numel() for p in policy.body.layers.parameters())
    clock.holding(policy)
    clock.ready(
        weights=count(policy),
        versions=versions(REPORTED),
        prompt_tokens=sum(lengths),
        arithmetic=arithmetic(work, sum(lengths), body, policy.head.numel()),
        rate=product_rate(),
    )
    while True:
        clock.begin()
        next(steps)
        clock.end()


def peer_side(work: Work, folder: str, clock: ClockWithMemory) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = load(folder)
    prompts: list[Any] = questions(work.size)
    if tokenizer.chat_template:
        prompts = [[{"role": "user", "content": question}] for question in prompts]
        encoded = [
            tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in prompts
        ]
    else:
        encoded = [tokenizer(p)["input_ids"] for p in prompts]
    config = GRPOConfig(
        **same_work(work.learning_rate),
        per_device_train_batch_size=work.micro_batch,
        gradient_accumulation_steps=work.rows // work.micro_batch,
        num_generations=work.group_size,
        max_completion_length=work.answer_limit,
        generation_kwargs={"min_new_tokens": work.answer_limit},
        loss_type="grpo",
        beta=0.0,
        shuffle_dataset=False,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [digits(completion) for completion in completions],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[on_the_clock(clock)],
    )
    generating = False

    def of_prompts(*arguments: Any, **options: Any) -> str | None:
        return "prefill" if generating and options["input_ids"].shape[1] > 1 else None

    original = model.generate

    def generate(*arguments: Any, **options: Any) -> Any:
        nonlocal generating
        generating = True
        try:
            return original(*arguments, **options)
        finally:
            generating = False

    model.generate = generate
    clock.timed(model, "forward", of_prompts, within="decode")
    clock.timed(model, "generate", "decode")
    clock.timed(trainer, "_calculate_rewards", "reward")
    clock.holding(model)
    clock.ready(
        weights=count(model),
        versions=versions(REPORTED),
        prompt_tokens=sum(map(len, encoded)),
    )
    trainer.train()


def arithmetic(work: Work, prompt_tokens: int, body: int, head: int) -> dict[str, float]:
    """Operations of the matrix products with weights in a step of ours, each prompt run once."""
    tokens, distinct = work.tokens, prompt_tokens + work.tokens
    return {
        "prefill": 2.0 * body * prompt_tokens,
        "decode": 2.0 * (body + head) * tokens,
        # Forward, and two products backward; the head's logits are made once more on the way back.
        "learn": 6.0 * body * distinct + 8.0 * head * tokens,
    }


def product_rate(size: int = 1536, times: int = 5) -> float:
    """Operations per second in a product of large matrices: the best of several."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


# ---- measuring -------------------------------------------------------------------------------------------


def measure(work: Work, python: Path, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        about, taken = take_turns(
            Loaded(work, str(model_folder(work.size, Path(temporary)))),
            {"peer": python, "ours": Path(sys.executable)},
            check=lambda about: check_equal(about, "weights", "prompt_tokens"),
            rounds=rounds,
            shown=lambda answer: f"{work.tokens / answer['seconds']:.0f} tokens/s",
        )
    return {
        "work": asdict(work),
        "weights": about["ours"]["weights"],
        "prompt_tokens": about["ours"]["prompt_tokens"],
        "versions": {side: values["versions"] for side, values in about.items()},
        **compared(work, taken),
        "arithmetic": against_arithmetic(about["ours"], taken["ours"]),
    }


def compared(work: Work, taken: dict[str, list[Answer]]) -> dict[str, Any]:
    """Both sides' medians, and ratios per round."""
    peer, ours = taken["peer"], taken["ours"]
    parts = ("prefill", "decode", "reward", "learn")
    memory = peaks(taken)
    return {
        "tokens_per_second": {
            side: work.tokens / middle(answers, lambda one: one["seconds"]) for side, answers in taken.items()
        },
        "times_as_fast": ratio(peer, ours, lambda one: one["seconds"]),
        "times_as_fast_by_processor_time": ratio(peer, ours, lambda one: one["cpu_seconds"]),
        "times_as_fast_at_writing": ratio(
            peer, ours, lambda one: one["parts"]["prefill"] + one["parts"]["decode"]
        ),
        "times_as_fast_at_learning": ratio(peer, ours, lambda one: one["parts"]["learn"]),
        "seconds": {
            side: {
                part: middle(answers, lambda one, part=part: one["parts"].get(part, 0.0)) for part in parts
            }
            | {"step": middle(answers, lambda one: one["seconds"])}
            for side, answers in taken.items()
        },
        "memory_mb": memory,
        "memory_ratio": memory["ours"] / memory["peer"],
        "rounds": len(ours),
    }


def against_arithmetic(about: dict[str, Any], taken: list[dict[str, Any]]) -> dict[str, Any]:
    """What part of the time of ours its matrix products would need at the measured rate."""
    needed = {part: operations / about["rate"] for part, operations in about["arithmetic"].items()}
    spent = {part: middle(taken, lambda one, part=part: one["parts"][part]) for part in needed}
    step = middle(taken, lambda one: one["seconds"])
    return {
        "rate_gflops": about["rate"] / 1e9,
        "seconds_needed": needed,
        "share_of_time": {part: needed[part] / spent[part] for part in needed}
        | {"step": sum(needed.values()) / step},
    }


def main() -> None:
    parser = arguments_of(__doc__, rounds=7)
    parser.add_argument("--micro-batch", type=int, help="rows per backward pass, instead of the size's own")
    run(
        parser,
        "grpo_trl",
        sizes=WORK,
        sides={"ours": our_side, "peer": peer_side},
        clock=lambda answers: ClockWithMemory(answers, rest="learn"),
        measure=measure,
    )


if __name__ == "__main__":
    main()

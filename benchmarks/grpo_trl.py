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

The sides are two processes that answer in turn (peer, ours, peer, ours...), so that what else the machine
does falls on both. A ratio is taken per round; the median is printed with the smallest and the largest. TRL
lives in an environment of its own (`--peer-python`, or `--peer-env`, made on the first run with the PyTorch
that Policysmith runs on).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PEER = "trl==1.16.0"
PEER_REQUIREMENTS = ("transformers==5.24.0", "accelerate==1.15.0", "datasets==5.2.0")
REPORTED = ("torch", "transformers", "trl", "accelerate", "policysmith")


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


# ---- the clock: both sides tell it where they are ---------------------------------------------------------


class Clock:
    """Answers each line "N" with the time and memory that the next N steps took."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers
        self.left = 0
        self.parts: dict[str, float] = defaultdict(float)

    def ready(self, model: Any, **about: Any) -> None:
        """Nothing has been learnt yet: say what this side is, and remember how much memory it holds."""
        for weight in model.parameters():
            weight.data = weight.data.clone()  # what was loaded may lie in the file still
        trim()
        weights = sum(weight.numel() for weight in model.parameters())
        # Gradients and the two moments of the optimiser come yet. Pages of files are the libraries.
        self.held = memory("RssAnon") + 3 * 4 * weights
        print(json.dumps({"weights": weights, **about}), file=self.answers, flush=True)

    def begin(self) -> None:
        """A step begins."""
        if self.left == 0:
            line = sys.stdin.readline()
            if not line:
                os._exit(0)
            self.left = self.steps = int(line)
            self.parts.clear()
            forget_peak()
            self.start, self.cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """A step ends."""
        self.left -= 1
        if self.left == 0:
            seconds = time.perf_counter() - self.start
            self.parts["learn"] = seconds - sum(self.parts.values())  # all that is not one of the others
            answer = {
                "seconds": seconds / self.steps,
                "cpu_seconds": (time.process_time() - self.cpu) / self.steps,
                "parts": {name: seconds / self.steps for name, seconds in self.parts.items()},
                "memory": memory("VmHWM") - memory("RssFile") - self.held,
            }
            print(json.dumps(answer), file=self.answers, flush=True)

    def timed(
        self, owner: Any, name: str, part: str | Callable[..., str | None], *, within: str = ""
    ) -> None:
        """Let every call of `owner.name` count to a part; `within` another, it is taken off that one."""
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                seconds = time.perf_counter() - start
                counted = part if isinstance(part, str) else part(*arguments, **options)
                if counted:
                    self.parts[counted] += seconds
                    if within:
                        self.parts[within] -= seconds

        setattr(owner, name, call)


def memory(what: str) -> int:
    """Bytes of this process, by the name that Linux gives them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"this system does not say {what}; the benchmark of memory needs Linux")


def forget_peak() -> None:
    """The highest point of memory is counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def trim() -> None:
    """Give back what the allocator keeps, so that it is not taken for use."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).malloc_trim(0)


# ---- the two sides ----------------------------------------------------------------------------------------


def our_side(work: Work, folder: str, clock: Clock) -> None:
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
    clock.ready(
        policy,
        prompt_tokens=sum(lengths),
        arithmetic=arithmetic(work, sum(lengths), body, policy.head.numel()),
        rate=product_rate(),
    )
    while True:
        clock.begin()
        next(steps)
        clock.end()


def peer_side(work: Work, folder: str, clock: Clock) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class InTurn(TrainerCallback):
        def on_step_begin(self, *arguments, **options):
            clock.begin()

        def on_step_end(self, *arguments, **options):
            clock.end()

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts: list[Any] = questions(work.size)
    if tokenizer.chat_template:
        prompts = [[{"role": "user", "content": question}] for question in prompts]
        encoded = [
            tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in prompts
        ]
    else:
        encoded = [tokenizer(p)["input_ids"] for p in prompts]
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=1_000_000,
        per_device_train_batch_size=work.micro_batch,
        gradient_accumulation_steps=work.rows // work.micro_batch,
        num_generations=work.group_size,
        max_completion_length=work.answer_limit,
        generation_kwargs={"min_new_tokens": work.answer_limit},
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        loss_type="grpo",
        beta=0.0,
        # TRL's defaults compute in bfloat16 and run every layer twice to save memory.
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [digits(completion) for completion in completions],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[InTurn()],
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
    clock.ready(model, prompt_tokens=sum(map(len, encoded)))
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


# ---- the worker: one side in a process of its own, told what to do line by line --------------------------


def run_side(side: str, work: Work, folder: str) -> None:
    import torch

    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    # What libraries print must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(versions()), file=answers, flush=True)
    {"ours": our_side, "peer": peer_side}[side](work, folder, Clock(answers))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in REPORTED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Worker:
    """A side in its process."""

    def __init__(self, python: Path, side: str, work: Work, folder: Path) -> None:
        environment = dict(os.environ)
        if side == "peer":  # the peer must not see this environment's packages
            environment.pop("PYTHONPATH", None)
        command = [
            str(python),
            __file__,
            "--worker",
            side,
            "--work",
            json.dumps(asdict(work)),
            "--folder",
            folder,
        ]
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": str(work.threads), "HF_HUB_OFFLINE": "1"},
        )
        self.versions = self.answer()
        self.about = self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended early, with status {self.process.wait()}; see its output above")
        return json.loads(line)

    def steps(self, times: int) -> dict[str, Any]:
        """Time and memory of so many steps, per step."""
        assert self.process.stdin is not None
        print(times, file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# ---- the peer's environment ------------------------------------------------------------------------------


def peer_python(folder: Path) -> Path:
    """The interpreter of the peer's environment, which is made if it is not there or was made otherwise."""
    torch = importlib.metadata.version("torch").partition("+")[0]
    recipe = "\n".join([f"torch=={torch}", *PEER_REQUIREMENTS, PEER])
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed.txt"
    if done.is_file() and done.read_text() == recipe:
        return python
    print(f"installing {PEER} into {folder} (once)", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    for arguments in ([f"torch=={torch}"], [*PEER_REQUIREMENTS, PEER]):
        # pip's own words go where progress goes: standard output is for the result.
        subprocess.run([*pip, *arguments], check=True, stdout=sys.stderr)
    done.write_text(recipe)
    return python


# ---- measuring -------------------------------------------------------------------------------------------


def model_folder(size: str, folder: Path) -> Path:
    """A Hugging Face folder that both sides load."""
    if size == "smollm2":
        from policysmith.policies.language.models import get_model

        return get_model("smollm2-135m")
    from policysmith.policies.language.small import small_decoder

    small_decoder(0).save_pretrained(folder / size)
    return folder / size


def measure(work: Work, python: Path, *, rounds: int, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = model_folder(work.size, Path(temporary))
        workers = {
            "peer": Worker(python, "peer", work, folder),
            "ours": Worker(Path(sys.executable), "ours", work, folder),
        }
        about = {side: worker.about for side, worker in workers.items()}
        for what in ("weights", "prompt_tokens"):
            if about["peer"][what] != about["ours"][what]:
                raise SystemExit(f"the sides differ in {what}: {about}")
        taken: dict[str, list[dict[str, Any]]] = {side: [] for side in workers}
        try:
            # The first step makes the optimiser's state and fills caches: it does not count.
            for number in range(-1, rounds):
                for side, worker in workers.items():
                    # The other side's threads wait busily for a moment after their work.
                    time.sleep(0.3)
                    result = worker.steps(steps if number >= 0 else 1)
                    if number >= 0:
                        taken[side].append(result)
                        print(
                            f"{work.size}, round {number + 1} of {rounds}: {side} "
                            f"{work.tokens / result['seconds']:.0f} tokens/s",
                            file=sys.stderr,
                        )
        finally:
            for worker in workers.values():
                worker.close()
    return {
        "work": asdict(work),
        "weights": about["ours"]["weights"],
        "prompt_tokens": about["ours"]["prompt_tokens"],
        "versions": {side: worker.versions for side, worker in workers.items()},
        **compared(work, taken),
        "arithmetic": against_arithmetic(about["ours"], taken["ours"]),
    }


def compared(work: Work, taken: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Both sides' medians, and ratios per round."""

    def middle(side: str, value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(value, taken[side]))

    def ratio(value: Callable[[dict[str, Any]], float]) -> dict[str, float]:
        of_rounds = [
            value(peer) / value(ours) for peer, ours in zip(taken["peer"], taken["ours"], strict=True)
        ]
        return {"median": statistics.median(of_rounds), "smallest": min(of_rounds), "largest": max(of_rounds)}

    parts = ("prefill", "decode", "reward", "learn")
    return {
        "tokens_per_second": {side: work.tokens / middle(side, lambda one: one["seconds"]) for side in taken},
        "times_as_fast": ratio(lambda one: one["seconds"]),
        "times_as_fast_by_processor_time": ratio(lambda one: one["cpu_seconds"]),
        "times_as_fast_at_writing": ratio(lambda one: one["parts"]["prefill"] + one["parts"]["decode"]),
        "times_as_fast_at_learning": ratio(lambda one: one["parts"]["learn"]),
        "seconds": {
            side: {part: middle(side, lambda one, part=part: one["parts"].get(part, 0.0)) for part in parts}
            | {"step": middle(side, lambda one: one["seconds"])}
            for side in taken
        },
        "memory_mb": {side: max(one["memory"] for one in taken[side]) / 1e6 for side in taken},
        "memory_ratio": max(one["memory"] for one in taken["ours"])
        / max(one["memory"] for one in taken["peer"]),
        "rounds": len(taken["ours"]),
    }


def against_arithmetic(about: dict[str, Any], taken: list[dict[str, Any]]) -> dict[str, Any]:
    """What part of the time of ours its matrix products would need at the measured rate."""
    needed = {part: operations / about["rate"] for part, operations in about["arithmetic"].items()}
    spent = {part: statistics.median(one["parts"][part] for one in taken) for part in needed}
    step = statistics.median(one["seconds"] for one in taken)
    return {
        "rate_gflops": about["rate"] / 1e9,
        "seconds_needed": needed,
        "share_of_time": {part: needed[part] / spent[part] for part in needed}
        | {"step": sum(needed.values()) / step},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--size", choices=tuple(WORK), action="append", help="default: both")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peer already")
    parser.add_argument(
        "--peer-env",
        type=Path,
        default=Path.home() / ".cache/policysmith/benchmarks/trl",
        help="folder of the peer's environment (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps per round")
    parser.add_argument("--micro-batch", type=int, help="rows per backward pass, instead of the size's own")
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_side(arguments.worker, Work(**arguments.work), arguments.folder)
        return
    python = arguments.peer_python or peer_python(arguments.peer_env.expanduser().resolve())
    results = {}
    for size in arguments.size or WORK:
        changed = {"threads": arguments.threads}
        if arguments.micro_batch:
            changed["micro_batch"] = arguments.micro_batch
        work = Work(**asdict(WORK[size]) | changed)
        results[size] = measure(work, python, rounds=arguments.rounds, steps=arguments.steps)
    machine = {"processors": os.cpu_count(), "architecture": platform.machine()}
    text = json.dumps({"benchmark": "grpo_trl", "peer": PEER, "machine": machine, "sizes": results}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

"""What the benchmarks against TRL share: TRL's environment and options, and a clock that tells memory, too.

Both sides load one Hugging Face folder and compute in float32. TRL's trainers are used as they come, but for
what would make the work another one: see `same_work`.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peers import (
    Answer,
    Clock,
    Peer,
    Worker,
    accept_peer,
    answers_to,
    in_turn,
    machine,
    tell,
)

REPORTED = ("torch", "transformers", "trl", "accelerate", "policysmith")
PEER = Peer("trl", "trl==1.16.0", ("transformers==5.24.0", "accelerate==1.15.0", "datasets==5.2.0"))


@dataclass(frozen=True)
class Loaded:
    """What a worker is told: the work, and the folder of the model and of what else both sides read."""

    work: Any
    folder: str


# ---- the clock: memory, too ------------------------------------------------------------------------------


class ClockWithMemory(Clock):
    """Tells the peak of memory as well, above what must be there."""

    def holding(self, model: Any, *others: Any) -> None:
        """Nothing has been learnt yet: remember how much memory this side holds.

        `others` are models that only this side needs: their weights count as its use of memory.
        """
        for weight in (weight for one in (model, *others) for weight in one.parameters()):
            weight.data = weight.data.clone()  # what was loaded may lie in the file still
        trim()
        # Gradients and the two moments of the optimiser come yet. Pages of files are the libraries.
        self.held = memory("RssAnon") + 3 * 4 * count(model) - 4 * sum(map(count, others))

    def started(self) -> None:
        trim()
        forget_peak()
        super().started()

    def taken(self) -> Answer:
        return {**super().taken(), "memory": memory("VmHWM") - memory("RssFile") - self.held}


def count(model: Any) -> int:
    """How many weights a model has."""
    return sum(weight.numel() for weight in model.parameters())


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


def peaks(taken: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """Of each side, in MB: the highest of its rounds."""
    return {side: max(one["memory"] for one in answers) / 1e6 for side, answers in taken.items()}


# ---- TRL ---------------------------------------------------------------------------------------------------


def same_work(learning_rate: float) -> dict[str, Any]:
    """Options of TRL's trainers under which they compute what Policysmith computes, and write nothing."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": 1_000_000,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        # TRL's defaults compute in bfloat16 and run every layer twice to save memory.
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def on_the_clock(clock: Clock) -> Any:
    """A callback that makes the trainer's steps those of the clock, the reading of batches included."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **options: Any) -> None:
            clock.turn()

    return Turns()


def load(folder: str) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def model_folder(size: str, folder: Path, *, words: Sequence[str] = ()) -> Path:
    """SmolLM2's, or one that is made in `folder`: the small decoder over characters or words."""
    if size == "smollm2":
        from policysmith.policies.language.models import get_model

        return get_model("smollm2-135m")
    from policysmith.policies.language.small import small_decoder

    small_decoder(0, words=words).save_pretrained(folder / size)
    return folder / size


# ---- measuring ---------------------------------------------------------------------------------------------

Side = Callable[[Any, str, ClockWithMemory], None]
"""A worker's half of a script: the work, the folder, and the clock whose steps it takes for ever."""


def take_turns(
    settings: Loaded,
    pythons: Mapping[str, Path],
    *,
    check: Callable[[Mapping[str, Answer]], None],
    rounds: int,
    shown: Callable[[Answer], str],
) -> tuple[dict[str, Answer], dict[str, list[Answer]]]:
    """What the sides say of themselves, which `check` looks at first, and their answers round by round."""
    workers: dict[str, Worker] = {}
    work, offline = settings.work, {"HF_HUB_OFFLINE": "1"}
    try:
        for side, python in pythons.items():
            workers[side] = Worker(python, side, settings, threads=work.threads, environment=offline)
        about = {side: worker.about for side, worker in workers.items()}
        check(about)
        # The first step makes the optimiser's state and fills caches: it does not count.
        return about, in_turn(workers, str(work.steps), rounds=rounds, warm_up="1", shown=shown)
    finally:
        for worker in workers.values():
            worker.close()


def check_equal(about: Mapping[str, Answer], *names: str) -> None:
    """End the script where the sides say different numbers of these names."""
    for name in names:
        if len({values[name] for values in about.values()}) > 1:
            raise SystemExit(f"the sides differ in {name}: {about}")


def run(
    parser: argparse.ArgumentParser,
    name: str,
    *,
    sizes: Mapping[str, Any],
    sides: Mapping[str, Side],
    clock: Callable[[Any], ClockWithMemory],
    measure: Callable[[Any, Path, int], dict[str, Any]],
) -> None:
    """A script: be one of the `sides` where told so, else `measure` (work, TRL's interpreter, rounds) sizes.

    A work is a dataclass with `threads`, and `steps` a round; arguments change these, and a `micro_batch`.
    """
    accept_peer(parser, PEER.name)
    parser.add_argument("--size", choices=tuple(sizes), action="append", help="default: both")
    parser.add_argument("--steps", type=int, help="steps per round, instead of the size's own")
    arguments = parser.parse_args()
    if arguments.worker:
        work = type(next(iter(sizes.values())))(**arguments.settings["work"])
        sides[arguments.worker](work, arguments.settings["folder"], clock(answers_to(work.threads)))
        return
    python = arguments.peer_python or PEER.python(arguments.peer_env)
    results = {}
    for size in arguments.size or sizes:
        given = {name: getattr(arguments, name, None) for name in ("threads", "steps", "micro_batch")}
        work = replace(sizes[size], **{name: value for name, value in given.items() if value})
        results[size] = measure(work, python, arguments.rounds)
    result = {"benchmark": name, "peer": PEER.requirement, "machine": machine(), "sizes": results}
    tell(result, arguments.json)

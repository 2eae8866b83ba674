"""Kill a training run again and again, and see that it ends where the undisturbed run ends.

    python scripts/kill_test.py --kills 20

A run of the tiny preset on made-up episodes (or of a tiny language model on sums) is started in a process
of its own and killed (SIGKILL) at a random moment: while it starts, in the middle of a step, or while it
writes a checkpoint. A fresh process goes on from what is on the disk, and is killed in its turn. At the end
weights, averages, optimiser, generators and metrics must be those of an undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policysmith.common.catalogue import find_system
from policysmith.common.config import config_to_json
from policysmith.common.saving import load_tree
from policysmith.evaluation.conformance import language_inputs
from policysmith.experience.episodes import Episodes
from policysmith.training.runs import RunDirectory
from policysmith.worlds.registry import make

AIMS = ("start", "step", "write")
"""When a process is killed: before its first step, some time into a step, or while it writes a checkpoint."""


@dataclass(frozen=True)
class Job:
    """What is trained: `steps` steps of a system's tiny preset, with a checkpoint every few.

    A system that acts learns from stacks of pictures with so many pixels a side where `pictures` is not 0.
    """

    system: str = "sdp"
    steps: int = 60
    checkpoint_every: int = 4
    seed: int = 0
    pictures: int = 0

    def train(self, folder: Path) -> Any:
        """Begin the run in `folder`, or go on with the one that is there; an iterator of its steps."""
        system = find_system(self.system)
        module = system.load()
        config = with_steps(module.PRESETS["tiny"], self.steps)
        inputs: tuple[Any, ...] = (made_up_episodes(),)
        if "prompts" in system.takes:
            inputs = language_inputs(folder.parent / "inputs")
        elif "episodes" not in system.takes:
            views = {"camera": (2, self.pictures, self.pictures)}
            inputs = (partial(make, "point-reach", pictures=views) if self.pictures else "Pendulum-v1",)
        saved = None
        if (folder / "config.json").is_file():
            directory = RunDirectory.open(folder)
            saved = directory.load_checkpoint()
        else:
            directory = RunDirectory.create(
                folder, {"system": self.system, "settings": config_to_json(config)}
            )
        progress = module.train(*inputs, config=config, seed=self.seed, state=saved)
        return directory.record(progress, checkpoint_every=self.checkpoint_every, log_every=5)


def with_steps(config: Any, steps: int) -> Any:
    """The settings for a run of so many steps, whichever way they count them."""
    if not hasattr(config, "environment_steps"):
        return replace(config, steps=steps)
    return replace(config, environment_steps=steps * config.environment_steps // config.steps)


def made_up_episodes() -> Episodes:
    """Small random episodes of unequal lengths, the same every time."""
    rng = np.random.default_rng(0)
    return Episodes.from_arrays(
        {
            "observation": rng.standard_normal((length + 1, 3)),
            "action": rng.uniform(-1, 1, (length, 2)),
            "reward": rng.standard_normal(length),
        }
        for length in (12, 5, 1, 21)
    )


# ---- the process that is killed ------------------------------------------------------------------------


class Worker:
    """A fresh process that is ready to train and waits to be told to."""

    def __init__(self, job: Job, folder: Path) -> None:
        words = [sys.executable, __file__, "--work", json.dumps(vars(job)), str(folder)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.steps: list[int] = []

    def go(self) -> None:
        """Let it train, once it is ready."""
        self._hear("ready")
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self._hear("begun")

    def wait_for_steps(self, count: int) -> None:
        """Wait until it has reported `count` steps."""
        while len(self.steps) < count:
            self.steps.append(int(self._hear("step")))

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Send it a signal, if any, and wait: its exit code and what it said on standard error."""
        if self.process.poll() is None and number is not None:
            self.process.send_signal(number)
        if self.process.stdout is None or self.process.stderr is None or self.process.stdout.closed:
            return self.process.wait(), ""
        with self.process.stdout as out, self.process.stderr as errors:
            self.steps += [int(line.split()[1]) for line in out if line.startswith("step ")]
            return self.process.wait(), errors.read()

    def _hear(self, word: str) -> str:
        assert self.process.stdout is not None
        said, _, rest = self.process.stdout.readline().partition(" ")
        assert said.strip() == word, f"said '{said}' instead of '{word}': {self.end(signal.SIGKILL)[1]}"
        return rest


def work(job: Job, folder: Path) -> int:
    """What the process does: wait, train, and say each step that has been recorded."""
    torch.set_num_threads(1)
    find_system(job.system).load()
    print("ready", flush=True)
    sys.stdin.readline()
    print("begun", flush=True)
    try:
        for now in job.train(folder):
            print(f"step {now.step}", flush=True)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {interrupt}", file=sys.stderr)
        return 130
    return 0


# ---- killing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """One kill: its aim, the newest step reported, the newest checkpoint left, and what was half-written."""

    aim: str
    step: int
    checkpoint: int
    unfinished: list[str]


def train_with_kills(job: Job, folder: Path, *, kills: int, rng: random.Random) -> list[Kill]:
    """Train to the end in as many processes as it takes, the first `kills` of which are killed.

    Raises `AssertionError` where a process ends by itself too early, where the last one fails, or where a
    kill leaves a checkpoint that cannot be read.
    """
    done: list[Kill] = []
    with ExitStack() as cleaning:

        def start() -> Worker:
            worker = Worker(job, folder)
            cleaning.callback(worker.end, signal.SIGKILL)
            return worker

        upcoming = start()
        for number in range(kills):
            worker, upcoming = upcoming, start()  # the next one imports while this one trains
            worker.go()
            _aim(worker, folder, AIMS[number % len(AIMS)], rng=rng, most=max(1, job.steps // (kills + 1)))
            code, errors = worker.end(signal.SIGKILL)
            assert code == -signal.SIGKILL, f"ended with {code} before kill {number + 1}: {errors}"
            done.append(_look(worker, folder, AIMS[number % len(AIMS)]))
        upcoming.go()
        code, errors = upcoming.end()
        assert code == 0, f"the last process ended with {code}: {errors}"
    return done


def _aim(worker: Worker, folder: Path, aim: str, *, rng: random.Random, most: int) -> None:
    """Wait for a moment at which to kill, at most `most` steps away and a little more."""
    if aim == "start":
        time.sleep(rng.uniform(0, 0.05))
        return
    worker.wait_for_steps(rng.randint(1, most))
    if aim == "step":
        time.sleep(rng.uniform(0, 0.02))
        return
    patience = time.monotonic() + 10
    while not _unfinished(folder / "checkpoints") and time.monotonic() < patience:
        pass


def _look(worker: Worker, folder: Path, aim: str) -> Kill:
    checkpoints = RunDirectory(folder).checkpoints()
    for path in checkpoints:
        load_tree(path)  # whatever carries a checkpoint's name is whole
    newest = int(checkpoints[-1].stem.removeprefix("step-")) if checkpoints else 0
    left = _unfinished(folder / "checkpoints") + _unfinished(folder)
    return Kill(aim, worker.steps[-1] if worker.steps else 0, newest, left)


def _unfinished(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".part")] if folder.is_dir() else []


# ---- comparing -----------------------------------------------------------------------------------------


def differences(one: Path, other: Path) -> list[str]:
    """Where two run directories differ, timings aside; empty where they are the same bit for bit."""
    found: list[str] = []
    newest = [RunDirectory(folder).checkpoints()[-1] for folder in (one, other)]
    if newest[0].name != newest[1].name:
        return [f"the last checkpoints are {newest[0].name} and {newest[1].name}"]
    _compare(load_tree(newest[0]), load_tree(newest[1]), "checkpoint", found)
    if _metrics(one) != _metrics(other):
        found.append("metrics")
    for name in ("config.json", "policy/config.json", "policy/model.safetensors"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    return found + [
        f"left behind: {name}" for name in _unfinished(other) + _unfinished(other / "checkpoints")
    ]


def _metrics(folder: Path) -> list[dict[str, float]]:
    lines = RunDirectory(folder).metrics()
    return [{k: v for k, v in line.items() if not k.startswith("seconds/")} for line in lines]


def _compare(one: Any, other: Any, place: str, found: list[str]) -> None:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            _compare(one[key], other[key], f"{place}/{key}", found)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, pair in enumerate(zip(one, other, strict=True)):
            _compare(*pair, f"{place}/{i}", found)
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            found.append(place)
    elif one != other:
        found.append(place)


def main(words: list[str] | None = None) -> int:
    """Run the test and print what happened; 0 where nothing differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="how many processes are killed")
    parser.add_argument("--steps", type=int, default=600, help="steps of the whole run")
    parser.add_argument(
        "--system", default="sdp", help="a system with a tiny preset that learns from episodes"
    )
    parser.add_argument("--seed", type=int, default=0, help="when to kill")
    parser.add_argument("--work", nargs=2, metavar=("JOB", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.work:
        return work(Job(**json.loads(options.work[0])), Path(options.work[1]))
    torch.set_num_threads(1)
    job = Job(system=options.system, steps=options.steps)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        for _ in job.train(whole):
            pass
        began = time.perf_counter()
        for kill in train_with_kills(job, killed, kills=options.kills, rng=random.Random(options.seed)):
            print(
                f"killed ({kill.aim:5}) after step {kill.step:4}, checkpoint {kill.checkpoint:4}",
                *kill.unfinished,
            )
        differing = differences(whole, killed)
    print(f"{options.kills} kills over {job.steps} steps in {time.perf_counter() - began:.0f} s")
    print("different: " + ", ".join(differing) if differing else "the same, bit for bit")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

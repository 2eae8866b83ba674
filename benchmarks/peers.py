"""What the benchmarks share: a peer in an environment of its own, sides that answer in turn, and their clock.

A script has a half per side. It starts itself once more for each of them, as `script --worker SIDE
--settings JSON`, the peer's half with the interpreter of the peer's environment. The halves are then asked in
turn (peer, ours, peer, ours...), so that what else the machine does falls on all of them; a ratio is taken
per round, and the median is printed with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import types
import venv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

CACHE = Path.home() / ".cache/policysmith/benchmarks"
Answer = dict[str, Any]


# ---- the peer's environment ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """A package to compare with, and what is installed with it.

    - `name`: of its folder; `requirement`: the package itself, "" where the peer is a file.
    - `beside`: what it is installed with, before it.
    - `alone`: it is installed without its dependencies, because it would replace another
      package by an older version.
    """

    name: str
    requirement: str
    beside: tuple[str, ...] = ()
    alone: bool = False

    def python(self, folder: Path | None = None) -> Path:
        """The interpreter of its environment, which is made if it is not there or was made otherwise."""
        folder = (folder or CACHE / self.name).expanduser().resolve()
        first = [same_as_ours("torch"), *self.beside]
        recipe = "\n".join([*first, self.requirement])
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        done = folder / "installed.txt"
        if done.is_file() and done.read_text() == recipe:
            return python
        print(f"installing {self.requirement or self.name} into {folder} (once)", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        last = [*(["--no-deps"] if self.alone else first), self.requirement] if self.requirement else []
        for arguments in (first, last):
            # pip's own words go where progress goes: standard output is for the result.
            if arguments:
                subprocess.run([*pip, *arguments], check=True, stdout=sys.stderr)
        done.write_text(recipe)
        return python


@dataclass(frozen=True)
class Source:
    """A public repository whose files are run as they are, at a commit."""

    repository: str
    commit: str

    def folder(self, given: Path | None) -> Path:
        """A checkout: the one that was given, or one that is cloned on the first run."""
        if given:
            return given.expanduser().resolve()
        folder = CACHE / "sources" / self.repository.replace("/", "+")
        if not (folder / "complete").is_file():
            url = f"https://github.com/{self.repository}"
            try:
                if not folder.is_dir():
                    subprocess.run(["git", "clone", "-q", url, str(folder)], check=True)
                subprocess.run(["git", "-C", str(folder), "checkout", "-q", self.commit], check=True)
            except subprocess.CalledProcessError:
                raise SystemExit(
                    f"{self.repository} could not be cloned; give a checkout of its commit {self.commit}"
                ) from None
            (folder / "complete").touch()
        return folder


def stand_in(name: str, **attributes: Any) -> None:
    """A module `name` with nothing but these attributes, in place of one that a peer's file imports."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # some libraries look whether others are there
    vars(module).update(attributes)
    sys.modules[name] = module


def same_as_ours(package: str, *extras: str) -> str:
    """The requirement that brings the version that Policysmith runs on."""
    version = importlib.metadata.version(package).partition("+")[0]
    return f"{package}[{','.join(extras)}]=={version}" if extras else f"{package}=={version}"


SB3 = "stable-baselines3==2.9.2"


def stable_baselines() -> Peer:
    """Stable-Baselines3, in one environment for all scripts that compare with it."""
    return Peer("sb3", SB3, worlds())


def worlds() -> tuple[str, ...]:
    """What the control benchmarks play, in the versions that we have; not every worker has all of it."""
    return same_as_ours("gymnasium", "mujoco"), same_as_ours("mujoco")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of Python and of those packages that are installed where this runs."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def weights_of(*networks: Any) -> int:
    """How many weights modules have together."""
    return sum(p.numel() for network in networks for p in network.parameters())


def machine() -> dict[str, Any]:
    return {"processors": os.cpu_count(), "architecture": platform.machine()}


# ---- the worker: one side in a process of its own, told what to do line by line ----------------------------


class Worker:
    """A side in its process. What it says of itself is in `about`."""

    def __init__(
        self,
        python: Path,
        side: str,
        settings: Any,
        *,
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        variables = dict(os.environ)
        if Path(python) != Path(sys.executable):  # the peer must not see this environment's packages
            variables.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [str(python), sys.argv[0], "--worker", side, "--settings", json.dumps(asdict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables | {"OMP_NUM_THREADS": str(threads)} | dict(environment or {}),
        )
        self.about = self._answer()

    def ask(self, line: str) -> Answer:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Answer:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended early, with status {self.process.wait()}; see its output above")
        return json.loads(line)


def answers_to(threads: int) -> Any:
    """Where a worker writes its answers, apart from what libraries print; sets PyTorch's threads and seed."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    answers, sys.stdout = sys.stdout, sys.stderr
    return answers


class Clock:
    """Answers each line "N" with the time that the next N steps took, and with what was noted meanwhile.

    The time of calls that are `timed` counts to their part, all other time to the part `rest`. The parts are
    measured by `timer`: the clock on the wall, or the time of the processor, which other work does not touch.
    A line that is one of `tasks` is answered with what the task says.
    """

    def __init__(self, answers: Any, rest: str, timer: Callable[[], float] = time.perf_counter) -> None:
        self.answers = answers
        self.rest = rest
        self.timer = timer
        self.left = self.steps = 0
        self.parts: dict[str, float] = defaultdict(float)
        self.noted: dict[str, list[Any]] = defaultdict(list)
        self.tasks: dict[str, Callable[[], Answer]] = {}

    def ready(self, **about: Any) -> None:
        """Nothing has been learnt yet: say what this side is."""
        print(json.dumps(about), file=self.answers, flush=True)

    def begin(self) -> None:
        """A step begins."""
        while self.left == 0:
            line = sys.stdin.readline()
            if not line:
                os._exit(0)
            if line.strip() in self.tasks:
                print(json.dumps(self.tasks[line.strip()]()), file=self.answers, flush=True)
                continue
            self.left = self.steps = int(line)
            self.started()

    def end(self) -> None:
        """A step ends."""
        self.left -= 1
        if self.left == 0:
            print(json.dumps(self.taken()), file=self.answers, flush=True)

    def turn(self) -> None:
        """A step ends, if one was under way, and the next begins: where a peer calls back once per step."""
        if self.left:
            self.end()
        self.begin()

    def started(self) -> None:
        self.parts.clear()
        self.noted.clear()
        self.start, self.cpu, self.part = time.perf_counter(), time.process_time(), self.timer()

    def taken(self) -> Answer:
        """Per step, but for what was noted."""
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        parts = self.parts | {self.rest: self.timer() - self.part - sum(self.parts.values())}
        return {
            "seconds": seconds / self.steps,
            "cpu_seconds": cpu / self.steps,
            "parts": {name: value / self.steps for name, value in parts.items()},
            "steps": self.steps,
            **self.noted,
        }

    def note(self, name: str, values: Iterable[Any]) -> None:
        """What the next answer tells besides, like the returns of episodes that ended."""
        self.noted[name].extend(values)

    def timed(
        self, owner: Any, name: str, part: str | Callable[..., str | None], *, within: str = ""
    ) -> None:
        """Let every call of `owner.name` count to a part; `within` another, it is taken off that one."""
        original, timer = getattr(owner, name), self.timer

        def call(*arguments: Any, **options: Any) -> Any:
            start = timer()
            try:
                return original(*arguments, **options)
            finally:
                seconds = timer() - start
                counted = part if isinstance(part, str) else part(*arguments, **options)
                if counted:
                    self.parts[counted] += seconds
                    if within:
                        self.parts[within] -= seconds

        setattr(owner, name, call)


# ---- measuring -------------------------------------------------------------------------------------------


def in_turn(
    workers: Mapping[str, Worker],
    question: str,
    *,
    rounds: int,
    warm_up: str,
    shown: Callable[[Answer], str],
    pause: float = 0.3,
) -> dict[str, list[Answer]]:
    """The answers of each side, round by round, after a `warm_up` that does not count."""
    taken: dict[str, list[Answer]] = {side: [] for side in workers}
    for number in range(-1, rounds):
        told = []
        for side, worker in workers.items():
            # The other side's threads wait busily for a moment after their work.
            time.sleep(pause)
            answer = worker.ask(question if number >= 0 else warm_up)
            if number >= 0:
                taken[side].append(answer)
                told.append(f"{side} {shown(answer)}")
        if told:
            print(f"round {number + 1} of {rounds}: {', '.join(told)}", file=sys.stderr)
    return taken


def compared(
    work: Any,
    pythons: Mapping[str, Path],
    peers: Iterable[str],
    *,
    steps: int,
    rounds: int,
    warm_up: int,
    per_step: int = 1,
    environment: Mapping[str, str] | None = None,
    at_the_end: Callable[[Mapping[str, Worker]], dict[str, Any]] = lambda workers: {},
) -> dict[str, Any]:
    """Sides whose networks have as many weights, in turn: see `speeds`, `at_the_end` adding to it.

    A round is `steps` steps of the clock, each worth `per_step` of the unit that is told.
    """
    workers = {
        side: Worker(python, side, work, threads=work.threads, environment=environment)
        for side, python in pythons.items()
    }
    try:
        about = {side: worker.about for side, worker in workers.items()}
        if len({values["weights"] for values in about.values()}) > 1:
            raise SystemExit(f"the networks differ: {about}")
        taken = in_turn(
            workers,
            str(steps),
            rounds=rounds,
            warm_up=str(warm_up),
            shown=lambda answer: f"{per_step / answer['seconds']:.0f}/s",
        )
        added = at_the_end(workers)
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "weights": about[next(iter(about))]["weights"],
        "versions": {side: values["versions"] for side, values in about.items()},
        "steps_per_round": steps * per_step,
        **speeds(taken, per_step=per_step, peers=peers),
        **added,
    }


def ratio(
    peer: Sequence[Answer], ours: Sequence[Answer], value: Callable[[Answer], float]
) -> dict[str, float]:
    """How many times the peer's value is ours, per round."""
    of_rounds = [value(one) / value(other) for one, other in zip(peer, ours, strict=True)]
    return {"median": statistics.median(of_rounds), "smallest": min(of_rounds), "largest": max(of_rounds)}


def middle(answers: Sequence[Answer], value: Callable[[Answer], float]) -> float:
    return statistics.median(map(value, answers))


def speeds(taken: Mapping[str, Sequence[Answer]], *, per_step: int, peers: Iterable[str]) -> dict[str, Any]:
    """Of a task at which any number of sides worked: how much a second, where the time goes, ratios, returns.

    `per_step` is what a step of the clock comes to, in the unit that is told. Returns are means over the
    episodes that ended in a round, None where none did.
    """
    peers = [side for side in peers if side in taken]
    ours = [side for side in taken if side not in peers]
    return {
        "per_second": {side: per_step / middle(all, seconds) for side, all in taken.items()},
        "per_second_of_processor": {side: per_step / middle(all, cpu_seconds) for side, all in taken.items()},
        "microseconds": {
            side: {
                part: 1e6 / per_step * middle(all, lambda one, part=part: one["parts"].get(part, 0.0))
                for part in all[0]["parts"]
            }
            for side, all in taken.items()
        },
        "times_as_fast": {
            f"{mine} against {peer}": {
                "by_the_clock": ratio(taken[peer], taken[mine], seconds),
                "by_processor_time": ratio(taken[peer], taken[mine], cpu_seconds),
            }
            for mine in ours
            for peer in peers
        },
        "returns": {side: [mean_of(one.get("returns")) for one in all] for side, all in taken.items()},
    }


def seconds(answer: Answer) -> float:
    return answer["seconds"]


def cpu_seconds(answer: Answer) -> float:
    return answer["cpu_seconds"]


def mean_of(values: Sequence[float] | None) -> float | None:
    return statistics.fmean(values) if values else None


# ---- playing ---------------------------------------------------------------------------------------------


def played(environment: Any, act: Callable[[Any], Any], episodes: int = 20) -> list[float]:
    """The returns of `act` (observation -> action) in episodes that are the same for all sides."""
    returns = []
    for seed in range(episodes):
        observation, total, over = environment.reset(seed=1000 + seed)[0], 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = environment.step(act(observation))
            total += float(reward)
            over = terminated or truncated
        returns.append(total)
    return returns


def acting(policy: Any) -> Callable[[Any], Any]:
    """A policy of ours as `act` for one environment whose observation is one vector."""
    import torch

    rng = torch.Generator()

    @torch.no_grad()
    def act(observation: Any) -> Any:
        seen = torch.from_numpy(observation).float()[None, None]
        action = policy.act(seen, policy.initial_state(1), rng=rng)[0][0, 0]
        return action.numpy() if action.is_floating_point() else int(action)

    return act


# ---- the script's arguments -----------------------------------------------------------------------------


def arguments_of(doc: str | None, *, rounds: int | None = None, threads: int = 1) -> argparse.ArgumentParser:
    """The arguments that all scripts have; `rounds` those that time."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--threads", type=int, default=threads)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    return parser


def accept_peer(parser: argparse.ArgumentParser, name: str) -> None:
    """The arguments of a script with one peer."""
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peer already")
    parser.add_argument(
        "--peer-env",
        type=Path,
        default=CACHE / name,
        help="folder of the peer's environment (default: %(default)s)",
    )


def tell(result: Any, file: Path | None) -> None:
    """Print a result as JSON, and write it."""
    text = json.dumps(result, indent=2)
    print(text)
    if file:
        file.write_text(text + "\n")

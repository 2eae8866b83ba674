"""Environments in worker processes, which share the memory that observations are in.

A worker that dies is started again with fresh environments, and the rows it had are reported as lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.observations import Seen
from policysmith.experience.environments import InThisProcess, Maker, Steps, check_same


class InProcesses:
    """Environments in worker processes, a share of them each; for simulators that cost more than a message.

    A worker that dies (killed, or a simulator that crashed) is started again with fresh environments, at most
    `restarts` times in all; `restarted` counts them. Makers must be picklable (a `functools.partial` of
    `worlds.registry.make`, say). Observations come through shared memory, all else through pipes.
    """

    def __init__(self, makers: Sequence[Maker], *, workers: int = 2, restarts: int = 10) -> None:
        if not makers or workers < 1:
            raise SettingError(
                f"{len(makers)} environments in {workers} processes", expected="at least one of each"
            )
        self.count, self.restarts, self.restarted = len(makers), restarts, 0
        self._context = get_context("spawn")
        shares = np.array_split(np.arange(self.count), min(workers, self.count))
        self._rows = [[int(row) for row in share] for share in shares]
        self._makers = [[makers[row] for row in rows] for rows in self._rows]
        self._workers = [self._start(share) for share in self._makers]
        spaces = [self._ask(worker, ("spaces", None)) for worker in range(len(self._workers))]
        self.observation_space, self.action_space = spaces[0]
        for worker, (observation, action) in enumerate(spaces):
            check_same(self, observation, action, self._rows[worker][0])
        self._shared = Shared.of(self.observation_space, self.count)
        for worker in range(len(self._workers)):
            self._ask(worker, ("share", (self._shared.names, self._rows[worker])))

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Seen]:
        """See `Environments`."""
        found: dict[int, Seen] = {}
        for worker, rows in enumerate(self._rows):
            mine = {rows.index(row): seed for row, seed in seeds.items() if row in rows}
            if not mine:
                continue
            try:
                self._ask(worker, ("reset", mine))
            except _Dead:
                self._restart(worker)
                self._ask(worker, ("reset", mine))
            found |= {rows[place]: self._shared.read(rows[place]) for place in mine}
        return found

    def step(self, actions: np.ndarray) -> Steps:
        """See `Environments`; all workers step at the same time. A dead one is started again by `reset`."""
        dead: set[int] = set()
        for worker, rows in enumerate(self._rows):
            try:
                self._workers[worker][1].send(("step", actions[rows]))
            except (BrokenPipeError, OSError):
                dead.add(worker)
        answers: list[tuple[Any, ...] | None] = []
        for worker in range(len(self._rows)):
            try:
                answers.append(None if worker in dead else self._answer(worker))
            except _Dead:
                dead.add(worker)
                answers.append(None)
        return self._joined(answers, [row for worker in sorted(dead) for row in self._rows[worker]])

    def close(self) -> None:
        """See `Environments`."""
        for process, pipe in self._workers:
            with suppress(BrokenPipeError, OSError):
                pipe.send(("close", None))
            process.join(timeout=2)
            if process.is_alive():
                process.kill()
            pipe.close()
        self._shared.close(unlink=True)

    @property
    def process_ids(self) -> list[int]:
        """Of the workers."""
        return [process.pid for process, _ in self._workers]

    def _start(self, makers: Sequence[Maker]) -> tuple[Any, Connection]:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, list(makers)), daemon=True)
        process.start()
        theirs.close()
        return process, mine

    def _restart(self, worker: int) -> None:
        if self.restarted >= self.restarts:
            raise CapabilityError(
                f"a worker process died once more after {self.restarted} restarts",
                where=f"environments {self._rows[worker]}",
                cure="run the environment alone to see why it crashes",
            )
        self.restarted += 1
        process, pipe = self._workers[worker]
        pipe.close()
        process.kill()
        process.join()
        self._workers[worker] = self._start(self._makers[worker])
        self._ask(worker, ("share", (self._shared.names, self._rows[worker])))

    def _ask(self, worker: int, message: tuple[str, Any]) -> Any:
        try:
            self._workers[worker][1].send(message)
        except (BrokenPipeError, OSError) as error:
            raise _Dead from error
        return self._answer(worker)

    def _answer(self, worker: int) -> Any:
        try:
            fine, answer = self._workers[worker][1].recv()
        except (EOFError, ConnectionResetError, OSError) as error:
            raise _Dead from error
        if not fine:
            raise answer
        return answer

    def _joined(self, answers: list[tuple[Any, ...] | None], lost: list[int]) -> Steps:
        reward = next((answer[0] for answer in answers if answer is not None), np.zeros(1, np.float32))
        steps = Steps(
            [np.zeros(0)] * self.count,
            np.zeros((self.count, *reward.shape[1:]), np.float32),
            np.zeros(self.count, bool),
            np.zeros(self.count, bool),
            [{}] * self.count,
            lost,
        )
        for rows, answer in zip(self._rows, answers, strict=True):
            if answer is None:
                continue
            for place, row in enumerate(rows):
                steps.observation[row], steps.info[row] = self._shared.read(row), answer[3][place]
            steps.reward[rows], steps.terminated[rows], steps.truncated[rows] = answer[:3]
        return steps


class Shared:
    """Observations [env, ...] in memory that several processes see, an array per part.

    `names` are how other processes find the blocks of memory, by part.
    """

    def __init__(self, blocks: Mapping[str, SharedMemory], arrays: Mapping[str, np.ndarray]) -> None:
        self.blocks, self.arrays = dict(blocks), dict(arrays)
        self.names = {part: block.name for part, block in blocks.items()}

    @classmethod
    def of(cls, space: gymnasium.Space, count: int, names: Mapping[str, str] | None = None) -> Shared:
        """For `count` environments; new memory, or what other processes know by `names`."""
        spaces: Mapping[str, Any] = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"": space}
        blocks, arrays = {}, {}
        for part, one in spaces.items():
            shape, dtype = (count, *(one.shape or ())), np.dtype(one.dtype)
            size, name = max(1, math.prod(shape) * dtype.itemsize), (names or {}).get(part)
            blocks[part] = SharedMemory(name, create=name is None, size=size)
            arrays[part] = np.ndarray(shape, dtype, buffer=blocks[part].buf)
        return cls(blocks, arrays)

    def write(self, row: int, seen: Seen) -> None:
        """Put the observation of one environment where the others see it."""
        if isinstance(seen, Mapping):
            for part, value in seen.items():
                self.arrays[part][row] = value
        else:
            self.arrays[""][row] = seen

    def read(self, row: int) -> Seen:
        """The observation of one environment; it is overwritten at the next step."""
        if "" in self.arrays:
            return self.arrays[""][row]
        return {part: array[row] for part, array in self.arrays.items()}

    def close(self, *, unlink: bool = False) -> None:
        """Let go of the memory; `unlink` gives it back."""
        self.arrays = {}
        for block in self.blocks.values():
            block.close()
            if unlink:
                block.unlink()


class _Dead(Exception):  # noqa: N818
    """A worker does not answer any more."""


def _work(pipe: Connection, makers: list[Maker]) -> None:
    """What a worker process does: answer until it is told to close, or nobody is there any more."""
    try:
        environments = InThisProcess(makers)
    except Exception as error:
        pipe.recv()
        pipe.send((False, error))
        return
    shared: Shared | None = None
    rows: list[int] = []
    while True:
        try:
            what, content = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        if what == "close":
            environments.close()
            if shared is not None:
                shared.close()
            return
        try:
            if what == "spaces":
                answer: Any = (environments.observation_space, environments.action_space)
            elif what == "share":
                names, rows = content
                shared = Shared.of(environments.observation_space, max(rows) + 1, names)
                answer = None
            elif what == "reset":
                assert shared is not None
                for place, seen in environments.reset(content).items():
                    shared.write(rows[place], seen)
                answer = None
            else:
                assert shared is not None
                steps = environments.step(content)
                for row, seen in zip(rows, steps.observation, strict=True):
                    shared.write(row, seen)
                answer = (steps.reward, steps.terminated, steps.truncated, steps.info)
            pipe.send((True, answer))
        except Exception as error:
            pipe.send((False, error))

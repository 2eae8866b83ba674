"""The run directory: what a run was, how it went, and all that is needed to go on.

    config.json            system, version, settings, inputs, seed, commit
    metrics.jsonl          one line per logged step
    samples.jsonl          a few samples of each logged step, of runs that have some to show
    checkpoints/           step-00001000.safetensors, the newest few
    policy/                configuration and weights of the policy as it stands, loadable by name
    evaluation.json        what `policysmith eval` measured, once it has
    report.html            the page a person reads

`record` wraps a training run and yields what it yields, writing as it goes: nothing is called back. A killed
process loses at most one checkpoint interval, and going on from the checkpoint repeats the same numbers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import policysmith
from policysmith.common.errors import FileError, SettingError
from policysmith.common.extras import require
from policysmith.common.saving import load_json, load_tree, save_json, save_tree, write_beside
from policysmith.training import processes
from policysmith.training.loop import Progress, RunState

CHECKPOINT = re.compile(r"step-(\d+)\.safetensors")


class RunDirectory:
    """A folder that holds one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> RunDirectory:
        """Start a run in `path`; `FileError` where the folder already holds anything."""
        directory = cls(path)
        directory.check_free()
        directory._remove_unfinished()
        save_json(directory.path / "config.json", {"library_version": policysmith.__version__, **config})
        return directory

    def check_free(self) -> None:
        """Raise `FileError` where the folder already holds anything."""
        path = self.path
        # What a kill left half written in the first moment of a run is in nobody's way.
        if path.is_dir() and any(not _is_unfinished(one) for one in path.iterdir()):
            holds = "a run" if (path / "config.json").is_file() else "files"
            raise FileError(
                f"the folder already holds {holds}",
                where=str(path),
                cure=f"go on with it (`policysmith resume {path}`) or choose another name (--out)",
            )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Open an existing run; `FileError` where there is none."""
        if not (Path(path) / "config.json").is_file():
            raise FileError("there is no run here", where=str(path), expected="a folder with config.json")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """What the run was started with."""
        return load_json(self.path / "config.json")

    # ---- checkpoints ---------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob("step-*.safetensors")
        steps = {path: CHECKPOINT.fullmatch(path.name) for path in found}
        return [path for _, path in sorted((int(step[1]), path) for path, step in steps.items() if step)]

    def save_checkpoint(self, state: RunState, *, keep: int) -> Path:
        """Write the state, then remove all but the newest `keep` checkpoints."""
        path = self.path / "checkpoints" / f"step-{state.step:08d}.safetensors"
        system = self.config.get("system", "")
        save_tree(path, {"system": system, "state": state.state_dict()})
        for old in self.checkpoints()[:-keep]:
            old.unlink()
        return path

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest saved state, or None before the first; metrics written after it are cut off.

        What a killed process was writing is removed. Raises `FileError` where the checkpoint belongs to
        another system or is damaged; without that file, the run goes on from the checkpoint before it.
        """
        self._remove_unfinished()
        checkpoints = self.checkpoints()
        if not checkpoints:
            self._cut_metrics(0)
            return None
        try:
            saved = load_tree(checkpoints[-1])
        except FileError as error:
            if error.expected:  # whole, but written by another version
                raise
            before = checkpoints[-2].name if len(checkpoints) > 1 else "the beginning"
            raise FileError(
                error.what, where=error.where, cure=f"delete the file: the run then goes on from {before}"
            ) from error
        system = self.config.get("system", "")
        if not isinstance(saved, dict) or saved.get("system") != system:
            raise FileError(
                "the checkpoint belongs to another system",
                where=str(checkpoints[-1]),
                expected=f"a checkpoint of '{system}'",
            )
        self._cut_metrics(saved["state"]["step"])
        return saved["state"]

    # ---- metrics -------------------------------------------------------------------------------------

    def metrics(self) -> list[dict[str, float]]:
        """The logged lines, `step` among their entries."""
        return self._lines("metrics.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.is_file():
            return []
        # A last line without its end is one that a kill cut short.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise FileError(
                f"a line is damaged: {error}", where=str(path), cure="delete that line or the file"
            ) from error

    def samples(self) -> list[dict[str, Any]]:
        """The kept samples, `step` among their entries."""
        return self._lines("samples.jsonl")

    def _keep_samples(self, now: Progress) -> None:
        if now.state.shown:
            with (self.path / "samples.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": now.step, **one}) + "\n" for one in now.state.shown)

    def _cut_metrics(self, step: int) -> None:
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if path.is_file():
                kept = [json.dumps(line) + "\n" for line in self._lines(name) if line["step"] <= step]
                with write_beside(path) as temporary:
                    temporary.write_text("".join(kept), encoding="utf-8")

    def _remove_unfinished(self) -> None:
        for folder in (self.path, self.path / "checkpoints"):
            for left in (*folder.glob(".*.part"), *folder.glob(".*.old")):
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    # ---- recording -----------------------------------------------------------------------------------

    def record(
        self,
        progress: Iterator[Progress],
        *,
        checkpoint_every: int,
        keep: int = 2,
        log_every: int = 10,
        tensorboard: bool = False,
    ) -> Iterator[Progress]:
        """Drive `progress` and yield it on, logging every `log_every` steps and saving as asked.

        Of several processes (`training.processes`) the first one writes, the others only go along.

        Ctrl-C ends the run after the step it is in, with a checkpoint, by raising `KeyboardInterrupt`; a
        second Ctrl-C ends it at once. After the last step the policy is saved too.
        """
        if min(checkpoint_every, keep, log_every) < 1:
            raise SettingError(
                f"checkpoint_every {checkpoint_every}, keep {keep}, log_every {log_every}",
                expected="at least 1 each",
            )
        if processes.number() > 0:
            yield from progress
            return
        with (
            (self.path / "metrics.jsonl").open("a", encoding="utf-8") as log,
            _tensorboard(self.path / "tensorboard", wanted=tensorboard) as writer,
            _interrupts() as interrupted,
        ):
            for now in progress:
                last = now.step == now.total
                stopping = interrupted.is_set()
                if now.step % log_every == 0 or now.step == 1 or last:
                    line = {"step": now.step, **now.metrics, **_timings(now)}
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    self._keep_samples(now)
                    if writer is not None:
                        for name, value in now.metrics.items():
                            writer.add_scalar(name, value, now.step)
                if last:  # before the checkpoint, which says that nothing is left to do
                    now.state.policy().save_pretrained(self.path / "policy")
                if now.step % checkpoint_every == 0 or last or stopping:
                    self.save_checkpoint(now.state, keep=keep)
                yield now
                if stopping and not last:
                    raise KeyboardInterrupt(f"stopped after step {now.step} of {now.total}")


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix in (".part", ".old")


def _timings(now: Progress) -> dict[str, float]:
    return {f"seconds/{name}": round(value, 6) for name, value in now.seconds.items()}


@contextmanager
def _tensorboard(folder: Path, *, wanted: bool) -> Iterator[Any]:
    """A TensorBoard writer, or None; closed however the run ends, because it writes its queue then."""
    if not wanted:
        yield None
        return
    require("tensorboard", extra="tensorboard")
    writer = require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second interrupts as usual."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals reach the main thread only
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        flag.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)

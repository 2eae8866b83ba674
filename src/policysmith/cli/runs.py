"""`run`, `resume`, `record` and `eval`: running one system, and measuring what came out of training."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from policysmith.cli import evaluations, look
from policysmith.cli.acting_inputs import ActingInputs, TaskInputs
from policysmith.cli.environment import EnvironmentInputs, options_of, view_options
from policysmith.cli.inputs import Inputs, maker, run_name, same_data
from policysmith.cli.measuring import Writing, inputs_of, measure
from policysmith.cli.pages import run_page
from policysmith.cli.preferences import ListInputs, PreferenceInputs
from policysmith.cli.worlds import ConversingInputs
from policysmith.common.catalogue import ENTRY, System, find_system
from policysmith.common.config import config_from_json, config_to_json
from policysmith.common.errors import FileError, SettingError
from policysmith.common.provenance import commit
from policysmith.evaluation.cache import recipe_version
from policysmith.evaluation.comparison import episode_seeds
from policysmith.evaluation.rollouts import roll_out, time_decisions
from policysmith.evaluation.statistics import mean_interval, success_interval
from policysmith.experience.demonstrations import Demonstrations
from policysmith.policies.protocol import load_policy
from policysmith.training import processes
from policysmith.training.loop import Progress
from policysmith.training.runs import RunDirectory


@dataclass(frozen=True)
class Keeping:
    """What is kept of a run, and where."""

    out: str = ""
    """folder of the run; by default runs/SYSTEM-ENVIRONMENT-seedN"""
    checkpoint_every: int | None = None
    """steps between checkpoints; by default 500, and 10 where a step is a rollout of a language model"""
    keep: int = 2
    """how many checkpoints are kept"""
    tensorboard: bool = False
    """write TensorBoard events too"""


def run(words: list[str]) -> None:
    """Run a system, to train or to measure: `run NAME [--env ...] [--preset ...] [settings]`."""
    processes.start()
    if processes.number() > 0:
        look.be_quiet()
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            look.results.print(
                "usage: policysmith run NAME [options]; `policysmith run NAME --help` lists them"
            )
            return
        raise SettingError("`run` needs the name of a system", cure="policysmith run sdp --env ...")
    system = find_system(words[0])
    module = system.load()
    preset, rest = take_option(words[1:], "--preset", default="paper")
    if preset not in module.PRESETS:
        raise SettingError(f"no preset is called '{preset}'", expected=", ".join(module.PRESETS))
    if ENTRY[system.kind] != "train":
        options = _parse(system, module.PRESETS[preset], rest, inputs=inputs_of(system), writing=Writing)
        entry = getattr(module, ENTRY[system.kind])
        measure(system, entry, options.settings, options.inputs, options.writing)
        return
    options = _parse(
        system, module.PRESETS[preset], rest, inputs=training_inputs(system), keeping=Keeping, seed=int
    )
    _train(system, module, preset, options)


def _train(system: System, module: Any, preset: str, options: Any) -> None:
    inputs = options.inputs
    arguments = inputs.arguments()
    if described := inputs.describe(arguments):
        look.note(described)
    path = options.keeping.out or f"runs/{run_name(system.name, inputs.subject, options.seed)}"
    config = {
        "system": system.name,
        "recipe_version": recipe_version(module),
        "preset": preset,
        "settings": config_to_json(options.settings),
        "seed": options.seed,
        "data": inputs.fingerprint(arguments),
        "inputs": inputs.to_json(),
        "keeping": dataclasses.asdict(options.keeping),
        "commit": commit(),
    }
    # Before there is a directory: what a system cannot do with its inputs leaves nothing behind.
    progress = module.train(*arguments, config=options.settings, seed=options.seed)
    if processes.number() == 0:
        RunDirectory.create(path, config)
    processes.wait()
    pace = options.settings if hasattr(options.settings, "log_every") else inputs
    _drive(RunDirectory.open(path), progress, options.keeping, system.name, pace=pace)


def training_inputs(system: System) -> Any:
    """What the command line brings to a system that trains, by what it takes."""
    takes = set(system.takes)
    if "policy" in takes and {"rankings", "scores"} & takes:
        return ListInputs
    if {"pairs", "policy"} <= takes:
        return PreferenceInputs
    if {"prompts", "policy"} <= takes:
        return ConversingInputs
    if set(system.takes) == {"environment", "tasks"}:
        return TaskInputs
    if "episodes" not in system.takes:
        return EnvironmentInputs
    first = next(iter(inspect.signature(system.load().train).parameters))
    return ActingInputs if first == "environment" else Inputs


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint."""

    path: tyro.conf.Positional[str]

    def run(self) -> None:
        """Finish the run."""
        directory = RunDirectory.open(self.path)
        config = directory.config
        system = find_system(config["system"])
        module = system.load()
        if config.get("recipe_version") != recipe_version(module):
            raise FileError(
                f"the run was made by version {config.get('recipe_version')} of this recipe",
                where=self.path,
                expected=f"version {recipe_version(module)}",
                cure="start a new run, or use the library's version that wrote it",
            )
        inputs = config_from_json(training_inputs(system), config["inputs"])
        arguments = inputs.arguments()
        same_data(inputs.fingerprint(arguments), config["data"])
        settings = config_from_json(type(module.PRESETS["paper"]), config["settings"])
        saved = directory.load_checkpoint()
        if saved is not None and saved["step"] >= settings.steps and (directory.path / "policy").is_dir():
            look.note(f"the run is finished ({saved['step']} steps): nothing to do")
            return
        look.note(f"going on after step {saved['step'] if saved else 0}")
        progress = module.train(*arguments, config=settings, seed=config["seed"], state=saved)
        pace = settings if hasattr(settings, "log_every") else inputs
        _drive(directory, progress, Keeping(**config["keeping"]), system.name, pace=pace)


@dataclass(frozen=True)
class Record:
    """Record demonstrations as a Minari data set."""

    env: str
    """environment to record in"""
    out: str
    """folder of the new data set; must not exist"""
    expert: str = ""
    """your_package.module:name; by default the environment's own scripted expert"""
    episodes: int = 100
    """how many"""
    noise: float = 0.0
    """standard deviation of the noise on recorded actions"""
    system_noise: float = 0.0
    """standard deviation of the noise that is played but not recorded"""
    limit: int | None = None
    """most steps of an episode"""
    all: bool = False
    """keep unsuccessful episodes too"""
    seed: int = 0
    """seed of the recording"""
    pictures: int = 0
    """side of the pictures, in pixels, that are recorded in place of the environment's full state"""
    cameras: tuple[str, ...] = ()
    """the cameras that these pictures are from; by default the environment's usual one"""

    def run(self) -> None:
        """Record and write."""
        if Path(self.out).exists():
            raise FileError("there is something at this path already", where=self.out)
        wanted = Demonstrations(
            self.env,
            episodes=self.episodes,
            seed=self.seed,
            action_noise=self.noise,
            system_noise=self.system_noise,
            limit=self.limit,
            only_successful=not self.all,
            expert=self.expert,
            options=view_options(self.env, self.pictures, self.cameras),
        )
        bar = look.counting_bar(wanted.record(), label=f"record {self.env}", total=self.episodes)
        episodes = wanted.save(list(bar), Path(self.out))
        look.results.print(
            f"{len(episodes)} episodes, {int(episodes.lengths.sum())} steps, "
            f"{float(episodes.succeeded.float().mean()):.0%} successful: {self.out}"
        )


@dataclass(frozen=True)
class Eval:
    """Measure a trained policy in an environment."""

    path: tyro.conf.Positional[str]
    """run directory, or a folder with a saved policy"""
    env: str = ""
    """environment; by default the one the run is from"""
    env_option: tuple[str, ...] = ()
    """options the environment is made with, NAME=VALUE each; by default the run's"""
    episodes: int = 50
    """how many episodes, each from a seed of its own"""
    seed: int = 0
    """seed of the episodes and of the policy's draws"""
    limit: int | None = None
    """most steps of an episode"""
    rate: float | None = None
    """ticks per second of your control loop: counts the ticks that would be late, beside 10, 30 and 100 Hz"""
    spread: bool = False
    """share a decision's network calls among the ticks before it, where the policy can (sdp)"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Play, count, print, and keep the numbers with the run, where the path is one's."""
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise SettingError(f"a control loop of {self.rate} ticks per second", expected="a number above 0")
        policy = load_policy(self.path)
        env, options, limit = self._environment()
        seeds = episode_seeds(self.seed, self.episodes)
        # What the policy reads says how the environment has to be seen.
        make = maker(env, **options | {"goal": bool(policy.goal_size), "pictures": policy.pictures})
        rollouts = roll_out(policy, make, seeds=seeds, seed=self.seed, limit=limit, spread=self.spread)
        timing = time_decisions(policy, make, decisions=50, seed=self.seed, spread=self.spread)
        interval = success_interval(rollouts.success[None].astype(float))
        rates = sorted({10.0, 30.0, 100.0} | ({self.rate} if self.rate else set()))
        measured = {
            "environment": env,
            "episodes": self.episodes,
            "seed": self.seed,
            "spread": self.spread,
            "success": {"value": interval.value, "low": interval.low, "high": interval.high},
            "mean_return": float(rollouts.returns.mean()),
            **({"return": dataclasses.asdict(mean_interval(rollouts.returns))} if self.episodes > 1 else {}),
            "mean_length": float(rollouts.lengths.mean()),
            "network_calls_per_action": rollouts.calls_per_action,
            "ms_per_action": evaluations.summary_of(timing.action_ms),
            "ms_per_tick": evaluations.summary_of(timing.tick_ms),
            "missed_deadlines": {f"{rate:g} Hz": timing.missed(rate) for rate in rates},
        }
        if self._is_run:
            evaluations.EVALUATIONS.add(Path(self.path), measured | {"tick_ms": timing.tick_ms.tolist()})
            run_page(RunDirectory.open(self.path))
        if self.json:
            look.print_json(measured)
            return
        for number, one in enumerate(evaluations.tables([measured])):
            if number:
                look.results.print()
            look.table(one.columns, [[str(cell) for cell in row] for row in one.rows], title=one.caption)

    @property
    def _is_run(self) -> bool:
        path = Path(self.path)
        return (path / "config.json").is_file() and (path / "policy").is_dir()

    def _environment(self) -> tuple[str, dict[str, Any], int | None]:
        """Name, options, and most steps of an episode."""
        if self.env:
            return self.env, options_of(self.env_option), self.limit
        if not self._is_run:
            raise SettingError("which environment?", cure="give --env NAME")
        inputs = RunDirectory.open(self.path).config.get("inputs", {})
        if not inputs.get("env"):
            raise SettingError("the run was trained on data alone", cure="give --env NAME to evaluate in")
        options = options_of(self.env_option or inputs.get("env_option", ()))
        return inputs["env"], options, self.limit or inputs.get("limit")


@dataclass(frozen=True)
class Report:
    """Write a run's page anew: settings, curves, and what has been measured."""

    path: tyro.conf.Positional[str]

    def run(self) -> None:
        """Write report.html and print where it is."""
        look.results.print(str(run_page(RunDirectory.open(self.path))))


# ---- helpers -----------------------------------------------------------------------------------------


def take_option(words: list[str], option: str, *, default: str) -> tuple[str, list[str]]:
    """The value of `option` in `words` (as two words or with =), and the words without it."""
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            return words[i + 1], words[:i] + words[i + 2 :]
        if word.startswith(option + "="):
            return word.partition("=")[2], words[:i] + words[i + 1 :]
    return default, words


def _parse(system: System, preset: Any, words: list[str], **parts: type) -> Any:
    """The settings of a system with further `parts` (dataclasses, or plain options), from `words`."""
    flat = tyro.conf.OmitArgPrefixes
    fields: list[Any] = [("settings", Annotated[type(preset), flat], field(default=preset))]
    fields += [(name, Annotated[part, flat], field(default=part())) for name, part in parts.items()]
    options = dataclasses.make_dataclass("Options", fields, frozen=True)
    options.__doc__ = f"{system.title}: {system.summary} --preset NAME sets the defaults below."
    return tyro.cli(options, args=words, prog=f"policysmith run {system.name}", config=(flat,))


def _drive(
    directory: RunDirectory,
    progress: Iterator[Progress],
    keeping: Keeping,
    label: str,
    *,
    pace: Any,
) -> None:
    every = keeping.checkpoint_every
    recording = directory.record(
        progress,
        checkpoint_every=pace.checkpoint_every if every is None else every,
        log_every=pace.log_every,
        keep=keeping.keep,
        tensorboard=keeping.tensorboard,
    )
    try:
        for _ in look.training_bar(recording, label=label):
            pass
    except KeyboardInterrupt:
        look.notices.print(f"stopped; `policysmith resume {directory.path}` goes on from here")
        raise
    if processes.number() == 0:
        page = run_page(directory)
        look.results.print(f"policy: {directory.path / 'policy'}\nreport: {page}", soft_wrap=True)

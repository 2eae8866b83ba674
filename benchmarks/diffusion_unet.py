"""Policysmith against LeRobot: training and sampling the same diffusion policy, in turn within one run.

    python benchmarks/diffusion_unet.py [--json FILE]

Both sides train and sample one network (Diffusion Policy's U-Net over time, told a robot's state), on the
same number of threads, each through its own ordinary code: LeRobot's `DiffusionModel` with the DDPM scheduler
of `diffusers` and the optimiser of its preset, Policysmith's `ActionDiffusion` with the optimiser of its
diffusion learner. Measured are

- training: samples per second at batch 256, a step being noise, forward, loss, backward and optimiser;
- sampling: milliseconds per network call within a whole denoising loop at batch 1, with the sampler's step.

The sides answer in turn, and a ratio is taken per round (see `peers.py`); the median is printed with the
smallest and the largest.

LeRobot lives in an environment of its own (`--peer-env`), made on the first run with the PyTorch version that
Policysmith runs on. No image encoder takes part, so torchvision is stood in for where it is not installed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from peers import (
    Answer,
    Peer,
    Worker,
    accept_peer,
    answers_to,
    arguments_of,
    in_turn,
    machine,
    middle,
    ratio,
    tell,
    versions,
)

PEER = Peer(
    "lerobot",
    "lerobot==0.4.4",
    # What importing LeRobot's diffusion policy needs; LeRobot itself is installed without its dependencies,
    # because it would replace PyTorch by an older version.
    beside=(
        "accelerate==1.15.0",
        "av<16",
        "datasets==4.8.5",
        "deepdiff<9",
        "diffusers==0.35.2",
        "draccus==0.10.0",
        "einops==0.8.2",
        "gymnasium<2",
        "huggingface-hub==0.35.3",
        "imageio<3",
        "jsonlines<5",
        "pyserial<4",
        "termcolor<4",
    ),
    alone=True,
)
REPORTED = ("torch", "numpy", "lerobot", "diffusers", "policysmith", "tensordict")


@dataclass(frozen=True)
class Settings:
    """The network and the work, the same for both sides."""

    action_size: int = 4
    observation_size: int = 39
    observation_steps: int = 2
    horizon: int = 16
    widths: tuple[int, ...] = (64, 128)
    kernel: int = 5
    groups: int = 8
    level_size: int = 64
    noise_levels: int = 50
    batch_size: int = 256
    threads: int = 2


# ---- the two sides --------------------------------------------------------------------------------------

Work = Callable[[], None]


@dataclass(frozen=True)
class Side:
    """One optimiser step, one whole denoising loop, and what they are made of."""

    train: Work
    sample: Work
    weights: int
    optimizer: str


def our_side(settings: Settings) -> Side:
    import torch
    from tensordict import TensorDict

    from policysmith.networks.noise import DiscreteNoise, ddpm, sample, squared_cosine_betas
    from policysmith.networks.unet import UNet1d
    from policysmith.objectives.denoising import noise_prediction_error
    from policysmith.policies.diffusion import ActionDiffusion

    network = UNet1d(
        settings.action_size,
        settings.horizon,
        settings.observation_steps * settings.observation_size,
        widths=settings.widths,
        kernel=settings.kernel,
        groups=settings.groups,
        level_size=settings.level_size,
    )
    model = ActionDiffusion(
        network,
        DiscreteNoise(squared_cosine_betas(settings.noise_levels)),
        observation_size=settings.observation_size,
        observation_steps=settings.observation_steps,
    )
    process = ddpm(model.noise)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, fused=True
    )
    rng = torch.Generator().manual_seed(0)
    shapes = {
        "observation": (settings.observation_steps, settings.observation_size),
        "action": (settings.horizon, settings.action_size),
    }
    batch = TensorDict(
        {key: torch.rand(settings.batch_size, *shape) * 2 - 1 for key, shape in shapes.items()},
        batch_size=settings.batch_size,
    )

    def train() -> None:
        level = torch.randint(settings.noise_levels, (settings.batch_size, 1), generator=rng)
        corrupted = model.corrupt(batch, level.expand(-1, settings.horizon), rng=rng)
        loss = noise_prediction_error(model.predict(corrupted), corrupted["noise"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def draw() -> None:
        start = torch.randn(1, settings.horizon, settings.action_size, generator=rng)
        condition = model.condition(batch["observation"][:1])
        sample(model.network.bind(condition), process, start, rng=rng)

    return Side(train, draw, sum(p.numel() for p in network.parameters()), "AdamW, fused")


def peer_side(settings: Settings) -> Side:
    import torch

    stand_in_for_torchvision()
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel

    # LeRobot wants an environment state where there is no image; the observation is cut in two for it.
    robot = settings.observation_size // 2
    environment = settings.observation_size - robot
    config = DiffusionConfig(
        n_obs_steps=settings.observation_steps,
        horizon=settings.horizon,
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (robot,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (environment,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (settings.action_size,))},
        down_dims=settings.widths,
        kernel_size=settings.kernel,
        n_groups=settings.groups,
        diffusion_step_embed_dim=settings.level_size,
        num_train_timesteps=settings.noise_levels,
        device="cpu",
    )
    model = DiffusionModel(config)
    optimizer = config.get_optimizer_preset().build(model.parameters())

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(settings.batch_size, *shape) * 2 - 1

    batch = {
        "observation.state": uniform(settings.observation_steps, robot),
        "observation.environment_state": uniform(settings.observation_steps, environment),
        "action": uniform(settings.horizon, settings.action_size),
        "action_is_pad": torch.zeros(settings.batch_size, settings.horizon, dtype=torch.bool),
    }
    first = {key: value[:1] for key, value in batch.items()}

    def train() -> None:
        loss = model.compute_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def draw() -> None:
        model.generate_actions(first)

    weights = sum(p.numel() for p in model.unet.parameters())
    return Side(train, draw, weights, f"{type(optimizer).__name__}, as the preset builds it")


def stand_in_for_torchvision() -> None:
    """Let `import torchvision` succeed where it is missing: only LeRobot's image encoder uses it."""

    class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            ours = name.partition(".")[0] == "torchvision"
            return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

        def create_module(self, spec):
            module = types.ModuleType(spec.name)
            module.__getattr__ = self.attribute  # type: ignore[method-assign]
            return module

        def exec_module(self, module):
            pass

        @staticmethod
        def attribute(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    # Last, so that an installed torchvision goes first.
    sys.meta_path.append(StandIn())


# ---- the worker: one side in a process of its own, told what to do line by line ------------------------


def work(side: str, settings: Settings) -> None:
    """Answer each line "train N" or "sample N" with the seconds that one of N repetitions took."""
    answers = answers_to(settings.threads)
    made = {"ours": our_side, "peer": peer_side}[side](settings)
    about = {"weights": made.weights, "optimizer": made.optimizer, "versions": versions(REPORTED)}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        task, times = line.split()
        repeat = {"train": made.train, "sample": made.sample}[task]
        start = time.perf_counter()
        for _ in range(int(times)):
            repeat()
        taken = (time.perf_counter() - start) / int(times)
        print(json.dumps({"seconds": taken}), file=answers, flush=True)


# ---- measuring ------------------------------------------------------------------------------------------


def summary(taken: dict[str, list[Answer]], unit: str, value: Callable[[float], float]) -> dict:
    """Medians of both sides, and how many times as fast ours was, per round."""
    return {
        "unit": unit,
        **{side: value(middle(answers, lambda one: one["seconds"])) for side, answers in taken.items()},
        "times_as_fast": ratio(taken["peer"], taken["ours"], lambda one: one["seconds"]),
        "rounds": len(taken["ours"]),
    }


def measure(settings: Settings, python: Path, *, rounds: int, steps: int, loops: int) -> dict:
    workers = {
        side: Worker(interpreter, side, settings, threads=settings.threads)
        for side, interpreter in (("peer", python), ("ours", Path(sys.executable)))
    }
    try:
        about = {side: worker.about for side, worker in workers.items()}
        if about["peer"]["weights"] != about["ours"]["weights"]:
            raise SystemExit(f"the networks differ: {about}")
        taken = {}
        for task, times in (("train", steps), ("sample", loops)):
            question = f"{task} {times}"
            taken[task] = in_turn(
                workers,
                question,
                rounds=rounds,
                warm_up=question,
                shown=lambda answer: f"{answer['seconds'] * 1e3:.2f} ms",
            )
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "benchmark": "diffusion_unet",
        "peer": PEER.requirement,
        "settings": asdict(settings),
        "sides": about,
        "machine": machine(),
        "training": summary(
            taken["train"], "samples per second", lambda seconds: settings.batch_size / seconds
        ),
        "sampling": summary(
            taken["sample"],
            "milliseconds per network call",
            lambda seconds: 1e3 * seconds / settings.noise_levels,
        ),
    }


def main() -> None:
    parser = arguments_of(__doc__, rounds=9, threads=2)
    accept_peer(parser, PEER.name)
    parser.add_argument("--widths", type=int, nargs="+", default=list(Settings.widths))
    parser.add_argument("--steps", type=int, default=10, help="training steps per round")
    parser.add_argument("--loops", type=int, default=5, help="denoising loops per round")
    arguments = parser.parse_args()
    if arguments.worker:
        settings = Settings(**arguments.settings | {"widths": tuple(arguments.settings["widths"])})
        work(arguments.worker, settings)
        return
    result = measure(
        Settings(threads=arguments.threads, widths=tuple(arguments.widths)),
        arguments.peer_python or PEER.python(arguments.peer_env),
        rounds=arguments.rounds,
        steps=arguments.steps,
        loops=arguments.loops,
    )
    tell(result, arguments.json)


if __name__ == "__main__":
    main()

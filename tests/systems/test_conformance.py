"""Every ready system passes the public conformance test."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from policysmith.common.catalogue import systems
from policysmith.evaluation.conformance import ENVIRONMENT, check_system
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.networks.bodies import Body
from policysmith.networks.critics import DuellingQ
from policysmith.policies.actors import NetworkPolicy, gaussian_actor
from policysmith.policies.heads import GreedyHead
from policysmith.worlds import registry
from policysmith.worlds.metaworld_suites import OneHot
from policysmith.worlds.trials import Feedback

READY = [system.name for system in systems() if system.status == "ready"]
CHOOSING = ("dqn", "sa-dqn")
"""Systems of discrete actions."""


@pytest.mark.parametrize("name", READY)
def test_system_conforms(name, tmp_path):
    check_system(name, tmp_path, inputs=inputs_of(name), make=tried_in(name))


def inputs_of(name):
    """What a system is tried on where the standard small inputs do not suit it."""
    if name == "metaworld":
        pytest.importorskip("metaworld")
        return (gaussian_actor(39, 4, deterministic=True),)
    if name in ("mt-sac", "mtmh-sac"):
        return (["point-reach", partial(registry.make, "point-reach", horizon=10)],)
    if name == "serl":
        return ("point-reach", Episodes.from_arrays(Demonstrations("point-reach", episodes=6).record()))
    if name == "famo2o":
        return (ENVIRONMENT, Episodes.from_arrays(Demonstrations(ENVIRONMENT, episodes=6).record()))
    if name == "c-morl":
        return ("point-effort",)
    if name in CHOOSING:
        return ("CartPole-v1",)
    if name == "unstable-directions":
        q = DuellingQ(Body(4, hidden=(8,)), 2)
        return NetworkPolicy(q, GreedyHead(2)), torch.rand(20, 4)
    return None


def tried_in(name):
    """What makes the environment that a policy is tried in where the standard one does not suit it."""
    if name == "rl2":
        return lambda: Feedback(registry.make("point-reach"))
    if name in ("mt-sac", "mtmh-sac"):
        return lambda: OneHot(registry.make("point-reach"), 0, 2)
    if name in CHOOSING:
        return lambda: registry.make("CartPole-v1")
    return None


def test_there_are_ready_systems():
    assert {"sdp", "diffusion-policy"} <= set(READY)

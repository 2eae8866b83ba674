"""Every ready system passes the public conformance test."""

from __future__ import annotations

import pytest

from policysmith.common.catalogue import systems
from policysmith.evaluation.conformance import check_system

READY = [system.name for system in systems() if system.status == "ready"]


@pytest.mark.parametrize("name", READY)
def test_system_conforms(name, tmp_path):
    check_system(name, tmp_path)


def test_there_are_ready_systems():
    assert {"sdp", "diffusion-policy"} <= set(READY)

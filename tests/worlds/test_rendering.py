import os
import subprocess
import sys

import pytest

from policysmith.common.errors import CapabilityError, SettingError, UnknownNameError
from policysmith.worlds import rendering


@pytest.fixture
def variables(monkeypatch):
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        # Set first, so that what the test writes is undone even where the variable was absent.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_importing_sets_nothing():
    program = (
        "import os, sys; import policysmith.worlds.rendering;"
        "raise SystemExit('mujoco' in sys.modules or 'MUJOCO_GL' in os.environ)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    assert subprocess.run([sys.executable, "-c", program], env=clean).returncode == 0


def test_each_backend_is_tried_in_turn_and_its_failure_kept(variables):
    variables.setattr(rendering.sys, "platform", "linux")
    variables.setattr(rendering, "_failure", lambda backend, limit: "broken" if backend == "egl" else "")
    assert rendering._probe.__wrapped__("", 1.0) == rendering.Probe("osmesa", {"egl": "broken"})


def test_a_backend_that_is_already_chosen_is_the_only_one_tried(variables):
    pytest.importorskip("mujoco")
    variables.setattr(rendering, "_failure", lambda backend, limit: "broken" if backend == "osmesa" else "")
    found = rendering._probe.__wrapped__("osmesa", 1.0)
    assert found.backend is None
    assert list(found.tried) == ["osmesa"]
    assert "unset MUJOCO_GL" in found.cure


def test_a_crash_of_the_drawing_library_is_a_reason_and_not_the_end(variables):
    variables.setattr(rendering, "DRAW", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert rendering._failure("glfw", 20.0) == "crashed (SIGSEGV)"


def test_a_drawing_library_that_hangs_is_given_up(variables):
    variables.setattr(rendering, "DRAW", "import time; time.sleep(30)")
    assert rendering._failure("glfw", 0.3) == "did not finish in 0.3 seconds"


def test_where_nothing_draws_the_error_names_every_reason_and_the_cure(variables):
    nothing = rendering.Probe(None, {"egl": "no driver", "osmesa": "no library"}, rendering.CURE)
    variables.setattr(rendering, "probe", lambda: nothing)
    with pytest.raises(CapabilityError, match="no driver; osmesa: no library") as caught:
        rendering.configure()
    assert "apt-get install libosmesa6" in caught.value.cure


def test_activating_sets_the_two_variables(variables):
    variables.setattr(rendering.sys, "modules", {})
    rendering.activate("osmesa")
    assert (os.environ["MUJOCO_GL"], os.environ["PYOPENGL_PLATFORM"]) == ("osmesa", "osmesa")


def test_a_backend_that_was_chosen_outside_is_not_overruled(variables):
    variables.setenv("MUJOCO_GL", "egl")
    with pytest.raises(SettingError, match="MUJOCO_GL says 'egl'"):
        rendering.activate("osmesa")


def test_opengl_loaded_for_another_backend_is_an_error_that_says_to_start_again(variables):
    variables.setenv("PYOPENGL_PLATFORM", "egl")
    with pytest.raises(CapabilityError, match="start again with MUJOCO_GL=osmesa"):
        rendering.activate("osmesa")
    assert "MUJOCO_GL" not in os.environ


def test_an_unknown_backend_is_refused(variables):
    with pytest.raises(UnknownNameError, match="vulkan"):
        rendering.activate("vulkan")

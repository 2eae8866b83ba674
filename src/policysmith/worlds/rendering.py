"""Pictures from MuJoCo on a machine without a display.

MuJoCo draws through one of several libraries, chosen by the environment variable `MUJOCO_GL`: EGL (a GPU
driver, or Mesa in software) or OSMesa (software). Which of them works can only be found by drawing, and a
broken one may take the interpreter down with it; so each is tried in a process of its own. `configure()`
picks the first that works; a `MUJOCO_GL` that is already set is the only one tried.

`OffscreenRenderer` draws a model into an array; any number of them may live side by side. `OwnContext` gives
the same safety to a Gymnasium MuJoCo environment, whose own renderer draws into whichever context was made
current last and so mixes up the pictures of two environments.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes.util
import functools
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError, SettingError, UnknownNameError
from policysmith.common.extras import require

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
"""The shared library behind each backend that draws without a display, in the order they are tried."""

CURE = (
    "install one of them. Software, Debian and Ubuntu: sudo apt-get install libosmesa6; "
    "or EGL in software: sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri; "
    "or, with an NVIDIA GPU, the driver's EGL: sudo apt-get install libegl1 libnvidia-gl-<driver version>"
)

DRAW = """
import os
try:
    import mujoco
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><light pos="0 0 2"/><geom size=".2" rgba="1 0 0 1"/></worldbody></mujoco>')
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 32, 32)
    renderer.update_scene(data)
    if renderer.render().std() == 0:
        raise RuntimeError("it drew an empty picture")
except Exception as error:
    print(type(error).__name__, error, sep=": ", flush=True)
    os._exit(1)
os._exit(0)
"""
"""A program that succeeds where MuJoCo draws, else prints why; it leaves without tearing anything down."""


@dataclass(frozen=True)
class Probe:
    """What was found out about drawing here.

    `backend` is the one that works, or None; `tried` maps each backend that failed to the reason; `cure`
    says what to do where none works, and is empty otherwise. "native" is the system's own (macOS, Windows),
    which needs no variable set.
    """

    backend: str | None
    tried: dict[str, str] = field(default_factory=dict)
    cure: str = ""


def probe(*, time_limit: float = 60.0) -> Probe:
    """Find the backend that draws, each tried in its own process for at most `time_limit` seconds.

    The answer is kept for the life of this process, per value of `MUJOCO_GL`. Takes one to four seconds.
    """
    return _probe(os.environ.get("MUJOCO_GL", "").lower().strip(), time_limit)


def configure() -> str:
    """Make drawing work in this process: probe, activate, and return the backend's name.

    To be called before the first picture is drawn; importing `mujoco` earlier does no harm. Raises
    `CapabilityError` with every reason and the cure where nothing draws.
    """
    found = probe()
    if found.backend is None:
        raise CapabilityError(
            "MuJoCo cannot draw pictures on this machine",
            where="; ".join(f"{backend}: {reason}" for backend, reason in found.tried.items()),
            cure=found.cure,
        )
    activate(found.backend)
    return found.backend


def activate(backend: str) -> None:
    """Choose `backend` ("egl", "osmesa", "glfw" or "native") for all drawing in this process.

    Raises `SettingError` where `MUJOCO_GL` already names another, and `CapabilityError` where OpenGL has
    been loaded for another, which a running process cannot undo.
    """
    if backend == "native":
        return
    if backend not in (*LIBRARIES, "glfw"):
        raise UnknownNameError(
            f"no drawing backend '{backend}'", expected=", ".join((*LIBRARIES, "glfw", "native"))
        )
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen and chosen != backend:
        raise SettingError(
            f"asked to draw with '{backend}' while MUJOCO_GL says '{chosen}'", cure="unset MUJOCO_GL"
        )
    platform = os.environ.get("PYOPENGL_PLATFORM", "")
    if backend in LIBRARIES and platform != backend:
        if platform or "OpenGL.platform" in sys.modules:
            raise CapabilityError(
                f"OpenGL is set up for '{platform or 'a display'}' in this process, not for '{backend}'",
                cure=f"start again with MUJOCO_GL={backend} PYOPENGL_PLATFORM={backend} before the command",
            )
        os.environ["PYOPENGL_PLATFORM"] = backend
    os.environ["MUJOCO_GL"] = backend


@functools.cache
def _probe(chosen: str, time_limit: float) -> Probe:
    if importlib.util.find_spec("mujoco") is None:
        return Probe(None, {"mujoco": "not installed"}, cure="pip install 'policysmith[metaworld]'")
    usual = list(LIBRARIES) if sys.platform == "linux" else ["native"]
    tried: dict[str, str] = {}
    for backend in [chosen] if chosen else usual:
        reason = _failure(backend, time_limit)
        if not reason:
            return Probe(backend, tried)
        tried[backend] = reason
    first = f"unset MUJOCO_GL, so that {' and '.join(usual)} can be tried; or else " if chosen else ""
    return Probe(None, tried, cure=first + CURE)


def _failure(backend: str, time_limit: float) -> str:
    """Why `backend` does not draw; empty if it does."""
    variables = dict(os.environ)
    if backend != "native":
        variables["MUJOCO_GL"] = backend
    if backend in LIBRARIES:
        variables["PYOPENGL_PLATFORM"] = backend
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRAW],
            env=variables, capture_output=True, text=True, timeout=time_limit, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not finish in {time_limit:g} seconds"
    if done.returncode == 0:
        return ""
    if backend in LIBRARIES and ctypes.util.find_library(LIBRARIES[backend]) is None:
        return f"the library lib{LIBRARIES[backend]} is not installed"
    if done.returncode < 0:
        return f"crashed ({signal.Signals(-done.returncode).name})"
    return " ".join(done.stdout.split()) or f"exit status {done.returncode}"


class OffscreenRenderer:
    """Draws a MuJoCo model from one of its cameras into arrays of `height` x `width` x 3 bytes.

    Several may be used in turn: each makes its own context current before it draws. A camera that the model
    mounts upside-down is turned the right way up. Shadows are off unless asked for: in software they cost
    three times the rest of the picture. `plain` does without smoothed edges and mirroring surfaces too, for a
    quarter of the time: for pictures that policies see. Call `configure()` first.
    """

    def __init__(
        self,
        model: Any,
        *,
        camera: str,
        width: int,
        height: int,
        shadows: bool = False,
        plain: bool = False,
    ) -> None:
        self._mujoco, self._model = require("mujoco", extra="metaworld"), model
        mujoco = self._mujoco
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = camera_index(model, camera)
        # The camera's own upward axis, in the world: below the horizon for a camera mounted upside-down.
        self._upside_down = bool(model.cam_mat0[self._camera.fixedcamid].reshape(3, 3)[2, 1] < -0.1)
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = not plain
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        self._gl: Any = _context_class()(width, height)
        self._gl.make_current()
        samples = model.vis.quality.offsamples
        if plain:
            model.vis.quality.offsamples = 0
        self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        model.vis.quality.offsamples = samples
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        _close_at_exit(self)

    def render(self, data: Any) -> np.ndarray:
        """The picture of the state `data` (an `MjData` of the model): uint8 [height, width, 3]."""
        if self._context is None:
            raise SettingError("this renderer has been closed", cure="make another one")
        mujoco = self._mujoco
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        frame = np.empty((self._rectangle.height, self._rectangle.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(frame, None, self._rectangle, self._context)
        # OpenGL's rows run from the bottom; half a turn on top of that leaves the columns reversed.
        return np.ascontiguousarray(frame[:, ::-1] if self._upside_down else frame[::-1])

    def close(self) -> None:
        """Free the context; closing twice does nothing."""
        if self._context is None:
            return
        # MuJoCo deletes its textures by number in the current context, so that must be this one.
        self._gl.make_current()
        self._context.free()
        self._gl.free()
        self._context = self._gl = None

    def __del__(self) -> None:
        # A failed constructor leaves nothing to free, and at the interpreter's end there may be no library.
        with contextlib.suppress(Exception):
            self.close()


def camera_index(model: Any, camera: str) -> int:
    """The number of the camera called `camera`; raises `UnknownNameError` with the names there are."""
    names = [model.camera(index).name for index in range(model.ncam)]
    if camera not in names:
        raise UnknownNameError(f"the model has no camera '{camera}'", expected=", ".join(names))
    return names.index(camera)


def _context_class() -> Any:
    backend = os.environ.get("MUJOCO_GL", "").lower().strip()
    module = f"mujoco.{backend}" if backend in (*LIBRARIES, "glfw") else "mujoco.gl_context"
    return importlib.import_module(module).GLContext


_open: weakref.WeakSet[OffscreenRenderer | OwnContext] = weakref.WeakSet()


def _close_at_exit(drawer: OffscreenRenderer | OwnContext) -> None:
    """Have `drawer` closed, if it still lives, before the drawing library shuts itself down at the exit.

    Called after that library was imported: what is registered last is run first.
    """
    _open.add(drawer)
    _register()


@functools.cache
def _register() -> None:
    atexit.register(lambda: [drawer.close() for drawer in list(_open)])


class OwnContext(gymnasium.Wrapper):
    """A Gymnasium MuJoCo environment that always draws into, and frees, the context that is its own."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._closed = False

    def render(self) -> Any:
        """The picture, drawn after making this environment's context current."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.make_context_current()
        picture = self.env.render()
        _close_at_exit(self)
        return picture

    def close(self) -> None:
        """Free MuJoCo's drawing objects while their own context is current, then close the environment."""
        if self._closed:
            return
        self._closed = True
        viewer = self._viewer()
        if viewer is not None:
            viewer.make_context_current()
            viewer.con.free()
        self.env.close()

    def _viewer(self) -> Any:
        renderer = mujoco_renderer(self.env)
        return renderer.viewer if renderer is not None else None


def mujoco_renderer(env: gymnasium.Env) -> Any:
    """Gymnasium's MuJoCo renderer inside `env`, or None; mazes keep theirs on an inner environment."""
    inner = env.unwrapped
    for holder in (inner, getattr(inner, "point_env", None), getattr(inner, "ant_env", None)):
        if getattr(holder, "mujoco_renderer", None) is not None:
            return holder.mujoco_renderer  # type: ignore[union-attr]
    return None

"""Rollouts as video: MP4 for pages, captions and panels side by side, small animations for a README.

Frames are arrays `[time, height, width, 3]` of bytes, as `render()` of an environment gives them. Encoding
uses the ffmpeg binary that imageio-ffmpeg brings; nothing needs to be installed beside it.
"""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import imageio_ffmpeg
import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from policysmith.common.errors import FileError, SettingError, ShapeError
from policysmith.common.saving import write_beside

Frames: TypeAlias = UInt8[np.ndarray, "time height width 3"]
"""A rollout's pictures."""

_PAPER, _INK, _MUTED = (22, 24, 29), (230, 233, 237), (154, 164, 175)


def encode(frames: Frames, *, fps: float) -> bytes:
    """The frames as an H.264 MP4 that every browser plays, as bytes.

    Odd heights and widths are extended by one pixel, repeating the edge: the 4:2:0 colour format that
    browsers require has only even ones. The index is at the front, so that playing starts at once.
    """
    frames = _checked(frames, "frames")
    _check_rate(fps)
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # A file and not a pipe: moving the index to the front needs an output that can be sought.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        source = f"-f rawvideo -pix_fmt rgb24 -s {frames.shape[2]}x{frames.shape[1]} -r {fps} -i -"
        target = "-an -c:v libx264 -pix_fmt yuv420p -crf 20 -movflags +faststart"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *source.split(), *target.split()]
        done = subprocess.run([*command, str(path)], input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode != 0:
            raise FileError(
                f"ffmpeg could not encode the video: {done.stderr.decode(errors='replace').strip()}"
            )
        return path.read_bytes()


def side_by_side(
    panels: Mapping[str, Frames],
    *,
    status: Mapping[str, Sequence[str]] | None = None,
    columns: int = 4,
) -> Frames:
    """The rollouts as panels of one video, each with its label above and, at the right, its status.

    `status` gives a label one text per frame ("success", "step 31"). Shorter rollouts hold their last frame
    and status. Panels may differ in size: they are centred in the largest one's. More than `columns` panels
    go on in another row.
    """
    if not panels:
        raise ShapeError("there are no panels", expected="at least one label with frames")
    if columns < 1:
        raise SettingError(f"columns is {columns}", expected="at least 1")
    rollouts = {label: _checked(frames, f"'{label}'") for label, frames in panels.items()}
    texts = _checked_status(rollouts, status or {})
    duration = max(len(frames) for frames in rollouts.values())
    height = max(frames.shape[1] for frames in rollouts.values())
    width = max(frames.shape[2] for frames in rollouts.values())
    font_size = int(np.clip(width / 20, 11, 28))
    strip, gap = 2 * font_size, max(2, font_size // 3)
    across = min(columns, len(rollouts))
    down = -(-len(rollouts) // across)
    size = (down * (strip + height + gap) - gap, across * (width + gap) - gap)
    canvas = np.empty((duration, *size, 3), dtype=np.uint8)
    canvas[:] = _PAPER
    for number, (label, frames) in enumerate(rollouts.items()):
        top, left = number // across * (strip + height + gap), number % across * (width + gap)
        _draw_captions(canvas[:, top : top + strip, left : left + width], label, texts[label], font_size)
        top += strip + (height - frames.shape[1]) // 2
        left += (width - frames.shape[2]) // 2
        place = canvas[:, top : top + frames.shape[1], left : left + frames.shape[2]]
        place[: len(frames)] = frames
        place[len(frames) :] = frames[-1]
    return canvas


def write_animation(
    frames: Frames, path: str | os.PathLike[str], fps: float, *, max_bytes: int = 3_000_000
) -> int:
    """Write an animation that loops, `.webp` or `.gif`, and return its size in bytes.

    The pictures are made smaller until the file is within `max_bytes`; WebP keeps far more of them than
    GIF. Raises `FileError` where even a quarter of the size is too much, and `SettingError` for another
    ending.
    """
    frames = _checked(frames, "frames")
    _check_rate(fps)
    path = Path(path)
    form = {".webp": "WEBP", ".gif": "GIF"}.get(path.suffix.lower())
    if form is None:
        raise SettingError(f"an animation cannot be written as '{path.suffix}'", expected=".webp or .gif")
    size = 0
    for scale in (1.0, 0.8, 0.65, 0.5, 0.35, 0.25):
        animation = _animation([_resized(frame, scale) for frame in frames], form, fps)
        size = len(animation)
        if size <= max_bytes:
            with write_beside(path) as temporary:
                temporary.write_bytes(animation)
            return size
    raise FileError(
        f"the animation of {len(frames)} frames is {size / 1e6:.1f} MB even at a quarter of its size",
        where=str(path),
        expected=f"at most {max_bytes / 1e6:.1f} MB",
        cure="pass fewer frames, such as every second one with half the fps",
    )


# ---- parts -------------------------------------------------------------------------------------------


def _checked(frames: Frames, where: str) -> Frames:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ShapeError(
            f"the frames are {frames.dtype} {list(frames.shape)}",
            where=where,
            expected="uint8 [time, height, width, 3], at least one frame",
        )
    return frames


def _check_rate(fps: float) -> None:
    if not 0 < fps <= 240:
        raise SettingError(f"fps is {fps}", expected="above 0, at most 240")


def _checked_status(
    rollouts: Mapping[str, Frames], status: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """One text per frame for every label, empty where none was given."""
    for label, texts in status.items():
        if label not in rollouts:
            raise ShapeError(f"there is a status for '{label}'", expected=f"one of {', '.join(rollouts)}")
        if isinstance(texts, str) or len(texts) != len(rollouts[label]):
            raise ShapeError(
                f"there are {len(texts)} status texts for {len(rollouts[label])} frames",
                where=f"'{label}'",
                expected="a list with one text per frame",
            )
    return {label: list(status.get(label, [""] * len(frames))) for label, frames in rollouts.items()}


def _draw_captions(strip: Frames, label: str, texts: Sequence[str], font_size: int) -> None:
    """Draw label and status into `strip` [time, ...]; the last text holds for the frames beyond."""
    drawn: dict[str, np.ndarray] = {}
    for time in range(len(strip)):
        text = texts[min(time, len(texts) - 1)]
        if text not in drawn:
            drawn[text] = _caption(label, text, strip.shape[2], strip.shape[1], font_size)
        strip[time] = drawn[text]


def _caption(label: str, status: str, width: int, height: int, font_size: int) -> UInt8[np.ndarray, "..."]:
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    pad, middle = font_size // 2, height / 2
    plain, bold = _font("DejaVuSans.ttf", font_size), _font("DejaVuSans-Bold.ttf", font_size)
    status = _fitting(status, plain, (width - 3 * pad) / 2)
    taken = plain.getlength(status)
    draw.text((width - pad, middle), status, fill=_MUTED, font=plain, anchor="rm")
    label = _fitting(label, bold, width - 3 * pad - taken)
    draw.text((pad, middle), label, fill=_INK, font=bold, anchor="lm")
    return np.asarray(picture)


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""


@functools.cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries these, with more of Unicode than Pillow's own; nothing depends on the machine's.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _resized(frame: UInt8[np.ndarray, "height width 3"], scale: float) -> Image.Image:
    picture = Image.fromarray(frame)
    if scale == 1.0:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _animation(pictures: Sequence[Image.Image], form: str, fps: float) -> bytes:
    if form == "GIF":
        # One palette for all frames, so that only what moves differs from frame to frame.
        colours = _palette(pictures)
        pictures = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    options = {"optimize": True} if form == "GIF" else {"quality": 70, "method": 4}
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        form,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        **options,
    )
    return buffer.getvalue()


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    sample = [pictures[number] for number in np.linspace(0, len(pictures) - 1, 8).astype(int)]
    stacked = np.concatenate([np.asarray(picture) for picture in sample])
    return Image.fromarray(stacked).quantize(colors=255)

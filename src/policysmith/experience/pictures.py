"""Pictures from files: decoded from PNG, JPEG or film, and made smaller, always to uint8 [height, width, 3].

Whatever a picture came in, it is resized by the same function, so that data sets of different formats agree,
and so can the camera of a robot that is to be seen through the same eyes: call `resized` on its pictures.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from policysmith.common.errors import FileError
from policysmith.common.extras import require

EXTRA = "robot-data"
"""The extra that brings what reads films, Parquet and Zarr."""

Picture: TypeAlias = UInt8[np.ndarray, "height width 3"]

_RECODE = "encode it anew: ffmpeg -i OLD.mp4 -c:v libx264 -pix_fmt yuv420p NEW.mp4"


def resized(picture: Picture, size: tuple[int, int] | None) -> Picture:
    """The picture at `size` (height, width), stretched where the proportions differ; None leaves it alone.

    Each new pixel averages all old ones that it covers (a triangle filter): thin things do not vanish.
    """
    if size is None or picture.shape[:2] == tuple(size):
        return picture
    height, width = size
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def decoded(content: bytes, *, where: str) -> Picture:
    """A picture from the bytes of a PNG or JPEG file; `FileError` naming `where` for damaged ones."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise FileError(f"the picture cannot be decoded: {error}", where=where) from error


@dataclass(frozen=True)
class Film:
    """What a film says of itself: codec, size in pixels, pictures per second, and how many (0: unknown)."""

    codec: str
    height: int
    width: int
    rate: float
    frames: int


def describe_film(path: Path) -> Film:
    """What the header of a film says; nothing is decoded. `FileError` where it cannot be played at all."""
    container, stream = _opened(path)
    with container:
        rate = stream.average_rate
        context = stream.codec_context
        codec = context.codec.canonical_name  # the codec, not the decoder that plays it
        return Film(codec, context.height, context.width, float(rate or 0), stream.frames)


def frames_at(
    path: Path, times: Sequence[float], *, tolerance: float, size: tuple[int, int] | None = None
) -> Iterator[Picture]:
    """The pictures of a film nearest to `times` (seconds, ascending), one by one, at `size`.

    The film is played once from the last key frame before the first time, and no more than two pictures are
    held. Raises `FileError` for a film that is missing, damaged or in a codec that nothing here decodes, and
    where no picture lies within `tolerance` seconds of a time.
    """
    container, stream = _opened(path)
    wanted, found = list(times), 0
    before: Any = None
    with container:
        for frame in _played(container, stream, path, start=wanted[0]):
            while found < len(wanted) and frame.time > wanted[found]:
                yield _nearest(before, frame, wanted[found], tolerance, path, size)
                found += 1
            if found == len(wanted):
                return
            before = frame
        for time in wanted[found:]:
            yield _nearest(before, before, time, tolerance, path, size)


def _opened(path: Path) -> tuple[Any, Any]:
    """The open container and its picture stream, which has a decoder."""
    av = require("av", extra=EXTRA)
    try:
        container = av.open(str(path))
    except FileNotFoundError as error:
        raise FileError("the film is missing", where=str(path)) from error
    except (av.error.FFmpegError, OSError) as error:
        raise _damaged(path, error) from error
    if not container.streams.video:
        container.close()
        raise FileError("the file has no pictures", where=str(path), expected="a film")
    stream = container.streams.video[0]
    if stream.codec_context is None or not _has_decoder(av, stream.codec_context.name):
        codec = _codec_name(path, stream.codec_context)
        container.close()
        raise FileError(
            f"the film is in the codec '{codec}', which is not decoded here",
            where=str(path),
            expected="h264, hevc, av1, vp9 or another that FFmpeg decodes",
            cure=_RECODE,
        )
    stream.thread_type = "AUTO"
    return container, stream


def _has_decoder(av: Any, name: str) -> bool:
    try:
        av.Codec(name, "r")
    except av.error.FFmpegError:
        return False
    return True


def _codec_name(path: Path, context: Any) -> str:
    """The codec by FFmpeg's name, or by the four letters in the file where FFmpeg has none."""
    if context is not None and context.name:
        return context.name
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # The box `stsd` of MP4: name, version and flags, a count, then size and letters of the first entry.
        start = content.find(b"stsd")
        letters = content[start + 16 : start + 20] if start >= 0 else b""
    return letters.decode("ascii", errors="replace").strip() or "unknown"


def _played(container: Any, stream: Any, path: Path, *, start: float) -> Iterator[Any]:
    av = require("av", extra=EXTRA)
    try:
        if start > 0:
            container.seek(int(start / stream.time_base), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.time is not None:
                yield frame
    except (av.error.FFmpegError, OSError) as error:
        raise _damaged(path, error) from error


def _nearest(
    before: Any, after: Any, time: float, tolerance: float, path: Path, size: tuple[int, int] | None
) -> Picture:
    choices = [frame for frame in (before, after) if frame is not None]
    nearest = min(choices, key=lambda frame: abs(frame.time - time), default=None)
    if nearest is None or abs(nearest.time - time) > tolerance:
        near = "it is empty" if nearest is None else f"the nearest is at {nearest.time:.3f} s"
        raise FileError(
            f"the film has no picture at {time:.3f} s: {near}",
            where=str(path),
            cure="the film is shorter than its episode or cut short: copy it again, or leave the camera out",
        )
    return resized(nearest.to_ndarray(format="rgb24"), size)


def _damaged(path: Path, error: Exception) -> FileError:
    return FileError(f"the film is damaged or cut short: {error}", where=str(path), cure="copy it again")

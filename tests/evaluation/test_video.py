import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from policysmith.common.errors import FileError, SettingError, ShapeError
from policysmith.evaluation.video import encode, side_by_side, write_animation


def plain(count: int, value: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((count, height, width, 3), value, dtype=np.uint8)


def decode(video: bytes, path) -> tuple[str, np.ndarray]:
    """What ffmpeg says of a video, and its frames."""
    path.write_bytes(video)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    facts = done.stderr.decode()
    width, height = map(int, re.search(r" ([1-9]\d*)x(\d+)\b", facts.split("Video:")[1]).groups())
    return facts, np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, height, width, 3)


def test_the_video_is_what_browsers_play(tmp_path):
    video = encode(plain(5, 90), fps=25)
    facts, _ = decode(video, tmp_path / "a.mp4")
    assert "h264" in facts
    assert "yuv420p" in facts
    assert "25 fps" in facts
    assert video.index(b"moov") < video.index(b"mdat")  # the index comes first


def test_the_video_shows_the_frames_and_every_one(tmp_path):
    frames = np.concatenate([plain(4, 30), plain(4, 220)])
    _, seen = decode(encode(frames, fps=10), tmp_path / "a.mp4")
    assert seen.shape == frames.shape
    assert np.abs(seen.astype(int) - frames).max() < 8


def test_odd_sizes_grow_by_one_pixel_of_the_edge(tmp_path):
    _, seen = decode(encode(plain(3, 120, height=31, width=45), fps=10), tmp_path / "a.mp4")
    assert seen.shape == (3, 32, 46, 3)
    assert np.abs(seen.astype(int) - 120).max() < 8


def test_the_shorter_rollout_holds_its_last_frame():
    short = np.stack([np.full((48, 64, 3), value, dtype=np.uint8) for value in (10, 200)])
    both = side_by_side({"short": short, "long": plain(5, 90)})
    assert len(both) == 5
    assert both[:, -10, 10, 0].tolist() == [10, 200, 200, 200, 200]
    assert both[:, -10, -10, 0].tolist() == [90] * 5


def test_every_panel_lies_under_its_own_caption_and_unchanged():
    both = side_by_side({"a": plain(1, 50), "b": plain(1, 150)})
    height, width = both.shape[1:3]
    assert (both[0, height - 48 :, :64] == 50).all()
    assert (both[0, height - 48 :, width - 64 :] == 150).all()
    assert both[0, : height - 48, :64].max() > 200  # light letters on the dark strip
    assert both[0, : height - 48, width - 64 :].max() > 200


def test_the_status_changes_with_its_frame_and_then_stays():
    status = ["step 0", "step 1", "success"]
    film = side_by_side({"a": plain(3, 0, width=200), "b": plain(5, 0, width=200)}, status={"a": status})
    strip = film[:, :20, 100:200].astype(int)
    assert np.abs(strip[0] - strip[1]).max() > 0
    assert np.abs(strip[1] - strip[2]).max() > 0
    assert np.abs(strip[2] - strip[4]).max() == 0
    assert np.abs(np.diff(film[:, :20, 200:].astype(int), axis=0)).max() == 0


def test_a_long_label_is_cut_and_stays_within_its_panel():
    film = side_by_side({"a label of more letters than fit": plain(1, 0), "": plain(1, 0)})
    assert film[0, :20, 70:].max() < 50  # nothing of it over the neighbour


def test_panels_of_other_sizes_are_centred_and_rows_wrap():
    film = side_by_side(
        {"a": plain(1, 99, height=40, width=40), "b": plain(1, 50), "c": plain(1, 60)}, columns=2
    )
    strip = side_by_side({"b": plain(1, 50)}).shape[1] - 48
    assert film.shape[1] > 2 * 48
    assert (film[0, strip + 4 : strip + 44, 12:52] == 99).all()
    assert (film[0, strip : strip + 48, :12] != 99).all()


def test_the_input_frames_are_left_alone():
    frames = plain(2, 7)
    side_by_side({"a": frames, "b": plain(3, 9)})
    encode(frames, fps=5)
    assert (frames == 7).all()


@pytest.mark.parametrize("ending", ["webp", "gif"])
def test_an_animation_loops_with_its_frames_at_its_rate(tmp_path, ending):
    frames = np.concatenate([plain(1, 20 * i) for i in range(6)])
    path = tmp_path / f"a.{ending}"
    size = write_animation(frames, path, 10)
    assert size == path.stat().st_size
    with Image.open(path) as picture:
        assert picture.n_frames == 6
        assert picture.size == (64, 48)
        assert picture.info["loop"] == 0
        picture.seek(3)
        picture.load()
        assert picture.info["duration"] == 100
        assert abs(picture.convert("RGB").getpixel((30, 20))[0] - 60) < 6


def test_an_animation_shrinks_until_it_is_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    full = write_animation(noise, tmp_path / "full.webp", 10)
    size = write_animation(noise, tmp_path / "small.webp", 10, max_bytes=full // 2)
    assert size <= full // 2
    with Image.open(tmp_path / "small.webp") as picture:
        assert 24 <= picture.width < 96
        assert picture.n_frames == 6


def test_an_animation_that_cannot_be_small_enough_leaves_no_file(tmp_path):
    with pytest.raises(FileError, match="fewer frames"):
        write_animation(plain(3, 5), tmp_path / "a.gif", 10, max_bytes=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frames",
    [plain(2, 5)[0], plain(2, 5).astype(float), plain(0, 5), np.zeros((2, 4, 4, 4), dtype=np.uint8)],
)
def test_other_than_frames_of_bytes_is_refused(frames):
    with pytest.raises(ShapeError, match="uint8"):
        encode(frames, fps=10)


def test_misuse_is_told_in_words(tmp_path):
    with pytest.raises(SettingError, match="fps"):
        encode(plain(1, 0), fps=0)
    with pytest.raises(SettingError, match=r"\.webp or \.gif"):
        write_animation(plain(1, 0), tmp_path / "a.png", 10)
    with pytest.raises(ShapeError, match="no panels"):
        side_by_side({})
    with pytest.raises(ShapeError, match="one text per frame"):
        side_by_side({"a": plain(2, 0)}, status={"a": ["success"]})
    with pytest.raises(ShapeError, match="status for 'b'"):
        side_by_side({"a": plain(1, 0)}, status={"b": [""]})
    with pytest.raises(SettingError, match="columns"):
        side_by_side({"a": plain(1, 0)}, columns=0)

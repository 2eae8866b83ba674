"""Pictures: resized by one rule, decoded from files, and films whose every fault has a name."""

import numpy as np
import pytest
from robot_files import film, grey, picture, png

from policysmith.common.errors import FileError
from policysmith.experience.pictures import decoded, describe_film, frames_at, resized


def test_a_smaller_picture_averages_what_it_covers():
    stripes = np.zeros((4, 8, 3), np.uint8)
    stripes[:, ::2] = 200  # every other column
    assert np.abs(resized(stripes, (2, 2)).astype(int) - 100).max() <= 13
    assert resized(stripes, (4, 8)) is stripes
    assert resized(stripes, None) is stripes
    assert resized(stripes, (3, 5)).shape == (3, 5, 3)


def test_png_is_decoded_to_the_same_bytes_and_damage_names_the_place():
    shown = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    assert np.array_equal(decoded(png(shown), where="here"), shown)
    with pytest.raises(FileError, match=r"cannot be decoded(.|\n)*episode 3"):
        decoded(png(shown)[:40], where="episode 3")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    frames = [picture(0, t) for t in range(20)]
    for name, codec in (("h264", "libx264"), ("av1", "libaom-av1"), ("mpeg4", "mpeg4")):
        film(folder / f"{name}.mp4", frames, codec=codec)
    return folder


def shades(path, times, **more):
    return [int(one[5, 5, 0]) for one in frames_at(path, times, tolerance=0.05, **more)]


@pytest.mark.parametrize("codec", ["h264", "av1", "mpeg4"])
def test_the_picture_of_each_time_is_found_from_the_middle_of_a_film_too(films, codec):
    path = films / f"{codec}.mp4"
    assert shades(path, [t / 10 for t in range(20)]) == pytest.approx([grey(0, t) for t in range(20)], abs=3)
    assert shades(path, [0.7, 0.8, 1.3]) == pytest.approx([grey(0, 7), grey(0, 8), grey(0, 13)], abs=3)
    assert shades(path, [1.9]) == pytest.approx([grey(0, 19)], abs=3)
    assert describe_film(path).codec == codec


def test_the_nearest_picture_is_taken_where_times_are_between(films):
    assert shades(films / "h264.mp4", [0.34, 0.36, 0.36]) == pytest.approx(
        [grey(0, 3), grey(0, 4), grey(0, 4)], abs=3
    )


def test_pictures_are_resized_as_they_come(films):
    (small,) = frames_at(films / "h264.mp4", [0.0], tolerance=0.05, size=(12, 16))
    assert small.shape == (12, 16, 3)
    assert small.dtype == np.uint8


def test_a_film_shorter_than_its_episode_is_an_error_that_says_when(films):
    with pytest.raises(FileError, match=r"no picture at 2.100 s: the nearest is at 1.900 s"):
        shades(films / "h264.mp4", [1.9, 2.1])


def test_a_film_cut_short_is_an_error(films, tmp_path):
    whole = (films / "h264.mp4").read_bytes()
    for share in (0.3, 0.8):
        path = tmp_path / f"{share}.mp4"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(FileError, match=r"damaged or cut short|no picture at"):
            shades(path, [t / 10 for t in range(20)])


def test_a_codec_that_nothing_decodes_is_named_with_the_cure(films, tmp_path):
    unknown = (films / "h264.mp4").read_bytes().replace(b"avc1", b"zzz9")
    (tmp_path / "film.mp4").write_bytes(unknown)
    with pytest.raises(FileError, match=r"codec 'zzz9'(.|\n)*ffmpeg -i OLD"):
        shades(tmp_path / "film.mp4", [0.0])


def test_what_is_no_film_is_an_error(tmp_path):
    (tmp_path / "film.mp4").write_text("no film")
    with pytest.raises(FileError, match="damaged or cut short"):
        describe_film(tmp_path / "film.mp4")
    with pytest.raises(FileError, match="missing"):
        describe_film(tmp_path / "absent.mp4")

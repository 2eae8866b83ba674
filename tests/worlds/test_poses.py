"""Poses and adjoints: against hand numbers, matrix exponentials and the identities that define them."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.worlds.poses import (
    adjoint,
    check_pose,
    cross_matrix,
    euler_pose,
    homogeneous,
    pose_error,
    relative_pose,
)

QUARTER = np.sqrt(0.5)
TURNED = np.array([1.0, 2.0, 3.0, 0.0, 0.0, QUARTER, QUARTER])
"""At (1, 2, 3), turned a quarter about z."""


def random_pose(seed):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=3), Rotation.random(random_state=seed).as_quat()])


def twist_matrix(twist):
    matrix = np.zeros((4, 4))
    matrix[:3, :3], matrix[:3, 3] = cross_matrix(twist[3:]), twist[:3]
    return matrix


def test_a_pose_relative_to_itself_is_the_identity():
    assert relative_pose(TURNED, TURNED) == pytest.approx([0, 0, 0, 0, 0, 0, 1])


def test_a_relative_pose_is_what_the_origins_frame_sees():
    # One to the left of a frame that looks along y is one forward along -x... of the base.
    other = TURNED + np.array([-1, 0, 0, 0, 0, 0, 0])
    assert relative_pose(other, TURNED) == pytest.approx([0, 1, 0, 0, 0, 0, 1])


def test_relative_poses_do_not_see_where_the_base_stands():
    moved = homogeneous(random_pose(5))

    def move(pose):
        matrix = moved @ homogeneous(pose)
        return np.concatenate([matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3]).as_quat()])

    pose, origin = random_pose(1), random_pose(2)
    assert relative_pose(move(pose), move(origin)) == pytest.approx(relative_pose(pose, origin))


def test_euler_angles_of_a_quarter_turn():
    assert euler_pose(TURNED) == pytest.approx([1, 2, 3, 0, 0, np.pi / 2])


def test_the_textbook_adjoint_is_the_conjugation_of_twists():
    pose, twist = random_pose(3), np.array([0.1, -0.2, 0.3, 0.4, 0.5, -0.6])
    transform = homogeneous(pose)
    in_base = adjoint(pose) @ twist
    conjugated = transform @ twist_matrix(twist) @ np.linalg.inv(transform)
    assert twist_matrix(in_base) == pytest.approx(conjugated)
    assert expm(twist_matrix(in_base)) @ transform == pytest.approx(transform @ expm(twist_matrix(twist)))


def test_a_turn_in_the_tools_frame_moves_the_point_at_the_bases_origin():
    # Turning about z at (1, 2, 3): p x w = (1, 2, 3) x (0, 0, 1) = (2, -1, 0).
    assert adjoint(TURNED) @ [0, 0, 0, 0, 0, 1] == pytest.approx([2, -1, 0, 0, 0, 1])
    assert adjoint(TURNED) @ [1, 0, 0, 0, 0, 0] == pytest.approx([0, 1, 0, 0, 0, 0])


def test_the_authors_order_moves_the_block_and_axes_leaves_it_out():
    textbook, authors, axes = (
        adjoint(TURNED, convention=convention) for convention in ("textbook", "authors", "axes")
    )
    assert np.array_equal(authors[3:, :3], textbook[:3, 3:])
    assert not authors[:3, 3:].any()
    assert not textbook[3:, :3].any()
    rotation = textbook[:3, :3]
    assert np.array_equal(axes, np.block([[rotation, np.zeros((3, 3))], [np.zeros((3, 3)), rotation]]))


def test_angles_differ_the_short_way_round():
    error = pose_error([0, 0, 0, np.pi - 0.1, 0, 0], [1, 0, 0, -np.pi + 0.1, 0, 0])
    assert error == pytest.approx([-1, 0, 0, -0.2, 0, 0])


def test_what_is_no_pose_is_refused():
    with pytest.raises(ShapeError, match=r"\[6\]"):
        check_pose(np.zeros(6))
    with pytest.raises(DataError, match="length 2"):
        check_pose([0, 0, 0, 0, 0, 0, 2])
    with pytest.raises(DataError):
        check_pose([np.nan, 0, 0, 0, 0, 0, 1])
    with pytest.raises(SettingError, match="textbook"):
        adjoint(TURNED, convention="left")

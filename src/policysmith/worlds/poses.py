"""Rigid poses and twists: where a tool is, how it turns, and the same seen from another frame.

A pose is a position and a unit quaternion (x, y, z, w), seven numbers; a twist is (v; w), a translational and
a rotational velocity. The adjoint of a pose (R, p) takes a twist from the tool's frame to the base's:

    (v_base; w_base) = [[R, [p]x R], [0, R]] (v_tool; w_tool).

Sources: Lynch and Park 2017, Modern Robotics, section 3.3.2 (there with w first); Luo et al. 2024 (SERL),
section IV-E, whose code has [p]x R at the lower left instead.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from policysmith.common.errors import DataError, SettingError, ShapeError

Convention = Literal["textbook", "authors", "axes"]
"""Where [p]x R stands in the adjoint: `textbook` at the upper right, `authors` at the lower left (as in the
code of SERL), `axes` nowhere: only axes change, as a controller of the tool's own velocity expects."""

POSE, TWIST = 7, 6


def homogeneous(pose: Float[ArrayLike, "7"]) -> Float[np.ndarray, "4 4"]:
    """The pose as a homogeneous transform [[R, p], [0, 1]]."""
    vector = check_pose(pose)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(vector[3:]).as_matrix()
    matrix[:3, 3] = vector[:3]
    return matrix


def relative_pose(pose: Float[ArrayLike, "7"], origin: Float[ArrayLike, "7"]) -> Float[np.ndarray, "7"]:
    """`pose` as it is seen from the frame of `origin`: inv(T_origin) T_pose, its quaternion with w >= 0."""
    matrix = np.linalg.inv(homogeneous(origin)) @ homogeneous(pose)
    quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat(canonical=True)
    return np.concatenate([matrix[:3, 3], quaternion])


def euler_pose(pose: Float[ArrayLike, "7"]) -> Float[np.ndarray, "6"]:
    """The pose with its rotation as angles about the fixed axes x, y and z, in radians."""
    vector = check_pose(pose)
    return np.concatenate([vector[:3], Rotation.from_quat(vector[3:]).as_euler("xyz")])


def adjoint(pose: Float[ArrayLike, "7"], *, convention: Convention = "textbook") -> Float[np.ndarray, "6 6"]:
    """The matrix that takes a twist (v; w) from the frame of `pose` to the base's; see `Convention`."""
    if convention not in get_args(Convention):
        raise SettingError(
            f"the convention '{convention}' for adjoints", expected=", ".join(get_args(Convention))
        )
    matrix = homogeneous(pose)
    rotation, position = matrix[:3, :3], matrix[:3, 3]
    found = np.zeros((TWIST, TWIST))
    found[:3, :3] = found[3:, 3:] = rotation
    if convention == "textbook":
        found[:3, 3:] = cross_matrix(position) @ rotation
    elif convention == "authors":
        found[3:, :3] = cross_matrix(position) @ rotation
    return found


def cross_matrix(vector: Float[ArrayLike, "3"]) -> Float[np.ndarray, "3 3"]:
    """The matrix [a]x with [a]x b = a x b."""
    x, y, z = np.asarray(vector, float)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def pose_error(pose: Float[ArrayLike, "6"], target: Float[ArrayLike, "6"]) -> Float[np.ndarray, "6"]:
    """`pose` minus `target`, positions and Euler angles; angles the short way round, in [-pi, pi)."""
    error = np.asarray(pose, float) - np.asarray(target, float)
    error[3:] = (error[3:] + np.pi) % (2 * np.pi) - np.pi
    return error


def check_pose(pose: Float[ArrayLike, "7"]) -> Float[np.ndarray, "7"]:
    """The pose as float64; raises where it is not seven finite numbers ending in a unit quaternion."""
    vector = np.asarray(pose, float)
    if vector.shape != (POSE,):
        raise ShapeError(f"a pose of shape {list(vector.shape)}", expected="[7]: x, y, z and a quaternion")
    length = np.linalg.norm(vector[3:])
    if not np.isfinite(vector).all() or abs(length - 1) > 1e-3:
        raise DataError(
            f"the pose {vector.tolist()} has a quaternion of length {length:.4g}",
            expected="finite numbers, and a unit quaternion (x, y, z, w)",
        )
    return vector

"""Seeds: the same on every machine, unrelated between parts, and nothing global moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from policysmith.common.rng import derive, draw_seed, generator, numpy_generator, seeded_initialisation

PATHS = st.lists(st.one_of(st.text("abcdefg-", min_size=1), st.integers(0, 10**6)), max_size=4)


def test_a_seed_is_the_same_on_every_machine():
    # The first eight bytes of SHA-256 of '[7, "evaluation", 3]', least significant first, modulo 2^31.
    digest = bytes.fromhex("34e420b6f682981f")
    assert derive(7, "evaluation", 3) == int.from_bytes(digest, "little") % 2**31


@settings(deadline=None)
@given(seed=st.integers(-(2**70), 2**70), path=PATHS)
def test_a_seed_fits_a_signed_32_bit_integer(seed, path):
    assert 0 <= derive(seed, *path) < 2**31
    assert derive(seed, *path) == derive(seed, *path)


def test_parts_of_a_run_have_seeds_of_their_own():
    paths = [
        (),
        ("a/b",),
        ("a", "b"),
        ("2",),
        (2,),
        ("a",),
        ("b",),
        ("a", 0),
        ("a", 1),
        ("a", 11),
        ("a", 1, 1),
        (0,),
        ("", "a"),
        ("a", ""),
    ]
    seeds = {derive(seed, *path) for seed in (0, 1, 10, -1) for path in paths}
    assert len(seeds) == 4 * len(paths)
    assert len({derive(0, "episode", number) for number in range(2000)}) == 2000


def test_numbers_of_any_integer_type_are_the_same_seed():
    assert derive(np.int64(5), "x", np.int32(2)) == derive(5, "x", 2) == derive(True + 4, "x", 2)


def test_bits_of_derived_seeds_are_balanced():
    seeds = np.array([derive(0, number) for number in range(4000)])
    share = [(seeds >> bit & 1).mean() for bit in range(31)]
    assert max(abs(np.array(share) - 0.5)) < 0.05  # six deviations of a fair coin


def test_generators_are_fresh_and_their_own():
    one, two, other = generator(0, "a"), generator(0, "a"), generator(0, "b")
    first = torch.rand(4, generator=one)
    assert torch.equal(first, torch.rand(4, generator=two))
    assert not torch.equal(first, torch.rand(4, generator=other))
    assert one.initial_seed() == derive(0, "a")
    assert np.array_equal(numpy_generator(0, "a").random(4), numpy_generator(0, "a").random(4))


def test_a_drawn_seed_advances_its_generator_and_is_in_range():
    rng = generator(0)
    seeds = [draw_seed(rng) for _ in range(1000)]
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 1000
    assert [draw_seed(again) for again in [generator(0)] for _ in range(3)] == seeds[:3]


def test_weights_depend_on_the_seed_alone():
    def weights(seed, disturb):
        torch.rand(disturb)
        with seeded_initialisation(seed):
            return nn.Linear(3, 3).weight.detach()

    assert torch.equal(weights(1, 1), weights(1, 5))
    assert not torch.equal(weights(1, 1), weights(2, 1))


@pytest.mark.parametrize("failing", [False, True])
def test_the_global_generator_is_put_back(failing):
    before = torch.get_rng_state()
    try:
        with seeded_initialisation(3):
            torch.rand(10)
            if failing:
                raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_deriving_and_generating_leave_global_generators_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(3, generator=generator(0, "x"))
    numpy_generator(0).random()
    draw_seed(generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)

"""Examples to be imitated: how they are drawn."""

import pytest
import torch

from policysmith.common.errors import DataError
from policysmith.experience.examples import Example, Examples, ExampleSampler
from policysmith.experience.passes import BATCHES_AT_A_TIME


def rng():
    return torch.Generator().manual_seed(0)


def of_lengths(count):
    return Examples(Example("?", "x" * length) for length in range(1, count + 1))


def test_every_example_is_drawn_once_a_pass():
    size = 4 * BATCHES_AT_A_TIME
    sampler = ExampleSampler(of_lengths(size), rng=rng())
    for _ in range(2):
        drawn = [len(example.answer) for _ in range(BATCHES_AT_A_TIME) for example in sampler.sample(4)]
        assert sorted(drawn) == list(range(1, size + 1))


def test_a_batch_holds_neighbours_in_length_and_the_batches_come_in_random_order():
    size = 4 * BATCHES_AT_A_TIME
    sampler = ExampleSampler(of_lengths(size), rng=rng())
    batches = [sorted(len(each.answer) for each in sampler.sample(4)) for _ in range(BATCHES_AT_A_TIME)]
    assert all(batch[-1] - batch[0] == 3 for batch in batches)
    assert batches != sorted(batches)


def test_a_sampler_goes_on_between_the_batches_it_drew_together():
    examples = of_lengths(50)
    first = ExampleSampler(examples, rng=rng())
    first.sample(4)
    state, generator = first.state_dict(), first.rng.get_state()
    expected = [first.sample(4) for _ in range(2 * BATCHES_AT_A_TIME)]
    second = ExampleSampler(examples, rng=rng())
    second.rng.set_state(generator)
    second.load_state_dict(state)
    assert [second.sample(4) for _ in range(2 * BATCHES_AT_A_TIME)] == expected
    with pytest.raises(DataError, match="not those of the saved run"):
        ExampleSampler(examples[:49], rng=rng()).load_state_dict(state)


@pytest.mark.parametrize(("examples", "said"), [([], "no examples"), ([Example("", "x")], "example 0")])
def test_examples_without_a_prompt_are_named(examples, said):
    with pytest.raises(DataError, match=said):
        Examples(examples)

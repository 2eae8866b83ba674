import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.rng import generator
from policysmith.common.saving import saveable
from policysmith.policies.archive import ParetoArchive
from policysmith.policies.protocol import Policy, load_policy

RETURNS = torch.tensor([[1.0, 5.0], [4.0, 3.0], [5.0, 1.0]])


@saveable
class Always(Policy):
    """Acts the same number always."""

    def __init__(self, number):
        super().__init__()
        self.observation_size, self.action_size = 2, 1
        self.number = torch.nn.Parameter(torch.tensor(float(number)))

    def act(self, observation, state, *, rng):
        return self.number.detach().expand(len(observation), 1, 1), state


def archive():
    return ParetoArchive([Always(number) for number in range(3)], objectives=2).set_returns(RETURNS)


def acts(policy):
    state = policy.initial_state(1)
    return float(policy.act(torch.zeros(1, 1, 2), state, rng=generator(0))[0])


def test_a_preference_is_assigned_the_member_worth_most_under_it():
    chosen = [archive().assign(weights) for weights in ([0, 1], [0.5, 0.5], [1, 0])]
    assert chosen == [0, 1, 2]
    # 0.3 a + 0.7 b: 3.8, 3.3, 2.2; the scale of the weights does not matter.
    assert archive().assign([3, 7]) == archive().assign(torch.tensor([0.3, 0.7])) == 0


def test_the_member_that_suits_the_preference_acts_the_balanced_one_at_first():
    policy = archive()
    assert acts(policy) == 1
    assert acts(policy.prefer([1, 0])) == 2
    assert acts(policy.prefer([0, 2])) == 0


def test_a_saved_archive_knows_its_members_their_returns_and_the_preference(tmp_path):
    archive().prefer([0, 1]).save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert acts(loaded) == 0
    assert acts(loaded.prefer([1, 0])) == 2
    assert torch.equal(loaded.returns, RETURNS.double())


def test_the_front_is_measured():
    assert archive().hypervolume([0, 0]) == pytest.approx(1 * 5 + 3 * 3 + 1 * 1)
    # Preferences (0,1), (1/2,1/2), (1,0): 5, 3.5, 5.
    assert archive().expected_utility(parts=2) == pytest.approx(4.5)
    assert archive().sparsity() == pytest.approx((9 + 1 + 4 + 4) / 2)


@pytest.mark.parametrize("bad", [[1.0], [1.0, 1.0, 1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_a_preference_that_is_none_is_refused(bad):
    with pytest.raises(SettingError, match="2 weights"):
        archive().prefer(bad)


def test_an_archive_needs_members_and_a_row_of_returns_for_each():
    with pytest.raises(SettingError):
        ParetoArchive([], objectives=2)
    with pytest.raises(ShapeError, match="a row per member"):
        archive().set_returns(RETURNS[:2])

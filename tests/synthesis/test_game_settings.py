"""Settings of a game of preferences: what is refused."""

import pytest

from policysmith.common.errors import SettingError
from policysmith.synthesis.game_settings import GameSettings


@pytest.mark.parametrize(
    "wrong",
    [{"group_size": 1}, {"threshold": 1.5}, {"max_feedback": -1}, {"orders": 3}, {"pair": "all"},
     {"positive": "truth"}, {"scale": 0}, {"probe": 0}, {"at_a_time": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        GameSettings(**wrong)


def test_one_candidate_will_do_where_the_better_answer_is_given():
    assert GameSettings(group_size=1, positive="label").group_size == 1

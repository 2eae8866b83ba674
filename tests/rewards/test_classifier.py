"""Rewards of a classifier: its word is the reward, as it stands when the batch is drawn."""

import gymnasium
import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.vision import PictureEncoder
from policysmith.rewards.classifier import ClassifierReward, SuccessClassifier, paid_by
from policysmith.worlds.point import PointReach


def made(state_size=3, **options):
    with seeded_initialisation(0):
        return SuccessClassifier(state_size, hidden=16, **options)


def states(rows, size=3, seed=0):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def biased(classifier, by):
    with torch.no_grad():
        classifier.head[-1].bias += by
    return classifier


def test_half_is_the_border_of_success():
    classifier = made().eval()
    seen = states(50)
    assert torch.equal(classifier.says(seen), classifier.logit(seen).sigmoid() >= 0.5)
    assert 0 < classifier.says(seen).sum() < 50


def test_dropout_does_not_touch_its_word():
    classifier = made(dropout=0.5).train()
    first = classifier.says(states(200))
    assert all(torch.equal(first, classifier.says(states(200))) for _ in range(3))
    assert classifier.training


def test_a_batch_is_paid_by_what_followed_and_by_the_classifier_as_it_is_now():
    classifier = made()
    batch = {"observation": states(8), "next_observation": states(8, seed=1), "reward": torch.full((8,), 9.0)}
    label = paid_by(classifier)
    assert torch.equal(label(batch)["reward"], classifier.says(batch["next_observation"]).float())
    biased(classifier, 100)
    assert label(batch)["reward"].tolist() == [1.0] * 8
    assert batch["reward"].tolist() == [9.0] * 8


def test_states_are_brought_to_a_common_scale():
    classifier = made()
    scaled = 5 + 3 * states(500)
    scaled[:, 1] = 7.0
    features = classifier.fit_scale(scaled).features(scaled)
    assert features.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert features.std(0).tolist() == pytest.approx([1, 0, 1], abs=1e-5)


def test_it_reads_pictures_beside_the_state_and_comes_back_from_disk(tmp_path):
    with seeded_initialisation(0):
        encoder = PictureEncoder(["wrist"], [(16, 16)], widths=(8,), features=4)
    classifier = made(2, encoder=encoder).eval()
    pictures = torch.randint(256, (6, 16, 16, 3), dtype=torch.uint8)
    seen = TensorDict({"state": states(6, 2), "wrist": pictures}, batch_size=[6])
    assert classifier.features(seen).shape == (6, 6)
    save_pretrained(classifier, tmp_path / "classifier")
    again = from_pretrained(tmp_path / "classifier", expected=SuccessClassifier).eval()
    assert torch.equal(again.logit(seen), classifier.logit(seen))


def test_the_wrapper_pays_and_ends_by_the_classifiers_word():
    seen = []
    for by in (100, -100):
        env = ClassifierReward(PointReach(), biased(made(4), by))
        env.reset(seed=0)
        seen.append(env.step(env.action_space.sample() * 0)[1:])
    (yes, no) = seen
    assert yes[:3] == (1.0, True, False)
    assert no[:3] == (0.0, False, False)
    assert yes[3] == {"success": 0.0, "classified": 1.0}
    assert isinstance(env, gymnasium.Wrapper)


def test_what_it_cannot_read_is_refused():
    with pytest.raises(SettingError, match="of nothing"):
        SuccessClassifier(0)
    with pytest.raises(ShapeError, match="3 numbers"):
        made().logit(states(2, 5))

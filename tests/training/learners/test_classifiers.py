"""Classifiers of success: they learn to tell, and a regularised one is softer than one that is not."""

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.networks.vision import PictureEncoder, shifted
from policysmith.rewards.classifier import SuccessClassifier
from policysmith.training.learners.classifiers import (
    fit_classifier,
    success_batch,
    success_learner,
    vice_batch,
    vice_learner,
    vice_loss,
)


def made(state_size=2, **options):
    with seeded_initialisation(0):
        return SuccessClassifier(state_size, hidden=32, dropout=0.0, **options)


def frames(rows, centre, seed=0):
    return centre + torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))


def rows_of(batch):
    return TensorDict(batch, batch_size=[len(batch["label"])])


def test_a_batch_is_half_success_and_half_failure():
    batch = success_batch(frames(3, 100), frames(500, -100), rows=20, rng=generator(0, "batch"))
    assert batch["label"].tolist() == [1] * 10 + [0] * 10
    assert ((batch["observation"][:, 0] > 0).float() == batch["label"]).all()


def test_it_learns_to_tell_states_apart():
    classifier = made()
    success, failure = frames(200, 3.0), frames(2000, 0.0, seed=1)
    metrics = fit_classifier(
        classifier, success, failure, steps=150, learning_rate=3e-3, rng=generator(0, "classifier")
    )
    assert metrics["accuracy"] > 0.95
    assert classifier.says(frames(100, 3.0, seed=2)).float().mean() > 0.9
    assert classifier.says(frames(100, 0.0, seed=3)).float().mean() < 0.1
    assert not classifier.training


def test_it_learns_to_tell_pictures_apart():
    with seeded_initialisation(0):
        encoder = PictureEncoder(["front"], [(16, 16)], widths=(8,), features=8)
    classifier = made(0, encoder=encoder)

    def pictures(rows, column, seed):
        found = torch.randint(60, (rows, 16, 16, 3), generator=generator(seed), dtype=torch.uint8)
        found[:, 6:10, column : column + 4] = 250
        return TensorDict({"front": found}, batch_size=[rows])

    fit_classifier(
        classifier,
        pictures(64, 11, 0),
        pictures(64, 1, 1),
        steps=60,
        rows=32,
        learning_rate=3e-3,
        rng=generator(0, "classifier"),
    )
    assert classifier.says(pictures(32, 11, 2)).float().mean() > 0.9
    assert classifier.says(pictures(32, 1, 3)).float().mean() < 0.1


def test_no_examples_of_either_kind_are_an_error_that_says_which():
    with pytest.raises(DataError, match="success"):
        success_batch(frames(0, 0), frames(3, 0), rows=4, rng=generator(0))
    with pytest.raises(DataError, match="failure"):
        success_batch(frames(3, 0), frames(0, 0), rows=4, rng=generator(0))
    with pytest.raises(SettingError, match="even"):
        vice_batch(frames(3, 0), frames(3, 0), rows=5, rng=generator(0))


def test_only_pictures_are_shifted_and_each_camera_on_its_own():
    pictures = torch.randint(256, (9, 12, 12, 3), dtype=torch.uint8)
    seen = TensorDict({"state": frames(9, 0), "a": pictures, "b": pictures}, batch_size=[9])
    moved = shifted(seen, rng=generator(0))
    assert torch.equal(moved["state"], seen["state"])
    assert not torch.equal(moved["a"], moved["b"])


def test_a_batch_of_vice_has_smoothed_labels_and_everything_twice():
    batch = vice_batch(frames(4, 100), frames(9, -100), rows=6, rng=generator(0))
    assert batch["label"].tolist() == pytest.approx([0.9] * 3 + [0.1] * 3 + [0.9] * 3 + [0.1] * 3)
    assert torch.equal(batch["observation"][:6], batch["observation"][6:])
    assert sorted(batch["partner"].tolist()) == list(range(12))
    assert len(batch["mix"].unique()) == 1


def test_the_gradient_is_looked_at_between_the_classes():
    classifier = made()
    seen = []
    honest = classifier.of_features
    classifier.of_features = lambda features: seen.append(features) or honest(features)
    batch = vice_batch(frames(4, 100), frames(9, -100), rows=6, rng=generator(0))
    batch["interpolate"] = torch.full((12,), 0.5)
    vice_loss(classifier, batch)
    assert seen[1].abs().max() < 10  # half of 100 and half of -100


def test_without_mixing_the_cross_entropy_is_that_of_the_smoothed_labels():
    classifier = made()
    batch = vice_batch(frames(4, 1), frames(9, -1), rows=6, rng=generator(0)) | {"mix": torch.ones(12)}
    _, statistics = vice_loss(classifier, batch)
    probability = classifier.logit(batch["observation"]).sigmoid()
    label = batch["label"]
    expected = -(label * probability.log() + (1 - label) * (1 - probability).log())
    assert statistics["cross_entropy"].tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_vice_stays_soft_where_a_plain_classifier_becomes_sure():
    goal, seen, rng = frames(100, 3.0), frames(100, -3.0, seed=1), generator(0, "classifier")
    plain, soft = made(), made()
    plain_learner = success_learner(plain, learning_rate=3e-3)
    soft_learner = vice_learner(soft, learning_rate=3e-3)
    for _ in range(150):
        plain_learner.step(rows_of(success_batch(goal, seen, rows=64, rng=rng)))
        soft_learner.step(rows_of(vice_batch(goal, seen, rows=32, rng=rng)))
    assert plain.logit(goal).mean() > 4
    assert soft.says(goal).float().mean() > 0.8
    assert soft.says(seen).float().mean() < 0.2
    assert soft.logit(goal).mean() < 3.5
    point = frames(50, 0.0, seed=4).requires_grad_()
    (gradient,) = torch.autograd.grad(soft.of_features(point).sum(), point)
    assert gradient.norm(dim=-1).mean().item() == pytest.approx(1, abs=0.4)

"""The learner: one step, the same however it is cut, and as a function of the parameters."""

import copy
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import nn

from policysmith.common.errors import NotFiniteError, SettingError, ShapeError
from policysmith.networks.ema import ExponentialAverage
from policysmith.training.learner import Learner, cosine_schedule, linear_schedule, row_weight

torch.set_num_threads(1)


def network(seed=0):
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    return module


def squared_error(module, batch):
    error = (module(batch["x"]) - batch["y"]).square().mean(-1)
    return error, {"absolute": error.sqrt()}


def rows(count, seed=0, **more):
    rng = torch.Generator().manual_seed(seed)
    data = {"x": torch.randn(count, 3, generator=rng), "y": torch.randn(count, 2, generator=rng)}
    return TensorDict(data | more, batch_size=[count])


def made(module=None, loss=squared_error, *, rate=0.1, adam=False, **options):
    module = module or network()
    kind = torch.optim.AdamW if adam else torch.optim.SGD
    return Learner(module, loss, optimizer=kind(module.parameters(), lr=rate), **options)


def weights(learner):
    return {name: value.detach().clone() for name, value in learner.module.named_parameters()}


def assert_close(one, other, tolerance):
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=0)


# ---- the step ------------------------------------------------------------------------------------------


def test_one_step_by_hand():
    """y = w x, w = 2, x = 1 and 3, targets 0: loss (4 + 36) / 2, slope (4 + 36) / 2, then 2 - 0.1 * 20."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    learner = made(module, lambda module, batch: (module(batch["x"])[:, 0].square(), {}))
    metrics = learner.step(TensorDict({"x": torch.tensor([[1.0], [3.0]])}, [2]))
    assert metrics == {"loss": 20.0, "grad_norm": 20.0}
    assert module.weight.item() == pytest.approx(0.0, abs=1e-6)
    assert learner.steps == 1


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 17), cut=st.integers(1, 20), weighted=st.booleans(), clip=st.booleans())
def test_micro_batches_do_not_change_the_step(count, cut, weighted, clip):
    weight = {"weight": torch.arange(1.0, count + 1) / sum(range(1, count + 1))} if weighted else {}
    batch = rows(count, **weight)
    limit = 0.5 if clip else None
    whole, parts = made(max_grad_norm=limit), made(max_grad_norm=limit, micro_batch=cut)
    for _ in range(3):
        expected, found = whole.step(batch), parts.step(batch)
        assert expected.keys() == found.keys() == {"loss", "grad_norm", "absolute"}
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-5)
    assert_close(weights(whole), weights(parts), 1e-6)


def test_micro_batches_never_hold_more_rows_than_they_may():
    seen = []

    def loss(module, batch):
        seen.append(len(batch))
        return squared_error(module, batch)

    made(loss=loss, micro_batch=4).step(rows(10))
    assert seen == [4, 4, 2]


def test_the_weight_of_a_row_is_what_it_counts():
    batch = rows(6)
    doubled = torch.cat([batch, batch[:2]])
    weight = torch.tensor([2.0, 2, 1, 1, 1, 1]) / 8
    by_weight, by_repetition = made(), made()
    found = by_weight.step(batch.clone().set("weight", weight))
    expected = by_repetition.step(doubled)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5)
    assert_close(weights(by_weight), weights(by_repetition), 1e-6)


def test_a_row_of_no_weight_counts_for_nothing():
    batch = rows(4, weight=torch.tensor([0.5, 0.5, 0.0, 0.0]))
    changed = batch.clone()
    changed["y"][2:] += 100
    one, other = made(), made()
    assert one.step(batch) == other.step(changed)
    assert_close(weights(one), weights(other), 0)


def test_equal_weights_are_the_default():
    assert row_weight(rows(8)).tolist() == [1 / 8] * 8
    given_weight = torch.tensor([0.9, 0.1])
    assert torch.equal(row_weight(rows(2, weight=given_weight)), given_weight)


def test_the_gradient_is_clipped_to_its_norm_and_the_norm_reported_is_the_one_before():
    free, clipped = made(rate=1.0), made(rate=1.0, max_grad_norm=0.25)
    before = weights(free)
    norm = free.step(rows(5))["grad_norm"]
    assert clipped.step(rows(5))["grad_norm"] == norm > 0.25
    moved = [before[name] - value for name, value in weights(clipped).items()]
    assert float(torch.cat([part.flatten() for part in moved]).norm()) == pytest.approx(0.25, rel=1e-4)
    for name, value in weights(clipped).items():
        torch.testing.assert_close(
            before[name] - value,
            (before[name] - weights(free)[name]) * 0.25 / norm,
            atol=1e-6,
            rtol=1e-4,
        )


def test_a_gradient_below_the_limit_is_left_alone():
    free, clipped = made(), made(max_grad_norm=1e6)
    free.step(rows(5))
    clipped.step(rows(5))
    assert_close(weights(free), weights(clipped), 0)


def test_gradients_do_not_add_up_over_steps():
    learner, fresh = made(rate=0.0), made(rate=0.0)
    learner.step(rows(5, seed=1))
    assert learner.step(rows(5)) == fresh.step(rows(5))


def test_gradients_keep_their_place_and_weights_that_are_left_out_have_none():
    """Adam would move a weight whose gradient is zero by what it remembers; without a gradient it rests."""
    module = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)])

    def loss(both, batch):
        used = both if bool(batch["x"].shape[0] > 3) else both[:1]
        return sum(squared_error(each, batch)[0] for each in used), {}

    learner = made(module, loss, adam=True)
    learner.step(rows(5))
    places = [weight.grad.data_ptr() for weight in module.parameters()]
    resting = module[1].weight.detach().clone()
    learner.step(rows(3))
    assert [weight.grad.data_ptr() for weight in module[0].parameters()] == places[:2]
    assert module[1].weight.grad is None
    assert torch.equal(module[1].weight, resting)


def test_the_schedule_multiplies_the_rate_of_each_group():
    module = network()
    groups = [{"params": module[0].parameters(), "lr": 1.0}, {"params": module[2].parameters(), "lr": 0.5}]
    learner = Learner(
        module,
        squared_error,
        optimizer=torch.optim.SGD(groups, lr=9.0),
        schedule=lambda step: 1 / (1 + step),
    )
    for factor in (1, 1 / 2, 1 / 3):
        learner.step(rows(4))
        assert [group["lr"] for group in learner.optimizer.param_groups] == [factor, 0.5 * factor]


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0), (5, 0.5), (10, 1), (60, 0.5), (35, 0.8535534), (110, 0), (999, 0)]
)
def test_the_cosine_rises_linearly_and_falls_to_zero(step, factor):
    assert cosine_schedule(warmup=10, total=110)(step) == pytest.approx(factor, abs=1e-7)


def test_a_cosine_without_warm_up_starts_at_one():
    assert cosine_schedule(warmup=0, total=4)(0) == 1


def test_the_straight_line_falls_from_one_to_zero_and_stays_there():
    assert [linear_schedule(total=4)(step) for step in (0, 1, 2, 4, 9)] == [1.0, 0.75, 0.5, 0.0, 0.0]


def test_the_acting_copy_has_the_averaged_weights_and_does_not_follow():
    module = network()
    learner = made(module, average=ExponentialAverage(module, decay=lambda update: 0.5), rate=1.0)
    before = weights(learner)
    learner.step(rows(4))
    after = weights(learner)
    acting = learner.acting()
    assert not acting.training
    halfway = {name: (before[name] + after[name]) / 2 for name in before}
    assert_close(dict(acting.named_parameters()), halfway, 1e-6)
    kept = copy.deepcopy(dict(acting.named_parameters()))
    learner.step(rows(4))
    assert_close(dict(acting.named_parameters()), kept, 0)
    assert module.training


def test_without_an_average_the_acting_copy_has_the_weights_themselves():
    learner = made()
    learner.step(rows(4))
    assert_close(dict(learner.acting().named_parameters()), weights(learner), 0)


# ---- as a function of the parameters -------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_the_functional_gradient_is_that_of_backward(weighted):
    batch = rows(6, **({"weight": torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1, 0.0])} if weighted else {}))
    learner = made(rate=0.0)
    parameters = weights(learner)
    gradient, value = torch.func.grad_and_value(learner.functional_loss)(parameters, batch)
    metrics = learner.step(batch)
    assert float(value) == pytest.approx(metrics["loss"], rel=1e-6)
    assert set(gradient) == {name for name, _ in learner.module.named_parameters()}
    for name, parameter in learner.module.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, atol=1e-6, rtol=1e-5)


def test_the_functional_loss_uses_the_parameters_it_is_given_and_changes_nothing():
    learner, other = made(network(0)), made(network(1), rate=0.0)
    before = weights(learner)
    assert float(learner.functional_loss(weights(other), rows(5))) == pytest.approx(
        other.step(rows(5))["loss"]
    )
    assert_close(weights(learner), before, 0)
    assert all(parameter.grad is None for parameter in learner.module.parameters())


@pytest.mark.parametrize("own_rows", [False, True])
def test_a_population_of_parameters_is_evaluated_at_once(own_rows):
    learners = [made(network(seed)) for seed in range(4)]
    population = {
        name: torch.stack([weights(learner)[name] for learner in learners]) for name in weights(learners[0])
    }
    batches = [rows(5, seed=seed if own_rows else 0) for seed in range(4)]
    batch = torch.stack(batches) if own_rows else batches[0]
    function = torch.func.vmap(
        torch.func.grad_and_value(learners[0].functional_loss), in_dims=(0, 0 if own_rows else None)
    )
    gradients, values = function(population, batch)
    assert values.shape == (4,)
    for i, learner in enumerate(learners):
        gradient, value = torch.func.grad_and_value(learner.functional_loss)(weights(learner), batches[i])
        torch.testing.assert_close(values[i], value, atol=1e-6, rtol=1e-5)
        for name, part in gradient.items():
            torch.testing.assert_close(gradients[name][i], part, atol=1e-6, rtol=1e-4)


def test_the_functional_loss_differentiates_through_an_update():
    """d/dw of the loss after one gradient step, against finite differences."""
    learner = made(network().double())
    batch = rows(5).double()

    def after_a_step(scale):
        parameters = {name: scale * value for name, value in weights(learner).items()}
        gradient = torch.func.grad(learner.functional_loss)(parameters, batch)
        moved = {name: parameters[name] - 0.1 * gradient[name] for name in parameters}
        return learner.functional_loss(moved, batch)

    one = torch.tensor(1.0, dtype=torch.double)
    slope = torch.func.grad(after_a_step)(one)
    step = 1e-5
    assert float(slope) == pytest.approx(
        float(after_a_step(one + step) - after_a_step(one - step)) / (2 * step), rel=1e-5
    )


# ---- what is not finite --------------------------------------------------------------------------------


def poisoned(where):
    """A learner and a batch with one value that is not finite."""
    learner, batch = made(adam=True, max_grad_norm=1.0), rows(6)
    if where == "batch entry 'y'":
        batch["y"][4, 1] = math.nan
    elif where == "weight '2.bias'":
        learner.module[2].bias.data[0] = math.inf
    elif where == "gradient of '0.weight'":
        learner.module[0].weight.register_hook(lambda gradient: gradient * math.nan)
    else:
        learner.loss = lambda module, batch: (module(batch["x"]).sum(-1).exp() * 1e38 * 1e38, {})
    return learner, batch


CULPRITS = ["batch entry 'y'", "weight '2.bias'", "gradient of '0.weight'"]


@pytest.mark.parametrize("where", [*CULPRITS, "the loss"])
@pytest.mark.parametrize("cut", [None, 2])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(where, cut):
    learner, batch = poisoned(where)
    learner.micro_batch = cut
    average = ExponentialAverage(learner.module, decay=lambda update: 0.5)
    learner.average = average
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(NotFiniteError):
        learner.step(batch)
    after = learner.state_dict()
    assert learner.steps == 0
    assert after["optimizer"]["state"] == {}
    assert_close(after["module"], before["module"], 0)
    assert_close(after["average"]["average"], before["average"]["average"], 0)


@pytest.mark.parametrize("where", CULPRITS)
def test_the_error_names_the_step_and_the_first_tensor_at_fault(where):
    learner, batch = poisoned(where)
    learner.steps = 41
    with pytest.raises(NotFiniteError) as error:
        learner.step(batch)
    assert error.value.where == f"optimiser step 42; first tensor that is not finite: {where}"
    assert "last checkpoint is kept" in error.value.cure


def test_an_input_is_blamed_before_the_gradients_that_it_spoils():
    learner, batch = poisoned("batch entry 'y'")
    with pytest.raises(NotFiniteError, match="batch entry 'y'"):
        learner.step(batch)
    assert learner.module[0].weight.grad.isnan().any()


def test_a_loss_that_overflows_by_itself_is_said_to():
    def loss(module, batch):
        error, _ = squared_error(module, batch)
        return error + 1e30 * torch.full_like(error, 1e38), {}

    with pytest.raises(NotFiniteError, match="the loss itself overflowed"):
        made(loss=loss).step(rows(3))


def test_a_good_batch_after_a_bad_one_steps_as_if_nothing_had_been():
    learner, fresh = made(adam=True), made(adam=True)
    bad = rows(4)
    bad["x"][0, 0] = math.nan
    with pytest.raises(NotFiniteError):
        learner.step(bad)
    assert learner.step(rows(4)) == fresh.step(rows(4))
    assert_close(weights(learner), weights(fresh), 0)


# ---- saving --------------------------------------------------------------------------------------------


def full(seed):
    module = network(seed)
    return made(
        module,
        adam=True,
        rate=0.05,
        schedule=cosine_schedule(warmup=2, total=20),
        average=ExponentialAverage(module, decay=lambda update: 0.9),
    )


def test_a_loaded_learner_takes_the_same_steps_bit_for_bit():
    learner, loaded = full(0), full(1)
    for seed in range(4):
        learner.step(rows(5, seed))
    loaded.load_state_dict(copy.deepcopy(learner.state_dict()))
    for seed in range(4, 9):
        assert learner.step(rows(5, seed)) == loaded.step(rows(5, seed))
    assert_close(weights(learner), weights(loaded), 0)
    assert_close(dict(learner.acting().named_parameters()), dict(loaded.acting().named_parameters()), 0)
    assert learner.steps == loaded.steps == 9


def test_loading_takes_a_copy_so_that_one_state_serves_twice():
    learner = full(0)
    learner.step(rows(5))
    state = copy.deepcopy(learner.state_dict())
    ends = []
    for seed in (1, 2):
        loaded = full(seed)
        loaded.load_state_dict(state)
        for batch in range(3):
            loaded.step(rows(5, batch))
        ends.append(weights(loaded))
    assert_close(*ends, 0)


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda module, batch: (squared_error(module, batch)[0][:, None], {}),
        lambda module, batch: (squared_error(module, batch)[0].mean(), {}),
        lambda module, batch: ((module(batch["x"]) - batch["y"]).square(), {}),
    ],
)
def test_a_loss_without_one_value_per_row_is_refused_and_not_broadcast(loss):
    learner = made(loss=loss)
    with pytest.raises(ShapeError, match="a value and a weight per row"):
        learner.step(rows(4))
    with pytest.raises(ShapeError, match="a value and a weight per row"):
        learner.functional_loss(weights(learner), rows(4))


def test_weights_of_another_shape_are_refused_and_not_broadcast():
    with pytest.raises(ShapeError, match=r"values of shape \[4\] for weights of shape \[4, 1\]"):
        made().step(rows(4, weight=torch.full((4, 1), 0.25)))


def test_a_batch_without_rows_is_refused():
    with pytest.raises(ShapeError, match="a batch without rows"):
        made().step(rows(0))


@pytest.mark.parametrize("cut", [0, -1])
def test_micro_batches_without_rows_are_refused(cut):
    with pytest.raises(SettingError, match=f"micro-batches of {cut} rows"):
        made(micro_batch=cut)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_loss_takes_the_same_steps_but_for_rounding():
    def squares(module, batch):
        error = (module(batch["x"]) - batch["y"]).square().sum(1)
        return error, {"error": error}

    def learner(compiled: bool) -> Learner:
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        return Learner(module, squares, optimizer=optimizer, max_grad_norm=0.5, compiled=compiled)

    plain, fast = learner(False), learner(True)
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        batch = {"x": torch.randn(4, 3, generator=rng), "y": torch.randn(4, 2, generator=rng)}
        assert fast.step(batch) == pytest.approx(plain.step(batch), rel=1e-5)
    torch.testing.assert_close(fast.module.weight, plain.module.weight)


def test_rows_that_are_a_plain_dictionary_take_the_step_of_a_tensordict():
    def squares(module, batch):
        error = (module(batch["x"]) - batch["y"]).square().sum(1)
        return error, {"error": error, "half": 0.5 * error}

    def learner(limit: float | None) -> Learner:
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        return Learner(
            module, squares, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), max_grad_norm=limit
        )

    rng = torch.Generator().manual_seed(0)
    rows = {"x": torch.randn(4, 3, generator=rng), "y": torch.randn(4, 2, generator=rng)}
    for limit in (None, 0.5, 1e6):
        one, other = learner(limit), learner(limit)
        for _ in range(2):
            found = one.step(rows)
            assert found == pytest.approx(other.step(TensorDict(rows, batch_size=4)), rel=1e-5)
            assert found["half"] == pytest.approx(0.5 * found["loss"])
        torch.testing.assert_close(one.module.weight, other.module.weight)

"""The transformer: its tokens against a plain rewrite, causality, short sequences, levels, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, grad, vmap

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.transformer import TransformerDenoiser

ACTION, HORIZON, STATE, GOALS = 3, 4, 5, 2


def denoiser(seed: int = 0, **settings) -> TransformerDenoiser:
    """Four states and actions, two goals; weights large enough for every input to matter."""
    arguments = {"observation_tokens": HORIZON, "goal_tokens": GOALS, "width": 16, "depth": 2, "heads": 2}
    arguments |= settings
    tokens = arguments["observation_tokens"] + arguments["goal_tokens"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TransformerDenoiser(ACTION, HORIZON, tokens * STATE, **arguments)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(network: TransformerDenoiser, positions: int = HORIZON, batch: int = 3):
    rng = torch.Generator().manual_seed(0)
    states = min(positions, network.observation_tokens)
    return (
        torch.randn(batch, positions, ACTION, generator=rng),
        torch.randn(batch, generator=rng),
        torch.randn(batch, (network.goal_tokens + states) * STATE, generator=rng),
    )


def plainly(network: TransformerDenoiser, noisy, level, condition):
    """One row, one token after the other, attention written out."""
    w = dict(network.named_parameters())

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(name, x):
        return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    goals, states, position = network.goal_tokens, network.observation_tokens, w["position"]
    told = condition.view(-1, STATE)
    tokens = [linear("level_input", level.view(1))]
    tokens += [linear("condition_input", told[g]) + position[g] for g in range(goals)]
    kinds = ["level"] + ["goal"] * goals
    for t in range(len(noisy)):
        if t < states:
            tokens.append(linear("condition_input", told[goals + t]) + position[goals + t])
            kinds.append("state")
        tokens.append(linear("action_input", noisy[t]) + position[goals + t])
        kinds.append("action")
    for block in range(len(network.blocks)):
        tokens = plain_block(f"blocks.{block}", tokens, linear, norm, network.blocks[block])
    acted = [token for token, kind in zip(tokens, kinds, strict=True) if kind == "action"]
    return torch.stack([linear("output", norm("norm", token)) for token in acted])


def plain_block(name, tokens, linear, norm, block):
    normed = [norm(f"{name}.attention_norm", token) for token in tokens]
    queries, keys, values = zip(
        *(linear(f"{name}.query_key_value", token).view(3, block.heads, -1) for token in normed), strict=True
    )
    after = []
    for i, token in enumerate(tokens):
        seen = range(i + 1) if block.causal else range(len(tokens))
        mixed = []
        for head in range(block.heads):
            score = torch.stack([queries[i][head] @ keys[j][head] for j in seen])
            share = torch.softmax(score / math.sqrt(len(queries[i][head])), dim=0)
            mixed.append(sum(share[k] * values[j][head] for k, j in enumerate(seen)))
        token = token + linear(f"{name}.attended", torch.cat(mixed))
        hidden = torch.nn.functional.gelu(linear(f"{name}.layer.0", norm(f"{name}.layer_norm", token)))
        after.append(token + linear(f"{name}.layer.2", hidden))
    return after


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("states", "goals"), [(4, 2), (2, 1), (0, 1), (1, 0)])
def test_it_is_the_plain_transformer_over_level_goals_states_and_actions(causal, states, goals):
    network = denoiser(causal=causal, observation_tokens=states, goal_tokens=goals).double()
    noisy, level, condition = (value.double() for value in inputs(network))
    expected = torch.stack([plainly(network, *row) for row in zip(noisy, level, condition, strict=True)])
    torch.testing.assert_close(network(noisy, level, condition), expected)


def reach(network: TransformerDenoiser, part: str, index: slice) -> list[bool]:
    """Which output positions change when a part of one input does."""
    given = dict(zip(("noisy", "level", "condition"), inputs(network), strict=True))
    changed = given | {part: given[part].clone()}
    if part == "level":
        changed[part] += 1
    else:
        changed[part][:, index] += 1
    difference = (network(**given) - network(**changed)).detach().abs().amax(dim=(0, 2))
    return (difference > 1e-5).tolist()


def state(t: int) -> slice:
    return slice((GOALS + t) * STATE, (GOALS + t + 1) * STATE)


@pytest.mark.parametrize("t", range(HORIZON))
def test_a_causal_action_is_told_of_no_later_action_or_state(t):
    at_or_after = [position >= t for position in range(HORIZON)]
    assert reach(denoiser(), "noisy", slice(t, t + 1)) == at_or_after
    assert reach(denoiser(), "condition", state(t)) == at_or_after


@pytest.mark.parametrize("t", range(HORIZON))
def test_attention_both_ways_tells_every_action_of_everything(t):
    network = denoiser(causal=False)
    assert reach(network, "noisy", slice(t, t + 1)) == [True] * HORIZON
    assert reach(network, "condition", state(t)) == [True] * HORIZON


def test_goals_and_level_reach_every_action():
    for goal in range(GOALS):
        where = slice(goal * STATE, (goal + 1) * STATE)
        assert reach(denoiser(), "condition", where) == [True] * HORIZON
    assert reach(denoiser(), "level", slice(None)) == [True] * HORIZON


@pytest.mark.parametrize("positions", range(1, HORIZON + 1))
@pytest.mark.parametrize("states", [HORIZON, 2])
def test_a_short_sequence_is_the_beginning_of_a_long_one_where_attention_is_causal(positions, states):
    network = denoiser(observation_tokens=states)
    noisy, level, condition = inputs(network)
    seen = (GOALS + min(positions, states)) * STATE
    short = network(noisy[:, :positions], level, condition[:, :seen])
    torch.testing.assert_close(short, network(noisy, level, condition)[:, :positions])
    bound = network.bind(condition[:, :seen])(noisy[:, :positions], level)
    assert torch.equal(bound, short)


def test_a_state_shares_its_position_with_its_action_and_the_level_has_none():
    network = denoiser()
    assert network.position.shape == (GOALS + HORIZON, 16)
    # With what tells a state from an action and from a goal taken away, swapping the two at one time swaps
    # nothing that attention can see: the output at other times stays.
    network = denoiser(causal=False).double()
    with torch.no_grad():
        network.condition_input.weight[:, :ACTION] = network.action_input.weight
        network.condition_input.weight[:, ACTION:] = 0
        network.condition_input.bias.copy_(network.action_input.bias)
    noisy, level, condition = (value.double() for value in inputs(network))
    swapped_noisy, swapped = noisy.clone(), condition.clone()
    swapped_noisy[:, 1] = condition[:, state(1)][:, :ACTION]
    swapped[:, state(1)] = torch.cat([noisy[:, 1], torch.zeros(len(noisy), STATE - ACTION)], dim=1)
    before, after = network(noisy, level, condition), network(swapped_noisy, level, swapped)
    others = [0, 2, 3]
    torch.testing.assert_close(after[:, others], before[:, others])
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_states_and_goals_are_embedded_by_one_layer():
    names = {name for name, _ in denoiser().named_parameters() if "input" in name and "weight" in name}
    assert names == {"condition_input.weight", "action_input.weight", "level_input.weight"}


def test_binding_a_condition_changes_no_number():
    network = denoiser()
    noisy, level, condition = inputs(network)
    assert torch.equal(network.bind(condition)(noisy, level), network(noisy, level, condition))


def test_rows_of_a_batch_do_not_mix():
    network = denoiser()
    noisy, level, condition = inputs(network)
    whole = network(noisy, level, condition)
    torch.testing.assert_close(network(noisy[1:2], level[1:2], condition[1:2]), whole[1:2])


def test_without_any_condition_it_denoises_sequences():
    network = TransformerDenoiser(3, 4, 0, observation_tokens=0, width=16, depth=1, heads=2)
    noisy, level = torch.randn(2, 4, 3), torch.tensor([1.0, 2.0])
    assert network(noisy, level, torch.zeros(2, 0)).shape == noisy.shape
    assert network.condition_input is None


# ---- levels ------------------------------------------------------------------------------------------


def test_a_level_per_position_is_told_to_its_action_and_so_only_to_later_ones():
    network = denoiser(level_positions=HORIZON)
    noisy, _, condition = inputs(network)
    level = torch.randn(3, HORIZON)
    changed = level.clone()
    changed[:, 2] += 1
    difference = (
        (network(noisy, level, condition) - network(noisy, changed, condition)).abs().amax(dim=(0, 2))
    )
    assert (difference > 1e-5).tolist() == [False, False, True, True]
    spread = level[:, :1].expand(3, HORIZON)
    assert torch.equal(network(noisy, level[:, 0], condition), network(noisy, spread, condition))
    short = network(noisy[:, :2], level[:, :2], condition[:, : (GOALS + 2) * STATE])
    torch.testing.assert_close(short, network(noisy, level, condition)[:, :2])


@pytest.mark.parametrize("level_positions", [1, HORIZON])
def test_integer_levels_are_embedded_by_sines_and_cosines(level_positions):
    network = denoiser(level_embedding="sinusoidal", level_positions=level_positions)
    noisy, _, condition = inputs(network)
    level = torch.tensor([0, 17, 999])
    outputs = network(noisy, level, condition)
    assert torch.equal(outputs, network(noisy, level.float(), condition))
    assert bool((network(noisy, level + 1, condition) - outputs).abs().amax(dim=(1, 2)).min() > 1e-5)


# ---- weights, dropout, gradients ---------------------------------------------------------------------


def test_weights_start_small_and_biases_at_zero():
    network = TransformerDenoiser(ACTION, 16, 16 * STATE, observation_tokens=16, width=128, depth=2)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            assert bool((parameter == (1 if name.endswith("weight") else 0)).all()), name
        elif name.endswith("bias"):
            assert not bool(parameter.any()), name
        elif parameter.numel() > 500:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.15), name


@pytest.mark.parametrize("kind", ["attention_dropout", "residual_dropout"])
def test_dropout_acts_in_training_only(kind):
    network = denoiser(**{kind: 0.5})
    assert torch.equal(network(*inputs(network)), network(*inputs(network)))
    network.train()
    assert not torch.equal(network(*inputs(network)), network(*inputs(network)))


def test_it_is_saved_and_loaded_whole(tmp_path):
    network = denoiser(
        causal=False, level_positions=HORIZON, level_embedding="sinusoidal", residual_dropout=0.1
    )
    save_pretrained(network, tmp_path / "network")
    loaded = from_pretrained(tmp_path / "network", expected=TransformerDenoiser).eval()
    assert torch.equal(loaded(*inputs(loaded)), network(*inputs(network)))


def test_gradients_reach_every_weight_and_every_input():
    network = denoiser()
    noisy, level, condition = (value.requires_grad_() for value in inputs(network))
    network(noisy, level, condition).square().sum().backward()
    for name, value in [
        *network.named_parameters(),
        ("noisy", noisy),
        ("condition", condition),
        ("level", level),
    ]:
        assert value.grad is not None, name
        assert bool(value.grad.any()), name


def test_it_can_be_differentiated_twice_and_batched_by_torch_func():
    network = denoiser().double()
    noisy, level, condition = (value.double() for value in inputs(network))
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def loss(parameters):
        return functional_call(network, parameters, (noisy, level, condition)).square().mean()

    def size(parameters):
        return sum(value.square().sum() for value in grad(loss)(parameters).values())

    second, step = grad(size)(parameters)["output.bias"][0], 1e-5
    moved = [parameters | {"output.bias": parameters["output.bias"].clone()} for _ in range(2)]
    moved[0]["output.bias"][0] += step
    moved[1]["output.bias"][0] -= step
    assert float(second) == pytest.approx(float(size(moved[0]) - size(moved[1])) / (2 * step), rel=1e-5)
    stacked = {name: torch.stack([value, value + 0.1]) for name, value in parameters.items()}
    torch.testing.assert_close(vmap(loss)(stacked)[0], loss(parameters))


# ---- what it refuses ---------------------------------------------------------------------------------


def test_sizes_that_disagree_are_named():
    network = denoiser()
    noisy, level, condition = inputs(network)
    with pytest.raises(ShapeError, match="condition has shape") as caught:
        network(noisy[:, :3], level, condition)
    assert "2 goals and 3 states of width 5 for a sequence of 3" in caught.value.expected
    for wrong in (
        torch.zeros(3, 5, ACTION),
        torch.zeros(3, 0, ACTION),
        torch.zeros(3, 4, 2),
        torch.zeros(3, 4),
    ):
        with pytest.raises(ShapeError, match="1 to 4 positions"):
            network(wrong, level, condition)
    with pytest.raises(ShapeError, match="level_positions=4"):
        network(noisy, torch.zeros(3, 4), condition)
    with pytest.raises(ShapeError, match="condition has shape"):
        network.bind(condition[:, :-STATE])(noisy, level)


@pytest.mark.parametrize(
    ("condition", "settings", "named"),
    [
        (11, {"observation_tokens": 2}, "11 numbers"),
        (10, {"observation_tokens": 0}, "10 numbers"),
        (0, {"observation_tokens": 2}, "0 numbers"),
        (10, {"observation_tokens": 5}, "5 states"),
        (10, {"observation_tokens": 2, "goal_tokens": -1}, "-1 goals"),
        (10, {"observation_tokens": 2, "width": 15}, "width 15"),
        (10, {"observation_tokens": 2, "level_embedding": "fourier"}, "fourier"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(condition, settings, named):
    with pytest.raises(SettingError, match=named):
        TransformerDenoiser(ACTION, HORIZON, condition, **settings)

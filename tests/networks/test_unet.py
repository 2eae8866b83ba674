"""The U-Net against a plain one of PyTorch's own convolutions, in every way it has of computing the same."""

from __future__ import annotations

import copy
import math
import threading

import pytest
import torch
from torch import Tensor, nn

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.convolutions import Doubling, Halving
from policysmith.networks.unet import UNet1d
from policysmith.networks.unet_blocks import ConvolutionBlock

# ---- the reference: the same network from nn.Conv1d and nn.GroupNorm, channels first --------------------


class PlainBlock(nn.Module):
    def __init__(self, before: int, after: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(before, after, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, after)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.mish(self.norm(self.convolution(x)))


class PlainResidual(nn.Module):
    def __init__(self, before: int, after: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = PlainBlock(before, after, kernel, groups)
        self.second = PlainBlock(after, after, kernel, groups)
        self.film = nn.Linear(condition, 2 * after)
        self.shortcut = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, bias = self.film(nn.functional.mish(condition)).unsqueeze(-1).chunk(2, dim=1)
        return self.second(self.first(x) * scale + bias) + self.shortcut(x)


class PlainUNet(nn.Module):
    def __init__(
        self, action: int, condition: int, *, widths, kernel=5, groups=8, level_size, level_positions=1
    ) -> None:
        super().__init__()
        self.level_size = level_size
        self.level_encoder = nn.Sequential(
            nn.Linear(level_size * level_positions, 4 * level_size),
            nn.Mish(),
            nn.Linear(4 * level_size, level_size),
        )

        def block(before: int, after: int) -> PlainResidual:
            return PlainResidual(before, after, level_size + condition, kernel, groups)

        pairs = list(zip((action, *widths[:-1]), widths, strict=True))
        self.down = nn.ModuleList(nn.ModuleList([block(i, o), block(o, o)]) for i, o in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(w, w, 3, 2, 1) for w in widths[:-1])
        self.middle = nn.ModuleList(block(widths[-1], widths[-1]) for _ in range(2))
        self.up = nn.ModuleList(nn.ModuleList([block(2 * o, i), block(i, i)]) for i, o in reversed(pairs[1:]))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(w, w, 4, 2, 1) for w in reversed(widths[:-1]))
        self.final = PlainBlock(widths[0], widths[0], kernel, groups)
        self.output = nn.Conv1d(widths[0], action, 1)

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        half = self.level_size // 2
        frequency = torch.tensor([math.exp(-math.log(10_000) * i / (half - 1)) for i in range(half)])
        angle = level.unsqueeze(-1) * frequency.to(noisy)
        level = self.level_encoder(torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1))
        condition = torch.cat([level, condition], dim=1)
        x, skips = noisy.transpose(1, 2), []
        for index, (first, second) in enumerate(self.down):
            x = second(first(x, condition), condition)
            skips.append(x)
            if index < len(self.shrink):
                x = self.shrink[index](x)
        for block in self.middle:
            x = block(x, condition)
        for (first, second), grow in zip(self.up, self.grow, strict=True):
            x = grow(second(first(torch.cat([x, skips.pop()], dim=1), condition), condition))
        return self.output(self.final(x)).transpose(1, 2)

    def blocks(self) -> list[PlainResidual]:
        pairs = [*self.down, self.middle, *self.up]
        return [block for pair in pairs for block in pair]


def pairs_of_tensors(ours: UNet1d, plain: PlainUNet) -> list[tuple[Tensor, Tensor]]:
    """(one of ours, the same numbers in the plain network, laid out as ours), every parameter once."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def add(our: Tensor, their: Tensor) -> None:
        pairs.append((our, their.reshape(our.shape)))

    def convolution(our: nn.Module, their: nn.Module, order: tuple[int, int, int] = (2, 1, 0)) -> None:
        add(our.weight, their.weight.permute(order))
        add(our.bias, their.bias)

    def linear(our: nn.Module, their: nn.Module) -> None:
        add(our.weight, their.weight)
        add(our.bias, their.bias)

    def block(our: ConvolutionBlock, their: PlainBlock) -> None:
        convolution(our.convolution, their.convolution)
        linear(our.norm, their.norm)

    our_blocks = [block for stage in ours.stages for block in (stage.first, stage.second)]
    for our, their in zip(our_blocks, plain.blocks(), strict=True):
        block(our.first, their.first)
        block(our.second, their.second)
        if isinstance(their.shortcut, nn.Conv1d):
            linear(our.shortcut, their.shortcut)
    films = [their.film for their in plain.blocks()]
    add(ours.film.weight, torch.cat([film.weight for film in films]))
    add(ours.film.bias, torch.cat([film.bias for film in films]))
    shrink = [stage.resample for stage in ours.stages if isinstance(stage.resample, Halving)]
    grow = [stage.resample for stage in ours.stages if isinstance(stage.resample, Doubling)]
    for our, their in zip(shrink, plain.shrink, strict=True):
        convolution(our, their)
    for our, their in zip(grow, plain.grow, strict=True):
        convolution(our, their, (0, 2, 1))
    block(ours.final, plain.final)
    linear(ours.output, plain.output)
    linear(ours.level_encoder[0], plain.level_encoder[0])
    linear(ours.level_encoder[2], plain.level_encoder[2])
    return pairs


# ---- the tests ------------------------------------------------------------------------------------------

ACTION, CONDITION = 3, 7
# (widths, horizon, kernel, groups, level size, levels per sample)
SHAPES = {
    "one width": ((16,), 4, 5, 4, 8, 1),
    "two widths, a level per position": ((32, 64), 16, 5, 8, 16, 16),
    "three widths": ((16, 32, 64), 8, 5, 8, 16, 1),
    "narrow kernel, odd lengths": ((16, 32), 10, 3, 4, 8, 10),
}


def networks(shape: str, dtype: torch.dtype = torch.float32) -> tuple[UNet1d, PlainUNet]:
    widths, horizon, kernel, groups, level_size, positions = SHAPES[shape]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"widths": widths, "kernel": kernel, "groups": groups, "level_size": level_size}
        plain = PlainUNet(ACTION, CONDITION, level_positions=positions, **settings)
        ours = UNet1d(ACTION, horizon, CONDITION, level_positions=positions, **settings)
    with torch.no_grad():
        for our, their in pairs_of_tensors(ours, plain):
            our.copy_(their)
    return ours.to(dtype), plain.to(dtype)


def inputs(network: UNet1d, batch: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    positions = (network.horizon,) if network.level_positions > 1 else ()
    return (
        torch.randn(batch, network.horizon, ACTION, generator=rng),
        torch.randint(50, (batch, *positions), generator=rng),
        torch.randn(batch, CONDITION, generator=rng),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_correspond_one_to_one_with_the_plain_network(shape):
    ours, plain = networks(shape)
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in plain.parameters())
    assert len(pairs_of_tensors(ours, plain)) == len(list(ours.parameters()))


@pytest.mark.parametrize("batch", [1, 5, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_equal_the_plain_network_s(shape, batch):
    ours, plain = networks(shape)
    noisy, level, condition = inputs(ours, batch)
    torch.testing.assert_close(
        ours(noisy, level, condition), plain(noisy, level, condition), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("batch", [2, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_the_plain_network_s(shape, batch):
    ours, plain = networks(shape, torch.float64)
    noisy, level, condition = (x.double() for x in inputs(ours, batch))
    for network in (ours, plain):
        network(noisy, level, condition).square().mean().backward()
    for parameter in plain.parameters():
        assert parameter.grad is not None
        parameter.data = parameter.grad
    for our, their in pairs_of_tensors(ours, plain):
        torch.testing.assert_close(our.grad, their.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_binding_a_condition_changes_no_number(shape, batch, mode):
    ours, _ = networks(shape)
    noisy, level, condition = inputs(ours, batch)
    expected = ours(noisy, level, condition)
    with mode():
        bound = ours.bind(condition)
        other = inputs(ours, batch, seed=2)
        bound(other[0], other[1])  # what an earlier call left in the buffers must not show
        torch.testing.assert_close(bound(noisy, level), expected, atol=2e-6, rtol=0)


def test_conditions_bound_at_the_same_time_do_not_disturb_each_other():
    ours, _ = networks("two widths, a level per position")
    noisy, level, condition = inputs(ours, 2)
    with torch.no_grad():
        first, second = ours.bind(condition), ours.bind(-condition)
        before = first(noisy, level)
        second(noisy, level)
        assert torch.equal(first(noisy, level), before)


def test_a_network_bound_in_inference_mode_can_be_bound_outside_it_afterwards():
    ours, _ = networks("three widths")
    noisy, level, condition = inputs(ours, 1)
    with torch.inference_mode():
        inside = ours.bind(condition)(noisy, level)
    with torch.no_grad():
        assert torch.equal(ours.bind(condition)(noisy, level), inside)


def test_a_bound_network_passes_gradients_to_its_input_where_they_are_wanted():
    ours, _ = networks("three widths")
    noisy, level, condition = inputs(ours, 1)
    with torch.no_grad():
        bound = ours.bind(condition)
    noisy.requires_grad_()
    (gradient,) = torch.autograd.grad(bound(noisy, level).sum(), noisy)
    (expected,) = torch.autograd.grad(ours(noisy, level, condition).sum(), noisy)
    torch.testing.assert_close(gradient, expected)


def test_threads_that_denoise_at_once_get_their_own_results():
    ours, _ = networks("two widths, a level per position")
    samples = [inputs(ours, 1, seed=seed) for seed in range(4)]
    with torch.no_grad():
        expected = [ours.bind(condition)(noisy, level) for noisy, level, condition in samples]
    wrong = []

    def denoise(index: int) -> None:
        noisy, level, condition = samples[index]
        with torch.no_grad():
            bound = ours.bind(condition)
            if not all(torch.equal(bound(noisy, level), expected[index]) for _ in range(10)):
                wrong.append(index)

    threads = [threading.Thread(target=denoise, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_copy_answers_with_its_own_weights_after_the_original_has_changed():
    ours, _ = networks("three widths")
    noisy, level, condition = inputs(ours, 1)
    with torch.no_grad():
        before = ours.bind(condition)(noisy, level)
        kept = copy.deepcopy(ours)
        for parameter in ours.parameters():
            parameter.mul_(1.5)
        assert torch.equal(kept.bind(condition)(noisy, level), before)
        assert not torch.allclose(ours.bind(condition)(noisy, level), before)


def test_a_level_per_sample_is_told_to_every_position():
    ours, _ = networks("two widths, a level per position")
    noisy, _, condition = inputs(ours, 3)
    level = torch.tensor([0, 7, 49])
    spread = level.unsqueeze(1).expand(3, ours.horizon)
    assert torch.equal(ours(noisy, level, condition), ours(noisy, spread, condition))
    assert torch.equal(ours(noisy, level.float(), condition), ours(noisy, level, condition))


def test_it_works_without_a_condition():
    network = UNet1d(ACTION, 4, 0, widths=(16, 32), level_size=8)
    noisy, level = torch.randn(2, 4, ACTION), torch.tensor([1, 2])
    prediction = network(noisy, level, torch.empty(2, 0))
    with torch.no_grad():
        torch.testing.assert_close(network.bind(torch.empty(2, 0))(noisy, level), prediction)


def test_a_population_of_weights_is_mapped_over():
    ours, _ = networks("three widths")
    other = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    parameters, buffers = torch.func.stack_module_state([ours, other])
    for batch in (2, 128):
        sample = inputs(ours, batch)

        def call(parameters, buffers, sample=sample):
            return torch.func.functional_call(ours, (parameters, buffers), sample)

        def bound(parameters, sample=sample):
            module = _Bound(ours)
            named = {f"network.{name}": value for name, value in parameters.items()}
            return torch.func.functional_call(module, named, sample)

        expected = torch.stack([ours(*sample), other(*sample)])
        torch.testing.assert_close(torch.vmap(call)(parameters, buffers), expected, atol=1e-5, rtol=0)
        with torch.no_grad():
            torch.testing.assert_close(torch.vmap(bound)(parameters), expected, atol=1e-5, rtol=0)


class _Bound(nn.Module):
    def __init__(self, network: UNet1d) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        return self.network.bind(condition)(noisy, level)


@pytest.mark.parametrize("batch", [2, 128])
def test_gradients_of_gradients_agree_with_the_plain_network_s(batch):
    results = []
    for network in networks("two widths, a level per position", torch.float64):
        noisy, level, condition = (x.double() for x in inputs(network_like(network), batch))
        noisy.requires_grad_()
        (first,) = torch.autograd.grad(network(noisy, level, condition).sum(), noisy, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), noisy)[0])
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-5)


def network_like(network: nn.Module) -> UNet1d:
    if isinstance(network, UNet1d):
        return network
    return networks("two widths, a level per position")[0]


def test_a_loss_can_be_differentiated_through_torch_func():
    ours, _ = networks("three widths")
    sample = inputs(ours, 128)
    parameters = dict(ours.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(ours, parameters, sample).square().mean()

    gradients = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_it_is_saved_and_loaded_whole(tmp_path):
    ours, _ = networks("two widths, a level per position")
    sample = inputs(ours, 2)
    save_pretrained(ours, tmp_path / "network")
    loaded = from_pretrained(tmp_path / "network", expected=UNet1d)
    assert torch.equal(loaded(*sample), ours(*sample))


@pytest.mark.parametrize(("horizon", "smallest"), [(18, 20), (1, 4), (0, 4)])
def test_a_horizon_that_cannot_be_halved_is_refused_naming_the_smallest_that_can(horizon, smallest):
    with pytest.raises(ShapeError, match=f"horizon of {horizon}(.|\n)*multiple of 4(.|\n)*is {smallest}"):
        UNet1d(ACTION, horizon, CONDITION, widths=(16, 32, 64), level_size=8)


def test_settings_that_make_no_network_are_refused():
    with pytest.raises(SettingError, match="multiple of the number of groups"):
        UNet1d(ACTION, 4, CONDITION, widths=(12,), level_size=8)
    with pytest.raises(SettingError, match="odd width"):
        UNet1d(ACTION, 4, CONDITION, widths=(16,), kernel=4, level_size=8)
    with pytest.raises(SettingError, match="even size"):
        UNet1d(ACTION, 4, CONDITION, widths=(16,), level_size=9)
    with pytest.raises(ShapeError, match="3 noise levels"):
        UNet1d(ACTION, 4, CONDITION, widths=(16,), level_size=8, level_positions=3)


def test_inputs_of_other_shapes_are_refused_naming_both():
    network = UNet1d(ACTION, 4, CONDITION, widths=(16,), level_size=8)
    noisy, level, condition = inputs(network, 2)
    with pytest.raises(ShapeError, match=r"\(2, 3, 3\)(.|\n)*horizon 4, action 3"):
        network(noisy[:, :3], level, condition)
    with pytest.raises(ShapeError, match=r"\(1, 7\)(.|\n)*batch 2, condition 7"):
        network(noisy, level, condition[:1])
    with pytest.raises(ShapeError, match=r"\(2, 4\)(.|\n)*level_positions=4"):
        network(noisy, level.unsqueeze(1).expand(2, 4), condition)

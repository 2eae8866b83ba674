"""Saving and loading: what comes back is what was put in, and damage or malice is refused by name."""

from __future__ import annotations

import json
import math
import os
import signal
import sys

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from policysmith.common import saving
from policysmith.common.errors import FileError, SettingError
from policysmith.common.saving import (
    from_pretrained,
    load_json,
    load_tree,
    save_json,
    save_pretrained,
    save_tree,
    saveable,
    write_beside,
)


@saveable
class Scaled(nn.Module):
    """A saveable module with a weight, a fitted buffer and plain arguments of every kind."""

    def __init__(self, size: int, *, factors: tuple[float, ...] = (1.0,), label: str | None = None) -> None:
        super().__init__()
        if size < 1:
            raise SettingError(f"size is {size}", expected="at least 1")
        self.factors, self.label = factors, label
        self.weight = nn.Parameter(torch.randn(size))
        self.register_buffer("fitted", torch.zeros(size))


@saveable
class Nested(nn.Module):
    """A saveable module whose arguments are saveable modules."""

    def __init__(self, first: Scaled, others: tuple[Scaled, ...] = ()) -> None:
        super().__init__()
        self.first = first
        self.others = nn.ModuleList(others)


@saveable
class Special(Scaled):
    """A saveable subclass with arguments of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(2 * width, label="special")


class Unmarked(Scaled):
    """A subclass that nobody decorated."""


def same(a, b) -> bool:
    """Equal in type, shape, bits and order, all the way down."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(type(k) is type(m) for k, m in zip(a, b, strict=True))
            and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- writing beside ----------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, interruption):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(interruption), write_beside(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise interruption
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_folder_never_appears(tmp_path, interruption):
    with pytest.raises(interruption), write_beside(tmp_path / "policy") as temporary:  # noqa: PT012
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
        raise interruption
    assert names(tmp_path) == []


def test_until_the_block_ends_a_reader_sees_the_old_folder(tmp_path):
    path = tmp_path / "policy"
    path.mkdir()
    (path / "old").write_text("")
    with write_beside(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("")
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["policy"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved_in(tmp_path, monkeypatch):
    path = tmp_path / "policy"
    path.mkdir()
    (path / "old").write_text("")
    rename = os.replace

    def failing(source, target):
        if str(source).endswith(".part"):
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(saving.os, "replace", failing)
    with pytest.raises(FileError, match="could not be written: the disk is gone"), write_beside(path) as new:
        new.mkdir()
    assert names(tmp_path) == ["policy"]
    assert names(path) == ["old"]


def test_a_folder_takes_the_place_of_a_file_without_remains(tmp_path):
    (tmp_path / "policy").write_text("a file")
    with write_beside(tmp_path / "policy") as temporary:
        temporary.mkdir()
    assert (tmp_path / "policy").is_dir()
    assert names(tmp_path) == ["policy"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.safetensors"
    save_tree(path, {"step": 1})
    child = os.fork()
    if child == 0:
        with write_beside(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert load_tree(path) == {"step": 1}


def test_a_place_that_cannot_be_written_is_a_file_error_naming_it(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="could not be written") as caught:
        save_json(tmp_path / "taken" / "config.json", {})
    assert "taken" in caught.value.where
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(FileError, match="could not be written"):
        save_tree(tmp_path / "folder", {})
    assert names(tmp_path / "folder") == ["inner"]


# ---- JSON --------------------------------------------------------------------------------------------


def test_json_refuses_what_it_cannot_hold_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "config.json"
    save_json(path, {"rate": 1e-4, "none": None, "text": "Høeg"})
    for bad in (math.nan, math.inf, [-math.inf]):
        with pytest.raises(ValueError, match="JSON"):
            save_json(path, {"rate": bad})
    assert load_json(path) == {"rate": 1e-4, "none": None, "text": "Høeg"}


@pytest.mark.parametrize("length", [0, 1, 10])
def test_json_cut_short_is_named(tmp_path, length):
    path = tmp_path / "config.json"
    save_json(path, {"a": [1, 2, 3]})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FileError, match="not a complete JSON file") as caught:
        load_json(path)
    assert caught.value.where == str(path)


def test_json_that_is_missing_or_not_text_or_no_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"no file config\.json") as caught:
        load_json(tmp_path / "config.json")
    assert caught.value.where == str(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not a complete JSON"):
        load_json(tmp_path / "binary.json")
    with pytest.raises(FileError, match="cannot be read"):
        load_json(tmp_path)
    with pytest.raises(FileError, match="cannot be read"):
        load_json(tmp_path / "binary.json" / "config.json")


# ---- trees -------------------------------------------------------------------------------------------

TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool,
    torch.int64, torch.int32, torch.uint8,
)  # fmt: skip


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return values.to(draw(st.sampled_from(TYPES)))


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**200), 2**200), st.floats(), st.text(max_size=8), tensors()
)
KEYS = st.one_of(st.text(max_size=5), st.integers(-5, 5))
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_a_tree_comes_back_as_it_was(tmp_path, tree):
    save_tree(tmp_path / "tree.safetensors", tree)
    assert same(load_tree(tmp_path / "tree.safetensors"), tree)
    assert names(tmp_path) == ["tree.safetensors"]


@pytest.mark.parametrize(
    "tree",
    [
        {},
        [],
        {"a": {}, "b": []},
        {0: "integer", "0": "text"},
        2**4000,
        [math.inf, -math.inf, math.nan, -0.0],
        {"tensor": "0", "dict": [], "value": {"tensor": 1}},
    ],
)
def test_edges_of_trees(tmp_path, tree):
    save_tree(tmp_path / "t", tree)
    assert same(load_tree(tmp_path / "t"), tree)


def test_generators_and_optimisers_go_on_from_their_saved_states(tmp_path):
    rng = torch.Generator().manual_seed(3)
    torch.randn(5, generator=rng)
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.95, 0.999))
    weight.sum().backward()
    optimizer.step()
    save_tree(tmp_path / "t", {"rng": rng.get_state(), "optimizer": optimizer.state_dict()})
    saved = load_tree(tmp_path / "t")

    expected = torch.randn(5, generator=rng)
    other = torch.Generator()
    other.set_state(saved["rng"])
    assert torch.equal(torch.randn(5, generator=other), expected)

    twin = nn.Parameter(weight.detach().clone())
    twin.grad = torch.full((3,), 0.5)
    weight.grad = torch.full((3,), 0.5)
    resumed = torch.optim.AdamW([twin], lr=9.0)
    resumed.load_state_dict(saved["optimizer"])
    optimizer.step()
    resumed.step()
    assert torch.equal(weight, twin)


def test_views_shared_and_learnt_tensors_are_saved_by_value(tmp_path):
    base = torch.arange(6.0).view(2, 3)
    tree = {
        "view": base.T,
        "same": base,
        "row": base[1],
        "spread": base[0, :1].expand(4),
        "p": nn.Parameter(base),
    }
    save_tree(tmp_path / "t", tree)
    loaded = load_tree(tmp_path / "t")
    for key, value in tree.items():
        assert torch.equal(loaded[key], value)
        assert not loaded[key].requires_grad
    loaded["same"].zero_()
    assert torch.equal(loaded["view"], base.T)


def test_a_loaded_tree_outlives_its_file(tmp_path):
    save_tree(tmp_path / "t", torch.ones(1000))
    loaded = load_tree(tmp_path / "t")
    (tmp_path / "t").write_bytes(bytes((tmp_path / "t").stat().st_size))
    assert float(loaded.sum()) == 1000


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"fn": print}, "not builtin_function_or_method"),
        ([b"bytes"], "not bytes"),
        ({(0, 1): 2}, r"keys of a tree are strings and integers, not \(0, 1\)"),
        ({None: 2}, "keys of a tree"),
        ({1, 2}, "not set"),
    ],
)
def test_what_could_not_be_read_again_is_refused_before_anything_is_written(tmp_path, tree, message):
    with pytest.raises(TypeError, match=message):
        save_tree(tmp_path / "t", tree)
    assert names(tmp_path) == []


def test_a_tree_cut_short_anywhere_is_refused(tmp_path):
    save_tree(tmp_path / "t", {"weight": torch.randn(100), "step": 7})
    whole = (tmp_path / "t").read_bytes()
    for length in (0, 1, 7, 8, 9, 50, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(FileError, match="cut short or damaged") as caught:
            load_tree(tmp_path / "cut")
        assert caught.value.where == str(tmp_path / "cut")


@pytest.mark.parametrize(
    "header",
    [
        "not json", "[]", "{}", "5", '{"tensor": "9"}', '{"tensor": 0}', '{"unknown": 3}', '{"dict": [1]}',
        '{"dict": 1}', '{"list": null}', '{"value": 1, "list": []}', '{"dict": [[[1], {"value": 1}]]}',
    ],
)  # fmt: skip
def test_a_header_that_describes_no_tree_is_refused(tmp_path, header):
    path = tmp_path / "t"
    safetensors.torch.save_file({"0": torch.ones(1)}, path, metadata={"format": "1", "tree": header})
    with pytest.raises(FileError, match="damaged"):
        load_tree(path)


def test_other_formats_and_missing_files_are_refused(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "plain")
    with pytest.raises(FileError, match="format unknown"):
        load_tree(tmp_path / "plain")
    safetensors.torch.save_file({}, tmp_path / "next", metadata={"format": "2", "tree": '{"value": 1}'})
    with pytest.raises(FileError, match="format 2") as caught:
        load_tree(tmp_path / "next")
    assert "format 1" in caught.value.expected
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileError, match="no file"):
            load_tree(path)
    (tmp_path / "text").write_text("this is not a file of tensors")
    with pytest.raises(FileError, match="damaged"):
        load_tree(tmp_path / "text")


# ---- modules by name ---------------------------------------------------------------------------------


def test_a_module_comes_back_with_its_arguments_weights_and_buffers(tmp_path):
    module = Nested(Scaled(2, factors=(0.1, 1e-17), label="a"), (Scaled(3), Scaled(1, label="ø")))
    module.first.fitted.fill_(0.1)
    save_pretrained(module, tmp_path / "m")
    loaded = from_pretrained(tmp_path / "m", expected=Nested)
    assert names(tmp_path / "m") == ["config.json", "model.safetensors"]
    assert names(tmp_path) == ["m"]
    assert loaded.first.factors == (0.1, 1e-17)
    assert [part.label for part in (loaded.first, *loaded.others)] == ["a", None, "ø"]
    assert same(dict(loaded.state_dict()), dict(module.state_dict()))
    save_pretrained(loaded, tmp_path / "again")
    for name in names(tmp_path / "m"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_subclass_is_saved_with_its_own_arguments(tmp_path):
    save_pretrained(Special(3), tmp_path / "m")
    assert load_json(tmp_path / "m" / "config.json")["arguments"] == {"width": 3}
    loaded = from_pretrained(tmp_path / "m")
    assert type(loaded) is Special
    assert loaded.weight.shape == (6,)
    assert loaded.label == "special"


def test_loading_does_not_move_the_global_random_stream(tmp_path):
    save_pretrained(Scaled(4), tmp_path / "m")
    before = torch.get_rng_state()
    from_pretrained(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("module", [nn.Linear(1, 1), Unmarked(2), Nested(Unmarked(2))])
def test_only_marked_modules_are_saved(tmp_path, module):
    with pytest.raises(TypeError, match="not decorated with `saveable`"):
        save_pretrained(module, tmp_path / "m")
    assert names(tmp_path) == []


def test_arguments_that_are_not_plain_are_refused_when_saving(tmp_path):
    with pytest.raises(TypeError, match="must be plain, not Tensor"):
        save_pretrained(Scaled(2, factors=torch.ones(1)), tmp_path / "m")
    with pytest.raises(TypeError, match="must be plain, not dict"):
        save_pretrained(Scaled(2, label={}), tmp_path / "m")
    assert names(tmp_path) == []


def saved(folder, **changes):
    """A saved `Scaled` with its configuration changed."""
    save_pretrained(Scaled(2), folder)
    config = load_json(folder / "config.json") | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.nn.modules.linear.Linear",
        "torch.load",
        "policysmith.common.extras.require",
        "policysmith.common.saving.save_json",
        "policysmith.policies.protocol.Policy",
        "policysmith.networks.noise.ReverseProcess",
        "policysmith.nowhere.Class",
        "policysmith..common.saving.Scaled",
        "policysmith.\0.Class",
        "policysmith",
        "",
        None,
        7,
        ["os.system"],
    ],
)
def test_a_configuration_can_name_nothing_but_marked_classes(tmp_path, name):
    folder = saved(
        tmp_path / "m", **{"class": name, "arguments": {"command": "touch " + str(tmp_path / "x")}}
    )
    with pytest.raises(FileError, match="nothing here is called") as caught:
        from_pretrained(folder)
    assert caught.value.where == str(folder / "config.json")
    assert names(tmp_path) == ["m"]


def test_a_class_hidden_among_the_arguments_is_refused_too(tmp_path):
    evil = {"class": "os.system", "arguments": {"command": "true"}}
    with pytest.raises(FileError, match=r"nothing here is called 'os\.system'"):
        from_pretrained(saved(tmp_path / "a", arguments={"size": 2, "label": evil}))
    with pytest.raises(FileError, match=r"nothing here is called 'os\.system'"):
        from_pretrained(saved(tmp_path / "b", arguments={"size": 2, "factors": [evil]}))


def test_loading_imports_no_foreign_module(tmp_path, monkeypatch):
    (tmp_path / "trap_for_loading.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileError, match="nothing here is called"):
        from_pretrained(saved(tmp_path / "m", **{"class": "trap_for_loading.Class"}))
    assert "trap_for_loading" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 2, "colour": "red"}, "unexpected keyword argument 'colour'"),
        ({}, "missing a required argument: 'size'"),
        ({"size": "two"}, "Scaled cannot be built"),
        ({"size": 0}, "size is 0"),
        ({"size": 2, "label": {"text": "no class"}}, "nothing here is called ''"),
        ([1, 2], "Scaled cannot be built"),
        (None, "Scaled cannot be built"),
    ],
)
def test_arguments_that_do_not_fit_are_a_file_error(tmp_path, arguments, message):
    folder = saved(tmp_path / "m", arguments=arguments)
    with pytest.raises(FileError, match=message) as caught:
        from_pretrained(folder)
    assert caught.value.where == str(folder / "config.json")


def test_a_configuration_without_arguments_or_of_another_format_is_refused(tmp_path):
    folder = saved(tmp_path / "m")
    config = load_json(folder / "config.json")
    for broken in ([], 3, config | {"format": 2}, {key: config[key] for key in ("class", "arguments")}):
        (folder / "config.json").write_text(json.dumps(broken))
        with pytest.raises(FileError, match="another format"):
            from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"format": 1, "class": config["class"]}))
    with pytest.raises(FileError, match="cannot be built"):
        from_pretrained(folder)


def test_weights_that_are_missing_cut_or_of_another_module_are_refused(tmp_path):
    folder = saved(tmp_path / "m")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 5, 20, len(whole) - 1):
        weights.write_bytes(whole[:length])
        with pytest.raises(FileError, match="missing or cut short"):
            from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileError, match="missing or cut short") as caught:
        from_pretrained(folder)
    assert caught.value.where == str(weights)
    for other in ({"weight": torch.ones(3), "fitted": torch.ones(2)}, {"weight": torch.ones(2)}):
        safetensors.torch.save_file(other, weights)
        with pytest.raises(FileError, match="do not fit"):
            from_pretrained(folder)


def test_a_module_of_another_class_than_expected_is_refused(tmp_path):
    with pytest.raises(FileError, match="holds a Scaled") as caught:
        from_pretrained(saved(tmp_path / "m"), expected=Nested)
    assert caught.value.expected == "a Nested"


def test_a_path_that_is_no_saved_module_is_named(tmp_path):
    with pytest.raises(FileError, match=r"no file config\.json"):
        from_pretrained(tmp_path)
    folder = saved(tmp_path / "m")
    with pytest.raises(FileError, match="cannot be read"):
        from_pretrained(folder / "model.safetensors")

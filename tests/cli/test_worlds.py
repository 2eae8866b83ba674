"""Text worlds on the command line: a policy learns from one, goes on after a stop, and is measured in it."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.cli.main import main
from policysmith.experience.world_prompts import WorldPrompts, from_world
from policysmith.policies.language.small import small_decoder
from policysmith.policies.protocol import load_policy
from policysmith.training.learner import Learner
from policysmith.training.loop import finish
from policysmith.training.runs import RunDirectory

torch.set_num_threads(1)

PLAYS = [
    "grpo", "dr-grpo", "dapo", "rloo", "token-ppo", "entropy-cov", "nft", "ppo-max", "salsa",
]  # fmt: skip
ANSWERS = [
    "critique-grpo", "expo-self-explanation", "t-ppo", "ghpo", "ton", "seed-grpo", "drpo", "nash-md", "dno",
    "online-dpo",
]  # fmt: skip
OWN = '''
from policysmith.worlds.text import TextStep


class Vowels:
    """Some turns, paid by the vowels in each; with `least`, a success from so many in the last one on."""

    def __init__(self, *, least=0, turns=1):
        self.least, self.turns = least, turns

    def reset(self, seed):
        return TextStep(f"vowels please, {seed % 10}")

    def step(self, text):
        count = sum(map(text.count, "aeiou"))
        told = {"success": count >= self.least} if self.least else {}
        self.turns -= 1
        return TextStep("thanks", count / 10, self.turns == 0, {**told, "vowels": count})


class Broken(Vowels):
    """Raises when it is begun."""

    def reset(self, seed):
        raise RuntimeError("no server")
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    model = small_decoder(0, width=32, layers=2, heads=2, context=96)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # fresh models are nearly indifferent
    model.save_pretrained(folder / "model")
    (folder / "vowel_world.py").write_text(OWN)
    return folder


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    return home


def words(out, *more, world="vowel_world:Vowels"):
    return ["run", "grpo", "--preset", "tiny", "--model", "model", "--world", world, "--out", out, *more]


@pytest.fixture
def run(here):
    if not (here / "run").is_dir():
        told = words(
            "run", "--world-option", "least=1", "--size", "20", "--checkpoint-every", "2", "--keep", "9"
        )
        assert main(told) == 0
    return here / "run"


def weighed(system, model, monkeypatch):
    """The batches that the learners of a tiny run in the guessing game take steps on."""
    batches = []
    step = Learner.step

    def watched(learner, batch, *args, **options):
        batches.append(batch.clone())
        return step(learner, batch, *args, **options)

    monkeypatch.setattr(Learner, "step", watched)
    module = importlib.import_module(f"policysmith.systems.{system.replace('-', '_')}")
    # nft takes rewards of 0 and 1 alone, which the guessing game gives.
    name, options = "vowel_world:Vowels", {"turns": 3}
    if system == "nft":
        name, options = "guessing-game", {"guesses": 3}
    world = WorldPrompts(name, options, size=20, seed=0)
    finish(module.train(str(model), world, None, config=module.PRESETS["tiny"]))
    return batches


@pytest.mark.parametrize("system", PLAYS)
def test_what_the_world_said_is_in_no_loss_of_any_system_that_plays(system, here, monkeypatch):
    batches = weighed(system, here / "model", monkeypatch)
    assert batches
    for batch in batches:
        said_by_the_world = batch["attended"] & (batch["turn"] == 0)
        behind_an_answer = said_by_the_world & (batch["turn"].cumsum(1) > 0)
        assert behind_an_answer.any()
        assert (batch["weight"][said_by_the_world] == 0).all()
        assert not batch["mask"][said_by_the_world].any()
    assert any((batch["weight"][batch["turn"] > 0] > 0).any() for batch in batches)


@pytest.mark.parametrize("system", ANSWERS)
def test_a_system_that_reads_single_answers_refuses_a_world_and_leaves_nothing_behind(system, here, capsys):
    told = words(f"refused-{system}")
    told[1] = system
    assert main(told) == 1
    assert "does not play worlds: " in capsys.readouterr().err
    assert not (here / f"refused-{system}").exists()


def test_a_run_keeps_the_world_and_conversations_in_which_one_sees_who_spoke(run):
    directory = RunDirectory.open(run)
    inputs = directory.config["inputs"]
    assert (inputs["world"], inputs["world_option"]) == ("vowel_world:Vowels", ["least=1"])
    assert inputs["reward"] == ""
    sample = directory.samples()[-1]
    assert [who for who, _ in sample["conversation"]] == ["world", "policy", "world"]
    assert sample["ended"] == "done"
    assert {"reward", "success", "turns", "world/vowels"} <= set(directory.metrics()[-1])
    page = (run / "report.html").read_text()
    assert '<p class="said world"><b>world</b><span>vowels please' in page
    assert '<p class="said policy"><b>policy</b>' in page
    assert "world/vowels over rollouts" in page


def unhurried(lines):
    return [{k: v for k, v in line.items() if not k.startswith("seconds/")} for line in lines]


def test_a_killed_run_goes_on_to_the_same_conversations_and_weights(run, capsys):
    again = run.parent / "again"
    shutil.copytree(run, again)
    shutil.rmtree(again / "policy")
    for step in (4, 6):
        (again / "checkpoints" / f"step-{step:08d}.safetensors").unlink()
    assert main(["resume", str(again)]) == 0
    assert "going on after step 2" in capsys.readouterr().err
    whole, resumed = RunDirectory.open(run), RunDirectory.open(again)
    assert unhurried(resumed.metrics()) == unhurried(whole.metrics())
    assert resumed.samples() == whole.samples()
    first, second = (load_policy(str(path)).state_dict() for path in (run, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_world_than_the_runs_is_not_gone_on_with(run, here, capsys):
    config = json.loads((run / "config.json").read_text())
    config["inputs"]["world_option"] = ["least=2"]
    (here / "other").mkdir()
    (here / "other" / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(here / "other")]) == 1
    assert "the data have changed" in capsys.readouterr().err


def test_eval_plays_fresh_episodes_before_and_after_and_the_page_shows_both(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--episodes", "12", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    trained = {one.data["seed"] for one in from_world("vowel_world:Vowels", size=20, seed=0)}
    shown = measured["conversations"]
    assert [one["episode"] for one in shown["before"]] == [one["episode"] for one in shown["trained"]]
    assert not trained & {one["episode"] for one in shown["trained"]}
    before = measured["policies"]["before"]
    assert set(before) == {"success", "reward", "turns", "tokens", "finished", "vowels"}
    assert before["reward"]["value"] == pytest.approx(before["vowels"]["value"] / 10)
    assert 0 <= before["success"]["low"] < before["success"]["high"] <= 1
    assert before["turns"]["value"] == before["turns"]["low"] == 1
    assert set(measured["differences"]) == {"reward", "success"}
    page = (run / "report.html").read_text()
    for name in ("before", "trained"):
        assert f"Conversations of vowel_world:Vowels least=1: {name}" in page
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == page


def test_eval_of_another_kind_is_kept_beside_and_the_same_kind_in_its_place(run, capsys):
    for told in ([], [], ["--temperature", "0"], ["--world", "guessing-game"]):
        assert main(["eval", str(run), "--episodes", "3", *told]) == 0
    kept = json.loads((run / "conversations.json").read_text())
    kinds = [(one["world"], one["temperature"]) for one in kept if one["episodes"] == 3]
    usual = "vowel_world:Vowels least=1"
    assert kinds == [(usual, 1.0), (usual, 0.0), ("guessing-game", 1.0)]
    assert "fresh episodes of guessing-game" in capsys.readouterr().out


def test_a_plain_model_is_measured_alone_in_a_world_that_says_nothing_of_success(here, capsys):
    capsys.readouterr()
    told = ["eval", "model", "--world", "vowel_world:Vowels", "--episodes", "5", "--limit", "4", "--json"]
    assert main(told) == 0
    measured = json.loads(capsys.readouterr().out)
    assert set(measured["policies"]) == {"model"}
    assert set(measured["policies"]["model"]) == {"reward", "turns", "tokens", "finished", "vowels"}
    assert measured["differences"] == {}


def test_a_run_in_a_world_can_still_be_asked_prompts(run, here, capsys):
    (here / "sums.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    capsys.readouterr()
    assert main(["eval", str(run), "--data", "sums.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == "numeric"


def test_limits_cut_the_conversations_of_a_run(here):
    told = words("short", "--turn-limit", "2", "--steps", "1", world="guessing-game")
    assert main(told) == 0
    (line,) = RunDirectory.open(here / "short").metrics()
    assert (line["turns"], line["cut_by_turns"]) == (2, 1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--world", "guesing-game"], "guessing-game"),
        (["--world", "vowel_world:Vowel"], "has no 'Vowel'"),
        (["--world", "no_such_module:World"], "cannot be imported"),
        (["--world", "vowel_world:Broken"], "no server"),
        (["--world", "guessing-game", "--world-option", "hihg=3"], "does not know an option"),
        (["--world", "guessing-game", "--world-option", "high"], "NAME=VALUE"),
        (["--world", "calculator", "--world-option", "digits=four"], "cannot be made with its options"),
        (["--world", "guessing-game", "--data", "sums.jsonl"], "and --data too"),
        (["--world", "guessing-game", "--reward", "numeric"], "and --reward too"),
        (["--world", "guessing-game", "--task", "chain_sum", "--reward", "exact"], "--task and --reward too"),
        (["--world", "guessing-game", "--turn-limit", "0"], "0 turns"),
        (["--world", "guessing-game", "--token-limit", "5"], "no room for an answer"),
        (["--world", "guessing-game", "--size", "0"], "0 episodes"),
        (["--world-option", "high=3"], "--world-option, but no world"),
        (["--task", "chain_sum", "--turn-limit", "3"], "--turn-limit, but no world"),
    ],
)
def test_what_does_not_fit_is_said_in_the_users_words(more, said, here, capsys):
    assert main(["run", "grpo", "--preset", "tiny", "--model", "model", *more, "--out", "never"]) == 1
    assert said in capsys.readouterr().err


def test_a_world_needs_a_model(here, capsys):
    assert main(["run", "grpo", "--world", "guessing-game"]) == 1
    assert "which model?" in capsys.readouterr().err

"""Anyprefer's experiment: what tools know is true, what the judge weighs, and how pairs are counted."""

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("reasoning_gym")
pytest.importorskip("datasets")

from policysmith.claims import anyprefer as experiment
from policysmith.claims.common import tooled
from policysmith.claims.common.tooled import FACTS, FEATURES, GUESS, PLAIN, STEPS, SUMS, right
from policysmith.common.stages import result_of
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder
from policysmith.synthesis.players import Instructions
from policysmith.training.learners.supervised import SupervisedSettings

ONES = dict.fromkeys(FEATURES, 1.0)


@pytest.mark.parametrize("task", [SUMS, FACTS])
def test_one_tool_knows_the_answer_and_the_other_says_nothing(task):
    for prompt in tooled.asked(task, 200, 3):
        said = {name: tool(prompt, []) for name, tool in tooled.tools().items()}
        assert said == {"calculator": None, "facts": None} | {
            "calculator" if task == SUMS else "facts": prompt.answer
        }


def test_held_out_questions_are_asked_in_no_game():
    for task in (SUMS, FACTS):
        held_out = {one.text for one in tooled.asked(task, 300, 2, held_out=True)}
        assert not held_out & {one.text for one in tooled.asked(task, 2000, 1)}


def test_demonstrations_are_wrong_as_often_as_is_said_and_read_by_their_form():
    shown = tooled.demonstrations(6000, 0)
    truth = {f"{name}=": word for name, word in tooled.facts().items()}
    for instruction, rate in tooled.WRONG.items():
        marks = []
        for one in shown:
            if one.prompt.startswith(instruction):
                question = one.prompt.removeprefix(instruction)
                answer = truth[question] if question in truth else str(eval_sum(question))
                marks.append(right(one.answer, Prompt("", answer)))
                assert tooled._FORM.fullmatch(one.answer), one.answer
        assert sum(marks) / len(marks) == pytest.approx(1 - rate, abs=0.05)


def eval_sum(question):
    return tooled.tools()["calculator"](Prompt(question), [])


def weighing(looks):
    class Judge(tooled.WeighingJudge):
        def __init__(self):
            pass

        def looks(self, asked, answers):
            return [looks[text] for text in answers]

    return Judge()


def test_the_judge_weighs_what_is_known_by_hand():
    judge = weighing({"3+4=7;#7": 0.4, "#8": 0.9, "8": 0.5})
    known = {"calculator": "7", "facts": ""}
    points = judge(Prompt("3+4="), ["3+4=7;#7", "#8", "8"], known, ONES)
    assert points[0] == pytest.approx(10 * (0.4 + 1 + 8 / 24 + 1) / 4)
    assert points[1] == pytest.approx(10 * (0.9 + 1 + 2 / 24 + 0) / 4)
    assert points[2] == pytest.approx(10 * (0.5 + 0 + 1 / 24 + 0) / 4)
    without = judge(Prompt("3+4="), ["3+4=7;#7", "#8"], {}, {**ONES, "length": 0.0})
    assert without == pytest.approx([7.0, 9.5])


def test_an_edit_is_one_letter_or_one_weight():
    now = Instructions(PLAIN, {**ONES, "length": 0.0})
    near = [one for one in experiment.neighbours(now) if one != now]
    assert len(near) == 3 + 9, "a weight does not fall below 0"
    assert {one.target for one in near if one.judge == now.judge} == {STEPS, GUESS, "h>"}
    changed = [
        sum(one.judge[name] != now.judge[name] for name in ONES) for one in near if one.target == PLAIN
    ]
    assert changed == [1] * 9


def test_pairs_are_counted_by_the_truth():
    pairs = Preferences(
        Preference(Prompt("1+1="), answers)
        for answers in [("#2", "#3"), ("#3", "#2"), ("#3", "#4"), ("1+1=2;#2", "#2")]
    )
    found = experiment.numbers(pairs, {"kept": 0.5, "pairs": 4, "tool_calls": 8, "revised": 1}, {"1+1=": "2"})
    assert found[experiment.TRUE] == 0.25
    assert found[experiment.TURNED] == 0.25
    assert found[experiment.CALLS] == 2


def test_true_labels_make_true_pairs_which_are_kept_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tooled, "demonstrations", lambda size, seed: DEMONSTRATIONS)
    for name, steps in (("start", 40), ("reader", 2)):  # the start has to be right at times, the judge not
        few = SupervisedSettings(steps=steps, batch_size=8, learning_rate=1e-2, warmup_steps=4)
        recipe = replace(getattr(tooled, name)(), settings=few, width=32, layers=1)
        monkeypatch.setattr(tooled, name, lambda recipe=recipe: recipe)
    monkeypatch.setattr(tooled, "MARKED", 60)
    monkeypatch.setattr(experiment, "PROMPTS", 256)
    settings = replace(
        experiment.GAME, prompts=256, at_a_time=16, finished_only=False, floor=0, margin=0, probe=2
    )
    monkeypatch.setattr(experiment, "GAME", settings)
    policy = result_of(tooled.start().make(tmp_path))
    judge = result_of(tooled.judge(tmp_path))
    assert all(0 < chance < 1 for chance in judge.looks(["1+2+3=", "bok="], ["#6", "#lima"]))
    ways = {way.label: way for way in experiment.WAYS}
    options = {"count": 5, "seed": 0, "folder": tmp_path}
    found = result_of(experiment.made(ways[experiment.ORACLE], policy, "tiny", judge, **options))
    assert found.numbers[experiment.TRUE] == 1
    assert len(found.pairs) == 5
    again = result_of(experiment.made(ways[experiment.ORACLE], None, "tiny", None, **options))
    assert again.pairs.fingerprint == found.pairs.fingerprint
    full = result_of(experiment.made(ways[experiment.FULL], policy, "tiny", judge, **options))
    assert full.numbers[experiment.CALLS] > 0
    files = list((tmp_path / "anyprefer-pairs").glob("*.jsonl"))
    rows = [json.loads(file.read_text().splitlines()[0]) for file in files]
    assert {tuple(sorted(row["tools"])) for row in rows} == {(), ("calculator", "facts")}


DEMONSTRATIONS = tooled.Examples(
    tooled.Example(f"{PLAIN}{question}", text)
    for question, text in [("1+2+3=", "#6"), ("bok=", "#lima"), ("4-2+1=", "#3"), ("4-2+1=", "#5")] * 8
)


def test_the_judge_reads_the_end_of_an_answer():
    policy = small_decoder(0, width=32, layers=1, heads=2, context=64)
    alone = tooled.reader_states(policy, ["1+2="], ["#3"])
    beside = tooled.reader_states(policy, ["1+2=", "10+20="], ["#3", "10+20=30;#30"])
    assert torch.allclose(alone[0], beside[0], atol=1e-5)
    assert not torch.allclose(beside[0], beside[1])

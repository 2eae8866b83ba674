"""Pairs of a chat model's own answers, the shorter whole one first, and a file of questions to measure by.

    python examples/short_answers.py my-folder
    policysmith run robust-dpo --model smollm2-135m --data my-folder/pairs.jsonl --lora-rank 16 ...
    policysmith eval RUN --data my-folder/questions.jsonl --reward examples.short_answers:brief ...

A small chat model that is asked to answer in a sentence goes on and on. Each question is answered four times;
the best by `brief` stands over the worst. docs/guides/preferences.md shows the whole run and what it came to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from policysmith.common.saving import write_beside
from policysmith.evaluation.answers import answer
from policysmith.experience.pairing import best_worst
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling

THINGS = (
    "a bridge", "a candle", "a clock", "a compass", "a desert", "a dictionary", "a doctor", "a drum",
    "a farm", "a fever", "a forest", "a fossil", "a glacier", "a guitar", "a hammer", "a harbour",
    "a hospital", "an island", "a judge", "a kettle", "a ladder", "a lake", "a lantern", "a library",
    "a magnet", "a map", "a market", "a microscope", "a mirror", "a mountain", "a museum", "a needle",
    "an orchestra", "an oven", "a parliament", "a passport", "a piano", "a planet", "a poem",
    "a prison", "a pyramid", "a rainbow", "a recipe", "a river", "a robot", "a sailor", "a satellite",
    "a school", "a shadow", "a spider", "a teacher", "a telescope", "a theatre", "a thunderstorm",
    "a train", "a tunnel", "an umbrella", "a vaccine", "a volcano", "a windmill",
)  # fmt: skip
ASKING = ("What is {}? Answer in one short sentence.", "In one short sentence, what is {} for?")
HELD_OUT = 12
"""Of the things, the last ones are not asked about in training."""
SAMPLING = Sampling(limit=48, temperature=1.0)


def questions(*, held_out: bool = False) -> Prompts:
    """What is asked."""
    things = THINGS[-HELD_OUT:] if held_out else THINGS[:-HELD_OUT]
    return Prompts(Prompt(form.format(thing)) for thing in things for form in ASKING)


def brief(text: str, prompt: Prompt) -> float:
    """1 for a whole sentence that names the thing in at most 12 words; less by a tenth for each word more.

    0 for a text that does not end, says nothing or does not name the thing.
    """
    words = text.split()
    thing = next((one.split()[-1] for one in THINGS if one in str(prompt.text)), "")
    if len(words) < 4 or not text.strip().endswith((".", "!")) or thing not in text.lower():
        return 0.0
    return max(0.1, 1 - 0.1 * max(0, len(words) - 12))


def pairs(policy: LanguagePolicy, asked: Prompts, *, copies: int = 4, seed: int = 0) -> Preferences:
    """The best over the worst of a question's answers, where they differ."""
    found = answer(policy, asked, brief, sampling=SAMPLING, copies=copies, seed=seed)
    rows = []
    for prompt, texts, scores in zip(asked, found.texts, found.score, strict=True):
        for better, worse in best_worst(torch.from_numpy(scores)):
            both = float(scores[better]), float(scores[worse])
            rows.append(Preference(prompt, (texts[better], texts[worse]), data={"scores": both}))
    made = {"model": policy.source, "copies": copies, "seed": seed, "reward": "examples.short_answers:brief"}
    return Preferences(rows, provenance=made, drop=True)


def main(folder: Path, rounds: int = 2) -> None:
    """Write the pairs of `rounds` rounds over the questions, pairs to test by, and the questions of these."""
    policy = open_policy("smollm2-135m")
    asked = Prompts([prompt for _ in range(rounds) for prompt in questions()])
    pairs(policy, asked).save(folder / "pairs.jsonl")
    pairs(policy, questions(held_out=True), seed=1).save(folder / "held_out_pairs.jsonl")
    with write_beside(folder / "questions.jsonl") as temporary:
        lines = [json.dumps({"prompt": prompt.text}) for prompt in questions(held_out=True)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]))

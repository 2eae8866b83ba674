"""The reference and the options of the command line, read from the source."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from docsite import reference

from policysmith.cli.comparing_answers import CompareAnswers
from policysmith.cli.data import WORDS
from policysmith.cli.eval_answers import EvalAnswers
from policysmith.cli.eval_worlds import EvalWorld
from policysmith.cli.main import VERBS, _options

PACKAGE = Path(__file__).parents[2] / "src" / "policysmith"

SOURCE = '''
"""The idea of it,
on two lines.

More.
"""

def public(cls: int, *rest: str, key: float = 1.0) -> None:
    """What it does
    with `a_b`.

    Details.
    """

def _private():
    """Hidden."""

class Thing:
    """A thing."""

    def __init__(self, size: int) -> None: ...

    def act(self, x: "Float[Tensor, 'row']") -> None:
        """Acts."""

    @classmethod
    def made(cls, cls_name: str) -> None:
        """Made."""

    def place(self, where: int, /) -> None:
        """Places."""

    @property
    def size(self) -> int:
        """Its size."""
'''


def test_a_module_shows_what_is_public_with_its_first_words():
    text = reference.module_section("policysmith.policies.some_thing", SOURCE)
    assert text.split("\n\n") == [
        "## `policysmith.policies.some_thing` {#policies-some-thing}",
        "The idea of it, on two lines.",
        "- `public(cls, *rest, key=1.0)`: What it does with `a_b`.\n"
        "- `Thing`: A thing.\n"
        "    - `act(x)`: Acts.\n"
        "    - `made(cls_name)`: Made.\n"
        "    - `place(where, /)`: Places.\n"
        "    - `size`: Its size.",
    ]


def test_every_folder_of_the_library_is_a_stage():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(reference.STAGES)


def test_a_stages_page_names_every_module():
    page = reference.stage_page(PACKAGE, "training")
    assert "## `policysmith.training.loop` {#training-loop}" in page
    assert "## `policysmith.training.learners.diffusion` {#training-learners-diffusion}" in page


def options(kind) -> set[str]:
    """What a verb's dataclass offers, with the fields of the dataclasses in it."""
    found = set()
    for field in dataclasses.fields(kind):
        inner = field.default_factory
        if inner is not dataclasses.MISSING and dataclasses.is_dataclass(inner):
            found |= options(inner)
        else:
            found.add(field.name.replace("_", "-").lower())
    return found


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("run", "data", "models")])
def test_the_page_of_the_command_line_has_every_option(verb):
    section = reference.option_tables(PACKAGE / "cli", {verb: VERBS[verb]})
    usual, _, language = section.partition("**For language models**")
    language, _, talking = language.partition("**In text worlds**")
    assert shown(usual) == options(_options(verb))
    assert shown(language) == (options(LANGUAGE[verb]) if verb in LANGUAGE else set())
    assert shown(talking) == (options(EvalWorld) if verb == "eval" else set())


LANGUAGE = {"eval": EvalAnswers, "compare": CompareAnswers}


def shown(section: str) -> set[str]:
    """The options that a section lists."""
    found = re.findall(r"^\| (?:`--([a-z-]+)`|([A-Z]+)) \|", section, re.MULTILINE)
    return {(option or positional).lower() for option, positional in found}


def test_each_word_of_data_has_every_option():
    section = reference.option_tables(PACKAGE / "cli", {"data": VERBS["data"]})
    for part, kind in zip(section.split("**`policysmith data ")[1:], WORDS.values(), strict=True):
        shown = re.findall(r"^\| (?:`--([a-z-]+)`|([A-Z]+)) \|", part, re.MULTILINE)
        assert {(option or positional).lower() for option, positional in shown} == options(kind)


def test_an_option_shows_default_and_meaning():
    section = reference.option_tables(PACKAGE / "cli", {"eval": "measure a trained policy"})
    assert section.startswith("### `policysmith eval` {#eval}\n\nMeasure a trained policy.")
    assert "| `--episodes` | `50` | how many episodes, each from a seed of its own |" in section
    assert "| `--json` |  | print JSON and nothing else |" in section


def test_a_verb_with_verbs_of_its_own_lists_each(tmp_path):
    (tmp_path / "data.py").write_text(
        'class Check:\n    """Look at it."""\n    path: Positional[str]\n    """the folder"""\n'
        "    def run(self): ...\n"
        "class Helper:\n    other: int = 3\n"
        "class Inputs: ...\nclass Keeping: ...\n"
    )
    section = reference.option_tables(tmp_path, {"data": "look at data"})
    assert "**`policysmith data check`**: Look at it." in section
    assert "| PATH |  | the folder |" in section
    assert "--other" not in section

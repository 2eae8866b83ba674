"""The command `policysmith`: one verb a job, the same verbs for all systems.

Exit codes: 0 done; 1 something the user can act on (said in those terms); 2 the words of the command line;
3 an experiment ran and its claim fails; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

import policysmith
from policysmith.common.errors import PolicysmithError

VERBS: dict[str, str] = {
    "list": "the systems of the catalogue",
    "show": "one system: what it is, its settings, what was measured",
    "find": "rank the systems for a problem told in plain words",
    "demo": "record, train two diffusion policies, play, film and report",
    "run": "run a system on your environment, data, model or policy",
    "resume": "go on with a run",
    "record": "record demonstrations",
    "data": "look at a data set (data check), convert it (data convert), or make one (data record)",
    "models": "bring language models",
    "eval": "measure a trained policy",
    "compare": "set systems side by side under one budget",
    "reproduce": "run a system's experiment and judge its claim",
    "report": "write a run's page anew",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    verb, *rest = list(sys.argv[1:] if words is None else words) or ["--help"]
    if verb in ("--version", "-V"):
        sys.stdout.write(f"policysmith {policysmith.__version__}\n")
        return 0
    if verb not in VERBS:
        return _help(verb)
    try:
        code = _verb(verb)(rest)
    except PolicysmithError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone: nothing is wrong, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0


def entry() -> None:
    """What the console script calls."""
    # As `python -m` does, so that an environment or an expert in the user's own folder is found.
    if "" not in sys.path:
        sys.path.insert(0, "")
    sys.exit(main())


def _help(verb: str) -> int:
    asked = verb in ("-h", "--help", "help")
    lines = ["usage: policysmith VERB ...   (policysmith VERB --help tells more)", ""]
    lines += [f"  {name:<10} {what}" for name, what in VERBS.items()]
    stream = sys.stdout if asked else sys.stderr
    if not asked:
        stream.write(f"error: there is no verb '{verb}'\n\n")
    stream.write("\n".join(lines) + "\n")
    return 0 if asked else 2


def _verb(name: str) -> Callable[[list[str]], int | None]:
    """The function behind a verb; imported when it is called, so that `list` need not wait for torch."""
    if name == "run":
        from policysmith.cli.runs import run

        return run
    if name == "data":
        from policysmith.cli.data import data

        return data
    if name in ("eval", "compare"):
        return {"eval": _eval, "compare": _compare}[name]
    options = _options(name)

    def call(words: list[str]) -> int | None:
        return tyro.cli(options, args=words, prog=f"policysmith {name}").run()

    return call


def _eval(words: list[str]) -> int | None:
    """`eval` of what acts in an environment, answers prompts, or learnt from pairs: the path says which."""
    from policysmith.cli import eval_answers, eval_preferences, eval_worlds, runs

    path = next((word for word in words if not word.startswith("-")), "")
    language = bool(path) and eval_answers.is_language(path)
    options: Any = eval_answers.EvalAnswers if language else runs.Eval
    named = {word.split("=")[0] for word in words}
    config = eval_answers.run_config(path) if language else {}
    if language and not named & {"--reward", "--task"} and eval_preferences.is_preference_run(config):
        options = eval_preferences.EvalPreferences
    plays = bool(config.get("inputs", {}).get("world")) and not named & {"--data", "--task"}
    if language and ("--world" in named or plays):
        options = eval_worlds.EvalWorld
    return tyro.cli(options, args=words, prog="policysmith eval").run()


def _compare(words: list[str]) -> int | None:
    """`compare` by success, return, answers or held-out pairs: the first name says which."""
    from policysmith.cli import comparing, comparing_answers, comparing_pairs, comparing_returns
    from policysmith.cli.language import LanguageInputs
    from policysmith.cli.preferences import PreferenceInputs
    from policysmith.cli.runs import training_inputs
    from policysmith.common.catalogue import find_system

    name = next((word for word in words if not word.startswith("-")), "")
    options: Any = comparing.Compare
    if name:
        system = find_system(name)
        language = issubclass(training_inputs(system), LanguageInputs)
        by_return = comparing_returns.returns_comparison(system)
        options = comparing_answers.CompareAnswers if language else by_return or options
        if issubclass(training_inputs(system), PreferenceInputs):
            options = comparing_pairs.ComparePairs
    return tyro.cli(options, args=words, prog="policysmith compare").run()


def _options(name: str) -> Any:
    if name in ("list", "show", "find"):
        from policysmith.cli import catalogue

        return {"list": catalogue.List, "show": catalogue.Show, "find": catalogue.Find}[name]
    if name in ("compare", "demo"):
        from policysmith.cli import comparing

        return {"compare": comparing.Compare, "demo": comparing.Demo}[name]
    if name == "reproduce":
        from policysmith.cli.reproduce import Reproduce

        return Reproduce
    if name == "models":
        from policysmith.cli import models

        return Annotated[models.Get, subcommand("get")] | Annotated[models.List, subcommand("list")]
    from policysmith.cli import runs

    return {"resume": runs.Resume, "record": runs.Record, "eval": runs.Eval, "report": runs.Report}[name]

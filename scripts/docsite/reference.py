"""What the source says of itself, read without importing it: stages, modules, the command line's options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from docsite.links import anchor
from docsite.pages import escape, table

STAGES: tuple[str, ...] = (
    "common",
    "sandbox",
    "objectives",
    "networks",
    "worlds",
    "policies",
    "experience",
    "rewards",
    "training",
    "steering",
    "synthesis",
    "evaluation",
    "systems",
    "claims",
    "cli",
)
"""The folders of the library, lowest first."""

Definition = ast.FunctionDef | ast.ClassDef


def stages(package: Path) -> list[str]:
    """The stages that hold anything, lowest first."""
    return [stage for stage in STAGES if any(_modules(package / stage))]


def stage_list(package: Path) -> str:
    """The stages as a list with what each holds, linking to their pages."""
    lines = [
        f"- [{stage}]({stage}.md): {_first(_parse(package / stage / '__init__.py'))}"
        for stage in stages(package)
    ]
    return "\n".join(lines)


def stage_page(package: Path, stage: str) -> str:
    """The page of one stage: each module with its idea, and what it makes public."""
    parts = [f"# {stage}", _first(_parse(package / stage / "__init__.py"))]
    for path in _modules(package / stage):
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        parts.append(module_section(f"policysmith.{name}", path.read_text(encoding="utf-8")))
    return "\n\n".join(part for part in parts if part) + "\n"


def module_section(name: str, source: str) -> str:
    """One module: its idea, then a line for each public function and class (with its public methods)."""
    tree = ast.parse(source)
    lines = [f"## `{name}` {{#{anchor(name)}}}", _first(tree)]
    lines.append("\n".join(line for node in _public(tree.body) for line in _described(node)))
    return "\n\n".join(line for line in lines if line)


def _modules(folder: Path) -> Iterator[Path]:
    return (
        path for path in sorted(folder.rglob("*.py")) if not path.name.startswith("_") and path.stem != "main"
    )


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")


def _public(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def _described(node: Definition, indent: str = "") -> Iterator[str]:
    """The line of a definition, and those of a class's public methods below it."""
    first = _first(node)
    yield f"{indent}- `{node.name}{_arguments(node, method=bool(indent))}`" + (f": {first}" if first else "")
    if isinstance(node, ast.ClassDef):
        for inner in _public(node.body):
            if ast.get_docstring(inner):
                yield from _described(inner, indent + "    ")


def _first(node: Definition | ast.Module) -> str:
    """The first paragraph of a docstring, on one line."""
    return escape(" ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()))


def _arguments(node: Definition, *, method: bool) -> str:
    """The arguments of a function without their annotations; nothing for a class or a property."""
    if isinstance(node, ast.ClassDef):
        return ""
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    if marks & {"property", "functools.cached_property", "cached_property"}:
        return ""
    arguments = node.args
    for one in ast.walk(arguments):
        if isinstance(one, ast.arg):
            one.annotation = None
    if method and "staticmethod" not in marks:
        del (arguments.posonlyargs or arguments.args)[0]
    return f"({ast.unparse(arguments)})"


# ---- the command line --------------------------------------------------------------------------------


def option_tables(folder: Path, verbs: Mapping[str, str]) -> str:
    """A section for each verb of the command line with its options, from the dataclasses in `folder`.

    The options of a verb are the fields of the class of its name. A verb with verbs of its own has a module
    of its name, in which they are in `WORDS`, or else the classes with a `run`.
    """
    # The first module's where two share a name: `models list` must not stand in for `list` of the catalogue.
    paths = sorted(folder.glob("*.py"), reverse=True)
    classes = {node.name: node for path in paths for node in _classes(path)}
    sections = []
    for verb, what in verbs.items():
        sections.append(f"### `policysmith {verb}` {{#{verb}}}\n\n{escape(what[0].upper() + what[1:])}.")
        if verb == "run":
            rows = [*RUN, *_options(classes["Inputs"], classes), *_options(classes["Keeping"], classes)]
            sections += [table(OPTION_COLUMNS, rows), *_for_language(verb, classes)]
            continue
        named = classes.get(verb.capitalize())
        if named:
            sections.append(table(OPTION_COLUMNS, _options(named, classes)))
        else:
            for word, node in _words(folder / f"{verb}.py", classes).items():
                sections.append(f"**`policysmith {verb} {word}`**: {_first(node)}")
                sections.append(table(OPTION_COLUMNS, _options(node, classes)))
        sections += _for_language(verb, classes)
    return "\n\n".join(sections)


def _for_language(verb: str, classes: Mapping[str, ast.ClassDef]) -> list[str]:
    """The options that a verb has in place of these where its subject is a language system or policy."""
    node = classes.get(LANGUAGE.get(verb, ""))
    if node is None:
        return []
    shown = [f"**For language models**: {_first(node)}", table(OPTION_COLUMNS, _options(node, classes))]
    if talking := classes.get(WORLDS.get(verb, "")):
        shown += [f"**In text worlds**: {_first(talking)}", table(OPTION_COLUMNS, _options(talking, classes))]
    return shown


WORLDS = {"eval": "EvalWorld"}
LANGUAGE = {"run": "ConversingInputs", "eval": "EvalAnswers", "compare": "CompareAnswers"}
OPTION_COLUMNS = ["option", "default", "meaning"]
RUN = [
    ["NAME", "", "the system"],
    ["`--preset`", "`paper`", "whose settings: `paper`, `tiny`, and what else the system has"],
    ["`--seed`", "`0`", "seed of a training run"],
    ["`--SETTING`", "", "any setting of the system, as its page lists them"],
]
"""What `run` takes beside its inputs; it reads these words itself, because they depend on the system."""


def _classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in _parse(path).body if isinstance(node, ast.ClassDef)]


def _words(path: Path, classes: Mapping[str, ast.ClassDef]) -> dict[str, ast.ClassDef]:
    """The verbs of a verb and their classes."""
    for node in _parse(path).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "WORDS":
            words = ast.unparse(node.value).strip("{}").split(", ")  # type: ignore[arg-type]
            pairs = (word.split(": ") for word in words)
            return {ast.literal_eval(word): classes[name] for word, name in pairs}
    return {node.name.lower(): node for node in _classes(path) if _runs(node)}


def _runs(node: ast.ClassDef) -> bool:
    return any(inner.name == "run" for inner in _public(node.body))


def _options(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> list[list[str]]:
    """One row per field, those of a base class first: the option, its default, and the docstring below it.

    A field that the class has anew stands in the place of its base's.
    """
    rows: list[list[str]] = []
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            rows += _options(classes[base.id], classes)
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        annotation = ast.unparse(statement.annotation)
        if "ClassVar" in annotation:
            continue
        if nested := [name for name in re.findall(r"\w+", annotation) if name in classes]:
            rows += _options(classes[nested[0]], classes)
            continue
        name = statement.target.id.replace("_", "-")
        option = name.upper() if "Positional" in annotation else f"`--{name}`"
        rows.append([option, _default(statement.value), _text_of(after)])
    return list({row[0]: row for row in rows}.values())


def _default(value: ast.expr | None) -> str:
    """A field's default as a person would type it; nothing for what is empty or off."""
    plain = value.value if isinstance(value, ast.Constant) else value
    if plain is None or plain is False or plain == "":
        return ""
    return "on" if plain is True else f"`{plain if isinstance(value, ast.Constant) else ast.unparse(value)}`"


def _text_of(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return escape(" ".join(str(statement.value.value).split()))
    return ""

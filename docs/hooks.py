"""Parts of pages that the code itself says best: MkDocs puts them in when it builds the pages.

A page has a line `<!-- settings -->`, `<!-- commands -->` or `<!-- changelog -->` where the part belongs.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[1]
# MkDocs loads this file by itself: the package beside it is the one to describe, wherever another may be installed.
sys.path.insert(0, str(ROOT))

from mozagg2bq_assets import settings  # noqa: E402
from mozagg2bq_assets.cli.main import main  # noqa: E402

WIDTH = 100


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page, before it becomes HTML."""
    for marker, part in PARTS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, part())
    return markdown


def settings_tables() -> str:
    """A table for each class of settings, of the variables that no class before it has."""
    shown: set[object] = set()
    tables = []
    for group, heading in zip(settings.ALL, HEADINGS, strict=True):
        fields = [field for field in group.model_fields.values() if field.validation_alias not in shown]
        shown |= {field.validation_alias for field in fields}
        tables.append(_table(heading, fields))
    return "\n\n".join(tables)


def commands() -> str:
    """The help of every command, as the command itself prints it."""
    return "\n\n".join(f"## {name}\n\n```text\n{help_text}\n```" for name, help_text in _helps("mozagg2bq", main))


def changelog() -> str:
    """The sections of CHANGELOG.md, without its heading."""
    text = (ROOT / "CHANGELOG.md").read_text()
    return text[text.index("\n## ") :].strip()


PARTS: dict[str, Callable[[], str]] = {
    "<!-- settings -->": settings_tables,
    "<!-- commands -->": commands,
    "<!-- changelog -->": changelog,
}


# Of the classes in `settings.ALL`, in their order.
HEADINGS = ("Source", "Source, with credentials in S3", "Lake", "BigQuery", "Spark", "Runs", "Alarms")


def _table(heading: str, fields: Iterable[FieldInfo]) -> str:
    lines = [f"## {heading}", "", "| variable | default | values | meaning |", "|---|---|---|---|"]
    for field in fields:
        lines.append(f"| `{field.validation_alias}` | {_default(field)} | {_values(field)} | {field.description} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**required**"
    return "" if field.default is None else f"`{field.default}`"


def _values(field: FieldInfo) -> str:
    """What a value has to be: one of some words, a number within bounds, or a kind of text."""
    choices = next(
        (each for each in (field.annotation, *get_args(field.annotation)) if get_origin(each) is Literal), None
    )
    if choices is not None:
        return ", ".join(f"`{choice}`" for choice in get_args(choices))
    bounds = [
        f"{sign} {getattr(each, name)}"
        for each in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"))
        if hasattr(each, name)
    ]
    kind = KINDS.get(field.validation_alias or "", "")
    return ", ".join(filter(None, (kind or _kind(field), *bounds)))


# Where the type alone does not say it.
KINDS: dict[object, str] = {
    "LAKE_URI": "`s3://bucket/prefix`",
    settings.CREDENTIALS_URI: "`s3://bucket/key`",
    "PARTITIONS_START": "a date",
    "BIGQUERY_DATASET": "letters, digits and `_`",
}


def _kind(field: FieldInfo) -> str:
    text = str(field.annotation)
    for part, kind in (("SecretStr", "a secret"), ("Path", "a file"), ("int", "a whole number"), ("float", "a number")):
        if part in text:
            return kind
    return "text"


def _helps(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The name and the help of a command and, behind it, of its subcommands."""
    context = click.Context(command, info_name=name.split()[-1], parent=parent, max_content_width=WIDTH)
    context.terminal_width = WIDTH
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            sub = command.get_command(context, each)
            if sub is not None and not sub.hidden:
                yield from _helps(f"{name} {each}", sub, context)

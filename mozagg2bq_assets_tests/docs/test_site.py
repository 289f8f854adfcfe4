"""The pages as MkDocs builds them: strictly, with what the code says of itself, and with nothing from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

from mozagg2bq_assets import settings
from mozagg2bq_assets.cli.main import main
from mozagg2bq_assets.definitions import defs
from mozagg2bq_assets.defs.keys import BUCKETS, RECONCILIATION, ROW_COUNT, UP_TO_DATE
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets_tests.docs.pages import DOCS, FENCE, TARGET, pages

README_WORDS = 800
LINK = re.compile(r"\]\(([^)#\s]+)[^)\s]*\)")
INLINE = re.compile(r"(?<!`)`(?P<text>[^`\n]+)`(?!`)")
# What a browser fetches by itself, and the attributes that say from where.
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Fetched(HTMLParser):
    """The URLs that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        values = dict(attributes)
        if tag in FETCHED and values.get("rel") not in ("canonical", "next", "prev"):
            self.urls.append(values.get(FETCHED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. Fails with what MkDocs says where it warns of anything. It counts no warnings with `--quiet`."""
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    built = sorted(site.rglob("*.html"))
    assert len(built) > 20
    for page in built:
        parser = Fetched()
        parser.feed(page.read_text())
        assert parser.urls
        assert not [url for url in parser.urls if re.match(r"(https?:)?//", url)], page
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", styles)


def test_every_variable_and_command_is_there(site: Path) -> None:
    configuration, commands = ((site / f"{name}.html").read_text() for name in ("configuration", "cli"))
    assert not [name for name in settings.variables() if f"<code>{name}</code>" not in configuration]
    assert not [name for name in _command_names("mozagg2bq", main) if f"Usage: {name} " not in commands]


def test_every_schedule_sensor_and_check_is_explained() -> None:
    text = (DOCS / "operation.md").read_text()
    found = defs()
    automation = [*(found.schedules or []), *(found.sensors or [])]
    names = [*(each.name for each in automation), ROW_COUNT, RECONCILIATION, UP_TO_DATE, BUCKETS]
    assert len(names) > 8
    assert not [name for name in names if f"`{name}`" not in text]


def test_every_variable_is_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    assert not [name for name in settings.variables() if not re.search(rf"^#?{name}=", example, re.MULTILINE)]


def test_the_readme_is_short_and_leads_somewhere() -> None:
    """MkDocs checks the links of the pages, and not these."""
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= README_WORDS
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_page_is_linked_from_the_readme_or_the_first_page() -> None:
    texts = (ROOT / "README.md").read_text() + (DOCS / "index.md").read_text()
    names = [page.name for page in pages()[2:] if page.parent == DOCS]
    assert not [name for name in names if f"{name})" not in texts]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_commands_in_the_text_are_there(page: Path) -> None:
    """`make TARGET` is a target; `mozagg2bq COMMAND --option` is a command with that option."""
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    spans = [found["text"] for found in INLINE.finditer(FENCE.sub("", text))]
    lines = [line for found in FENCE.finditer(text) for line in found["text"].splitlines()]
    for command in [*spans, *lines]:
        if target := TARGET.match(command):
            assert re.search(rf"^{target['target']}:", makefile, re.MULTILINE), command
        if command.startswith("mozagg2bq "):
            _check(command)


def _check(command: str) -> None:
    """That the command and its options exist. `a|b` and `{…}` in the text stand for one of several."""
    words = command.removesuffix("\\").split()[1:]
    found: click.Command = main
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        inner = found.get_command(click.Context(found), name)
        assert inner is not None or name in ("COMMAND", "…"), command
        if inner is None:
            return
        found = inner
    options = {option for parameter in found.params for option in parameter.opts} | {"--help", "-h"}
    assert not [word for word in words if word.startswith("--") and word not in options], command


def _command_names(name: str, command: click.Command) -> Iterator[str]:
    yield name
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            if inner is not None and not inner.hidden:
                yield from _command_names(f"{name} {each}", inner)

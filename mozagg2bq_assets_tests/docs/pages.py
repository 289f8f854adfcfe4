"""The pages and their blocks of code."""

import re
from dataclasses import dataclass
from pathlib import Path

from mozagg2bq_assets.local.stack import ROOT

DOCS = ROOT / "docs"
NAVIGATION = re.compile(r"- (\S+\.md)$", re.MULTILINE)
FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# Servers, and what CI runs by itself: a block of these alone is compared with the Makefile instead of being run.
TARGET = re.compile(r"make (?P<target>[a-z-]+)(?: \w+=\S+)*$")


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its text, and the paragraph before it."""

    language: str
    text: str
    before: str

    @property
    def is_targets(self) -> bool:
        """Whether it only calls make."""
        return all(TARGET.match(line) for line in self.text.splitlines())


def pages() -> list[Path]:
    """README and the pages, in the order of the navigation."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    return [ROOT / "README.md", *(DOCS / name for name in NAVIGATION.findall(navigation))]


def blocks(page: Path) -> list[Block]:
    """The page's blocks of code, in order."""
    text = page.read_text()
    return [
        Block(found["language"], found["text"], text[: found.start()].rstrip().rpartition("\n\n")[2])
        for found in FENCE.finditer(text)
    ]


def commands(page: Path) -> str:
    """What the page has its reader type, in order: the blocks that are run here."""
    return "\n".join(each.text for each in blocks(page) if each.language == "bash" and not each.is_targets)

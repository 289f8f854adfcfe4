"""Every error has its entry on the page of messages, and every entry is a message that the code can give."""

import re
from pathlib import Path

from mozagg2bq_assets_tests.docs.messages import all_texts, error_messages

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
ENTRY = re.compile(r"^\| (?:`` (?P<double>.+?) ``|`(?P<single>[^`]+)`) \|", re.MULTILINE)
END = "…"


def entries() -> list[str]:
    """The first cells of the page's tables, with `{}` for what a message names."""
    return [
        re.sub(r"\{[^}]*\}", "{}", found["double"] or found["single"]) for found in ENTRY.finditer(PAGE.read_text())
    ]


def is_of(entry: str, text: str) -> bool:
    """Whether it is that message, or its beginning if `…` follows."""
    return text.startswith(entry.removesuffix(END).rstrip()) if entry.endswith(END) else text == entry


def test_every_error_has_an_entry() -> None:
    found = entries()
    missing = [f"{each.place}: {each.text}" for each in error_messages() if not any(is_of(e, each.text) for e in found)]
    assert not missing, "not in docs/troubleshooting.md:\n" + "\n".join(missing)


def test_every_entry_is_a_message() -> None:
    texts = {*all_texts(), *(each.text for each in error_messages())}
    old = [entry for entry in entries() if not any(is_of(entry, text) for text in texts)]
    assert not old, "in docs/troubleshooting.md, and nowhere in the code:\n" + "\n".join(old)


def test_entries_are_not_repeated() -> None:
    found = entries()
    assert len(found) > 100
    assert sorted(found) == sorted(set(found))

"""Shapes: what is learned from objects, and what they print."""

import json

import pytest

from mozagg2bq_assets.parquet.shapes import ALL_TEXT, MAX_SHAPES, Kind, Shape, Shapes


def test_of() -> None:
    """Keys in the text's order, with their kinds."""
    text = '{"os": "x", "child": true, "label": null, "n": -1.50}'
    kinds = (("os", Kind.TEXT), ("child", Kind.LITERAL), ("label", Kind.NULL), ("n", Kind.LITERAL))
    assert Shape.of(text) == Shape(kinds)
    assert Shape(kinds).unmapped == ["n"]


@pytest.mark.parametrize("text", ["[]", "null", '{"os": {}}', '{"o\\"s": 1}', '{"\'": 1}', '{"é": 1}', '{"os": ', ""])
def test_no_shape(text: str) -> None:
    """What is no object, holds another, is damaged, or has keys that would need care in SQL."""
    assert Shape.of(text) is None


@pytest.mark.parametrize(
    "text", ['{"os": "x", "child": true}', '{"os": null, "n": 1, "label": null}', "{}", '{"os": null}']
)
def test_printed_again(text: str) -> None:
    """Around the values it is the text."""
    shape, values = Shape.of(text), json.loads(text, parse_int=str)
    assert shape is not None
    printed = "".join(
        shape.before.get(key, "") + ("" if value is None else {True: "true"}.get(value, value))
        for key, value in values.items()
    )
    assert printed + shape.after == text
    assert shape.length == len(shape.after) + sum(len(before) for before in shape.before.values())


def test_learn() -> None:
    """The most frequent first; an example of each key that has no column; never more than there may be."""
    shapes = Shapes().learn(['{"a": 1}', '{"os": "x"}', '{"os": "y"}', "[]"])
    assert [shape.members for shape in shapes.known[:2]] == [(("os", Kind.TEXT),), (("a", Kind.LITERAL),)]
    assert shapes.known[-1] == ALL_TEXT
    assert (shapes.examples, shapes.keys[-1]) == ({"a": "1"}, "a")
    assert len(shapes.learn(f'{{"k{n}": 1}}' for n in range(200)).known) == MAX_SHAPES

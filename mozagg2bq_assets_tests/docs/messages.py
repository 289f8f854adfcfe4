"""The messages of the package's errors, read from its source."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mozagg2bq_assets

PACKAGE = Path(mozagg2bq_assets.__file__).parent
# Beside OperatorError and its subclasses: what Dagster and click show, and what becomes a part of their messages.
OTHERS = {"BadParameter", "ClickException", "Failure", "UsageError", "ValueError", "fail"}
# What an operator acts on like on an error: what differs on a day has its words in the second place, and the lines that
# this file yields are such words.
DIFFERENCE = "Difference"
REPORTS = {"pipeline/content.py"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Texts = Mapping[str, str]


@dataclass(frozen=True)
class Message:
    """A message with `{}` for what it names, and where it is made."""

    text: str
    place: str


@cache
def _trees() -> dict[str, ast.Module]:
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def error_messages() -> list[Message]:
    """Every message that has words of its own; those that only pass on another's have none."""
    errors = _error_classes() | OTHERS
    constants = _constants()
    found = []
    for name, tree in _trees().items():
        for function in _scopes(tree):
            texts = {**constants, **_assigned(function, constants)}
            for node in _own_nodes(function):
                argument = _message(node, errors) or (_yielded(node) if name in REPORTS else None)
                text = _text(argument, texts) if argument is not None else ""
                if re.search(r"\w", text.replace("{}", "")):
                    found.append(Message(text, f"{name}:{argument.lineno if argument else 0}"))
    return found


def all_texts() -> list[str]:
    """Every string and f-string of the package, as `error_messages` writes them."""
    constants = _constants()
    return [
        _text(node, {**constants, **_assigned(function, constants)})
        for tree in _trees().values()
        for function in _scopes(tree)
        for node in _own_nodes(function)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def _error_classes() -> set[str]:
    """OperatorError, and what inherits from it."""
    names = {"OperatorError"}
    classes = [node for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while more := {each.name for each in classes if {_name(base) for base in each.bases} & names} - names:
        names |= more
    return names


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    yield tree
    yield from (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, and not in one within it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from _own_nodes(child)


def _message(node: ast.AST, errors: set[str]) -> ast.expr | None:
    """The message of an error that is made there."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    if _name(node.func) == DIFFERENCE:
        return node.args[1]
    makers = (node.func.body, node.func.orelse) if isinstance(node.func, ast.IfExp) else (node.func,)
    # An error's own class may put its message together.
    is_own = ast.unparse(node.func) == "super().__init__" and isinstance(node.args[0], ast.JoinedStr)
    return node.args[0] if is_own or any(_name(maker) in errors for maker in makers) else None


def _yielded(node: ast.AST) -> ast.expr | None:
    return node.value if isinstance(node, ast.Yield) and isinstance(node.value, ast.Constant | ast.JoinedStr) else None


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _constants() -> Texts:
    """Strings that modules give a name."""
    texts: dict[str, str] = {}
    for tree in _trees().values():
        texts |= _assigned(tree, {})
    return texts


def _assigned(scope: ast.AST, known: Texts) -> Texts:
    """Strings that get a name in a function, or in a module itself, once."""
    texts: dict[str, str] = {}
    for node in _own_nodes(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, text = node.targets[0].id, _text(node.value, {**known, **texts})
            texts[name] = "{}" if name in texts else text
    return {name: text for name, text in texts.items() if text not in ("", "{}")}


def _text(node: ast.AST, texts: Texts) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, texts) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, texts) or "{}"
    return texts.get(node.id, "{}") if isinstance(node, ast.Name) else "{}"

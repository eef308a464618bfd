"""The small changes that mutation testing makes to a module, one at a time.

Annotations, imports, docstrings, decorators, blocks for type checkers alone and `strict` of `zip`
stay as they are: nothing of them computes anything.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

LONGEST_SHOWN = 76
CONTEXT = 32
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments)

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CALLS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list",
}  # fmt: skip
METHODS = {"keys": "values", "discard": "add", "add": "discard", "append": "extend"}


class Mutant(NamedTuple):
    """A module with one change. `function` is where, `change` what, both as they are shown."""

    function: str
    change: str
    line: int
    code: CodeType


def mutants(source: str) -> Iterator[Mutant]:
    """Yield the mutants of a module's source; equal changes in one function are numbered."""
    tree = ast.parse(source)
    times_seen: Counter[tuple[str, str]] = Counter()
    for line, function, change in _changes(tree, "", []):
        times_seen[function, change] += 1
        ordinal = times_seen[function, change]
        numbered = change if ordinal == 1 else f"{change} ({ordinal})"
        code = compile(tree, "<mutant>", "exec", dont_inherit=True)
        yield Mutant(function, numbered, line, code)


def _changes(node: ast.AST, function: str, above: list[ast.AST]) -> Iterator[tuple[int, str, str]]:
    """Change the tree below a node, yield what was changed, and change it back."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}" if function else node.name
    here = [*above, node]
    for parent_field, value in ast.iter_fields(node):
        if parent_field in {"annotation", "returns", "decorator_list", "bases"}:
            continue
        children = value if isinstance(value, list) else [value]
        for place, child in enumerate(children):
            if not isinstance(child, ast.AST) or _computes_nothing(child, node):
                continue
            frame = _frame(child, here)
            before = _header(frame)
            for changed in _changed(child, node):
                _put(node, parent_field, place, ast.copy_location(changed, child))
                ast.fix_missing_locations(changed)
                after = _header(changed if frame is child else frame)
                line = getattr(child, "lineno", getattr(node, "lineno", 0))
                yield line, function or "module", _shown(before, after)
                _put(node, parent_field, place, child)
            yield from _changes(child, function, here)


def _put(node: ast.AST, name: str, place: int, child: ast.AST) -> None:
    value = getattr(node, name)
    if isinstance(value, list):
        value[place] = child
    else:
        setattr(node, name, child)


def _computes_nothing(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(value=ast.Subscript(value=ast.Name(id="Literal"))):
            return True
        case ast.AnnAssign(value=None):
            return True
    # What a format is applied to is changed; the format's own text is part of the f-string.
    is_format = isinstance(parent, ast.FormattedValue) and isinstance(node, ast.JoinedStr)
    return is_format or _is_assertion(node, parent)


def _is_assertion(node: ast.AST, call: ast.AST) -> bool:
    """Tell whether a part of a call is `strict` of `zip`: what it zips has one length."""
    match node, call:
        case ast.keyword(arg="strict"), ast.Call(func=ast.Name(id="zip")):
            return True
    return False


def _changed(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.stmt():
            yield from _other_statements(node, parent)
        case ast.BinOp() | ast.Compare() | ast.BoolOp() | ast.UnaryOp():
            yield from _other_operations(node)
        case ast.Constant():
            yield from _other_constants(node.value)
        case ast.Call():
            yield from _other_calls(node)
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.Slice(lower, upper, step):
            if lower:
                yield ast.Slice(None, upper, step)
            if upper:
                yield ast.Slice(lower, None, step)
        case ast.comprehension(target, iterated, [_, *_], is_async):
            yield ast.comprehension(target, iterated, [], is_async)


def _other_operations(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.BinOp(left, operator, right):
            yield ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.Compare(left, operators, comparators):
            for place, comparison in enumerate(operators):
                for other in COMPARISONS[type(comparison)]:
                    changed = [*operators[:place], other(), *operators[place + 1 :]]
                    yield ast.Compare(left, changed, comparators)
        case ast.BoolOp(joined, values):
            yield ast.BoolOp(ast.Or() if isinstance(joined, ast.And) else ast.And(), values)
            for place in range(len(values)):
                others = values[:place] + values[place + 1 :]
                yield others[0] if len(others) == 1 else ast.BoolOp(joined, others)
        case ast.UnaryOp(_, operand):
            yield operand


def _other_constants(value: Any) -> Iterator[ast.AST]:
    match value:
        case bool():
            yield ast.Constant(not value)
        case int() | float():
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case str():
            yield ast.Constant(f"{value}X")


def _other_calls(node: ast.Call) -> Iterator[ast.AST]:
    function, arguments, keywords = node.func, node.args, node.keywords
    if isinstance(function, ast.Name) and function.id in CALLS:
        others = [] if CALLS[function.id] == "list" else keywords
        yield ast.Call(ast.Name(CALLS[function.id], ast.Load()), arguments, others)
        if function.id in {"min", "max"} and len(arguments) > 1:
            yield from arguments
    if isinstance(function, ast.Attribute) and function.attr in METHODS:
        other = ast.Attribute(function.value, METHODS[function.attr], ast.Load())
        yield ast.Call(other, arguments, keywords)
    for place, keyword in enumerate(keywords):
        if not _is_assertion(keyword, node):
            yield ast.Call(function, arguments, keywords[:place] + keywords[place + 1 :])
    if len(arguments) > 1:
        yield ast.Call(function, arguments[:-1], keywords)


def _other_statements(node: ast.stmt, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.AugAssign(target, operator, value):
            yield ast.AugAssign(target, ARITHMETIC[type(operator)](), value)
            yield ast.Assign([target], value)
        case ast.If(_, body, orelse):
            yield ast.If(ast.Constant(value=True), body, orelse)
            yield ast.If(ast.Constant(value=False), body, orelse)
        case ast.Return(value) if not isinstance(value, ast.Constant | None):
            yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
    is_simple = isinstance(
        node, ast.Expr | ast.Assign | ast.AugAssign | ast.Return | ast.Raise | ast.Continue
    )
    # A class or a module without one of its names is no change of behaviour but a broken program.
    # A function returns None at its end, whether it says so or not.
    is_end = (
        isinstance(parent, ast.FunctionDef)
        and node is parent.body[-1]
        and isinstance(node, ast.Return)
        and isinstance(node.value, ast.Constant)
        and node.value.value is None
    )
    if is_simple and not is_end and not isinstance(parent, ast.Module | ast.ClassDef):
        yield ast.Pass()


def _frame(node: ast.AST, above: list[ast.AST]) -> ast.AST:
    """Return the node with as much of its statement around it as fits on a line."""
    frame = node
    for outer in reversed(above):
        is_whole = isinstance(frame, ast.stmt) or isinstance(outer, DEFINITIONS)
        if is_whole or len(_header(outer)) > LONGEST_SHOWN:
            break
        frame = outer
    return frame


def _header(node: ast.AST) -> str:
    return ast.unparse(node).strip().partition("\n")[0]


def _shown(before: str, after: str) -> str:
    """Return both, or where they are long, what of them is around the first difference."""
    begin = 0
    if len(before) > LONGEST_SHOWN:
        differs = (
            place
            for place, pair in enumerate(zip(before, after, strict=False))
            if len(set(pair)) > 1
        )
        begin = max(0, next(differs, 0) - CONTEXT)
    return f"{_cut(before, begin)} → {_cut(after, begin)}"


def _cut(text: str, begin: int) -> str:
    end = begin + LONGEST_SHOWN
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if len(text) > end else ''}"

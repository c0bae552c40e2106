"""Every small change that can be made to a Python file: what tools/mutation.py tries on the tests.

A change puts one node of the syntax tree in the place of another. The operators are the usual ones: comparisons and
arithmetic turned round, numbers off by one, empty texts, conditions negated or without one of their parts, nothing
returned, statements left out, arguments and the entries of tables left out, errors not caught.
Type annotations, docstrings, decorators and imports stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import Any

import attrs

#: operator -> what may stand for it
OPERATORS: dict[type[Any], tuple[type[Any], ...]] = {
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
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.FloorDiv,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
}
#: functions and methods that are easily taken for each other
NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
METHODS = {
    "startswith": "endswith",
    "endswith": "startswith",
    "partition": "rpartition",
    "rpartition": "partition",
    "lower": "upper",
    "upper": "lower",
}
UNTOUCHED_FIELDS = {"annotation", "returns", "decorator_list", "type_comment", "format_spec"}


@attrs.frozen
class Mutant:
    """One change. ``where`` is the function or the table, ``text`` the line of the source, ``change`` what was done.
    ``apply`` makes it, once, in the tree that the mutant was made of."""

    where: str
    line: int
    text: str
    change: str
    apply: Callable[[], None]

    @property
    def name(self) -> tuple[str, str, str]:
        return self.where, self.text, self.change


def mutants(tree: ast.Module, source: str, untouched: set[str]) -> list[Mutant]:
    """All mutants of a file; ``untouched`` names what at the top of the file stays as it is."""
    lines = source.splitlines()
    made: list[Mutant] = []
    assigned: set[tuple[str, str]] = set()

    def walk(node: ast.AST, where: str) -> None:
        for field, value in ast.iter_fields(node):
            if field in UNTOUCHED_FIELDS:
                continue
            several = isinstance(value, list)
            for i, item in enumerate(value if several else [value]):
                if not isinstance(item, ast.AST) or _untouched(node, item):
                    continue
                line = getattr(item, "lineno", getattr(node, "lineno", 1))
                for change, new in _changes(item, field, lambda name: (where, name) in assigned):
                    put = _putter(value, i, new) if several else _putter(node, field, new)
                    made.append(Mutant(where, line, lines[line - 1].strip(), change, put))
                inner = _name(item, where)
                if inner not in untouched:
                    walk(item, inner)
                if isinstance(item, ast.arg) or (isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)):
                    assigned.add((where, item.arg if isinstance(item, ast.arg) else item.id))

    walk(tree, "")
    return made


def _putter(place: Any, key: Any, new: ast.AST) -> Callable[[], None]:
    return lambda: place.__setitem__(key, new) if isinstance(place, list) else setattr(place, key, new)


def _name(node: ast.AST, where: str) -> str:
    """Where a node is: the qualified name of a function, or the name at the top of the file that is assigned to."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return f"{where}.{node.name}".lstrip(".")
    if not where and isinstance(node, (ast.Assign, ast.AnnAssign)):
        return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    return where


def _untouched(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom)) or (
        isinstance(parent, ast.Expr) and isinstance(node, ast.Constant)
    ):
        return True
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"__all__", "__slots__"}


def _changes(node: ast.AST, field: str, is_assigned: Callable[[str], bool]) -> Iterator[tuple[str, ast.AST]]:
    """What may stand for a node, each with its description."""
    was = _short(node)
    for new in _other_expressions(node):
        yield f"{was} -> {_short(new)}", new
    for part, new in _with_less(node):
        yield f"without {part}", new
    if (
        field in {"test", "ifs", "guard"}
        and isinstance(node, ast.expr)
        and not isinstance(node, (ast.Compare, ast.UnaryOp))
    ):
        yield f"{was} -> not", ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.Return) and node.value and _short(node.value) != "None":
        yield f"{was} -> return None", ast.Return(ast.Constant(None))
    elif _can_be_left_out(node, is_assigned):
        yield "left out", ast.Pass()


def _can_be_left_out(node: ast.AST, is_assigned: Callable[[str], bool]) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return is_assigned(name)  # a name that does not exist would be no mistake that anybody makes
        case ast.Assign(targets=[ast.Tuple()]):
            return False
        case ast.Return(value=value):
            return value is None
        case ast.Expr(value=value):
            return isinstance(value, (ast.Call, ast.Yield))
        case _:
            kinds = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Raise, ast.Break, ast.Continue, ast.Delete)
            return isinstance(node, kinds)


def _other_expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(value=str() as value):
            yield ast.Constant("" if value else "XX")
        case ast.Constant(value=bytes() as value):
            yield ast.Constant(b"" if value else b"XX")
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in OPERATORS[type(op)]:
                    yield _with(node, ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.BoolOp(op=op, values=values):
            yield _with(node, op=OPERATORS[type(op)][0]())
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield _with(node, values=rest) if len(rest) > 1 else rest[0]
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            yield from (_with(node, op=other()) for other in OPERATORS.get(type(op), ()))
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _with(node, id=NAMES[name])
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in METHODS:
            yield _with(node, attr=METHODS[name])
        case _:
            pass


def _with_less(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Slice(lower=lower, upper=upper):
            if lower:
                yield f"the start {_short(lower)}", _with(node, lower=None)
            if upper:
                yield f"the end {_short(upper)}", _with(node, upper=None)
        case ast.Dict(keys=keys, values=values):
            for i, key in enumerate(keys):
                entry = f"{_short(key)}: {_short(values[i])}" if key else f"**{_short(values[i])}"
                yield entry, _with(node, keys=_but(keys, i), values=_but(values, i))
        case ast.Set(elts=elements) | ast.List(elts=elements, ctx=ast.Load()) if len(elements) > 1:
            yield from ((_short(element), _with(node, elts=_but(elements, i))) for i, element in enumerate(elements))
        case ast.Call(args=arguments, keywords=keywords):
            if len(arguments) > 1:
                yield f"the argument {_short(arguments[-1])}", _with(node, args=arguments[:-1])
            for i, keyword in enumerate(keywords):
                yield _short(keyword), _with(node, keywords=_but(keywords, i))
            for i, argument in enumerate(arguments):
                if isinstance(argument, ast.Tuple):
                    for j, element in enumerate(argument.elts):
                        less = _with(argument, elts=_but(argument.elts, j))
                        yield _short(element), _with(node, args=[*arguments[:i], less, *arguments[i + 1 :]])
        case ast.ExceptHandler(type=ast.AST() as caught):
            yield f"catching {_short(caught)}", _with(node, type=ast.Tuple([], ast.Load()))
        case _:
            pass


def _but(items: list[Any], i: int) -> list[Any]:
    return items[:i] + items[i + 1 :]


def _with(node: Any, **fields: Any) -> Any:
    """A copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _short(node: ast.AST) -> str:
    if isinstance(node, (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)):
        return ""
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n", 1)[0].split())[:160]

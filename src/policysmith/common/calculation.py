"""Arithmetic that somebody wrote, worked out without running it.

    calculated("12 + 7 * 3")        "33"
    calculated("1 / 0")             DataError: division by zero

An expression is parsed, and only numbers under + - * / // % ** (or ^) and brackets are worked out, all of a
usual size: what a model wrote can be given to it as it is.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from policysmith.common.errors import DataError

LONGEST = 400
"""Characters of an expression."""

_ALLOWED = re.compile(r"[0-9\s.()+\-*/%^]*")
_OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip
_LARGEST_POWER = 64
"""Exponents beyond it are refused: a number of millions of digits would never be ready."""
_LARGEST = 1e100


def calculated(expression: str) -> str:
    """The value of an arithmetic expression as text, whole numbers without a point, others to 10 digits.

    Raises `DataError` that says in two or three words what hinders: no expression, too long, not arithmetic,
    unreadable (brackets left open), division by zero, too large.
    """
    if len(expression) > LONGEST:
        raise DataError("too long", expected=f"at most {LONGEST} characters")
    if not expression.strip():
        raise DataError("no expression")
    if not _ALLOWED.fullmatch(expression):
        raise DataError("not arithmetic", expected="numbers, + - * / // % ** ^ and brackets")
    try:
        value = _value(ast.parse(expression.replace("^", "**").strip(), mode="eval").body)
    except ZeroDivisionError as error:
        raise DataError("division by zero") from error
    except OverflowError as error:
        raise DataError("too large") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError("unreadable", expected="such as 2*(3+4)") from error
    return str(int(value)) if value == int(value) else f"{value:.10g}"


def _value(node: ast.AST) -> int | float:
    """The value of a part; `OverflowError` where it is too large, `ValueError` where it is no arithmetic."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _sized(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > _LARGEST_POWER:
            raise OverflowError("too large a power")
        return _sized(_OPERATIONS[type(node.op)](left, right))
    raise ValueError(f"{type(node).__name__} is no arithmetic")


def _sized(value: Any) -> int | float:
    if isinstance(value, complex):
        raise ValueError("no real number")
    if abs(value) > _LARGEST or not math.isfinite(value):
        raise OverflowError("no number of a usual size")
    return value

"""Arithmetic word problems with misleading wording (SVAMP, Patel et al. 2021)."""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from alignbench.core.errors import UserError
from alignbench.data.questions import Questions
from alignbench.data.source import Record

WRONG = "dropped: the equation does not give the answer"
TOLERANCE = Fraction(1, 100)
"""Tolerance for rounded answers."""
FLOAT = re.compile(r"(?<=\d)\.0\b")
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, kw_only=True)
class SVAMP(Questions):
    """SVAMP, or any file with its columns `Body`, `Question`, `Answer` (a number) and optionally `Equation`.

    Rows: id, prompt, completion (the equation, then "#### <number>"), reference (the number). Rows whose equation
    does not result in their answer are dropped and counted, because one of the two must be wrong.
    """

    name: str | None = "ChilleD/SVAMP"
    """The hub name, used when `path` is null."""
    template: str = "Question: {question}\nAnswer:\n"
    """The prompt; {question} is replaced by the body and the question."""

    def _question(self, record: Record) -> str:
        body, question = record.text("Body").strip(), record.text("Question").strip()
        return f"{body} {question}" if body.endswith((".", "?", "!")) else f"{body}, {question}"

    def _columns(self, record: Record) -> dict[str, Any]:
        answer, equation = _format_number(_answer(record)), _equation(record)
        work = "" if equation is None else f"{FLOAT.sub('', ast.unparse(equation))} = {answer}\n"
        return {"completion": f"{work}#### {answer}", "reference": answer}

    def _flaw(self, record: Record) -> str | None:
        equation = _equation(record)
        agree = equation is None or abs(_value(equation) - Fraction(_answer(record))) <= TOLERANCE
        return None if agree else WRONG


def _equation(record: Record) -> ast.expr | None:
    """The parsed equation; None without one. Raises UserError when it is not arithmetic."""
    if record.columns.get("Equation") is None:
        return None
    text = record.text("Equation")
    try:
        equation = ast.parse(text.strip(), mode="eval").body
        _value(equation)
    except (SyntaxError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"{record.where}: column 'Equation' must consist of numbers, + - * / and brackets, found {text!r:.60}"
        ) from error
    return equation


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    raise ValueError(f"{type(node).__name__} is not arithmetic")


def _answer(record: Record) -> Decimal:
    answer = record["Answer"]
    try:
        number = Decimal(str(answer))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise UserError(f"{record.where}: column 'Answer' must be a number, found {answer!r:.60}")
    return number


def _format_number(number: Decimal) -> str:
    """The number without a trailing .0 and without an exponent."""
    return f"{number.normalize():f}"

"""Extracts the number after ####, or the last number, from a reference and from a response alike."""

import re
from decimal import Decimal

MARK = "####"

MINUS = r"\-" + "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"  # hyphens, dashes and minus signs
CURRENCY = r"[$€£¥₹₩₽¢]|(?:USD|EUR|GBP|Rs\.?)(?![A-Za-z])"
GROUPED = r"[0-9]{1,3}(?:[,\u00a0\u2009\u202f][0-9]{2,3})*[,\u00a0\u2009\u202f][0-9]{3}"
DIGITS = rf"(?P<digits>(?:{GROUPED}|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"

# The number at the beginning of a text: "-$1,080.50", "$ -3", "15 apples", "20%". Possessive \s*+ never backtracks:
# otherwise a long run of white space would be tried in every division among the four places.
LEADING = re.compile(rf"\s*+(?P<sign>[+{MINUS}])?\s*+(?:{CURRENCY})?\s*+(?P<inner>[{MINUS}])?\s*+{DIGITS}")
# What must not follow it: more digits, or an operator that makes it a sum, a ratio, a range or a power.
REST = re.compile(rf"[0-9]|[.,][0-9]|[eE][-+]?[0-9]| [0-9]{{3}}(?![0-9])|\s*+[*/×÷·^=:+{MINUS}]\s*+[$€£(]?\s*+[0-9]")
# A number anywhere in a text; the characters before a minus decide whether it is a sign or an operator.
ANYWHERE = re.compile(rf"(?P<sign>[{MINUS}])?(?:{CURRENCY})?(?P<inner>[{MINUS}])?{DIGITS}")


def number(text: str) -> Decimal | None:
    """The number at the beginning of a text; None when there is none, or when it is part of a term such as "5*4".

    Thousands separators, currency, a unit, a percent sign, a final period and every kind of minus sign are accepted;
    "20%" is 20.
    """
    found = LEADING.match(text)
    if found is None or REST.match(text, found.end()):
        return None
    negative = bool(found["inner"]) or (found["sign"] is not None and found["sign"] != "+")
    return _decimal(found["digits"], negative)


def strict(text: str) -> Decimal | None:
    """The number after the last #### on its line; None without one."""
    _, mark, tail = text.rpartition(MARK)
    return number(tail.split("\n", 1)[0]) if mark else None


def flexible(text: str) -> Decimal | None:
    """The number after the last ####, otherwise the last number of the text; None without one."""
    answer = strict(text)
    return _last(text) if answer is None else answer


def gold(reference: object) -> Decimal | None:
    """The number of a reference: a number, its text, or a whole solution ending in "#### <number>"."""
    text = str(reference)
    return strict(text) if MARK in text else number(text)


def same(a: Decimal | None, b: Decimal | None) -> bool:
    """Whether both are numbers and equal; 15 equals 15.00, and None equals nothing."""
    return a is not None and b is not None and a == b


def _last(text: str) -> Decimal | None:
    found = list(ANYWHERE.finditer(text))
    if not found:
        return None
    number_ = found[-1]
    signed = bool(number_["sign"]) and not _is_operator(text[: number_.start()])
    return _decimal(number_["digits"], signed or bool(number_["inner"]))


def _is_operator(before: str) -> bool:
    """Whether a minus after this text is an operator or a hyphen ("20 -5", "x-5", "10-12") and not a sign."""
    return bool(before) and (before[-1].isalnum() or before.rstrip()[-1:].isdigit() or before.rstrip()[-1:] in ")%")


def _decimal(digits: str, negative: bool) -> Decimal:
    value = Decimal(re.sub(r"[^0-9.]", "", digits))
    return -value if negative else value

"""Display names, units, scales and rounding of metrics."""

from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Literal

from alignbench.core import metric_names

Better = Literal["more", "less", "neither"]
MINUS = "\N{MINUS SIGN}"
REASONS = {
    "n<2": "fewer than 2 seeds",
    "not_finite": "a seed has no finite value",
    "zero_pooled_variance": "identical across seeds",
    "not_positive": "a value is zero or below",
    "constant_difference": "the same difference for every seed",
    "zero_baseline_variance": "the baseline is identical across seeds",
    "n<4": "fewer than 4 seeds",
    "n<10": "fewer than 10 seeds",
}


def explain(reason: str | None) -> str:
    """Why a number does not exist, in words; an unknown reason is returned as it is."""
    return REASONS.get(reason or "", reason or "")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric; `scale` converts stored values to displayed ones (0.625 -> 62.5%)."""

    name: str
    label: str
    unit: str = ""
    level_suffix: str = ""
    scale: float = 1.0
    digits: int = 3
    better: Better = "more"

    def level(self, value: float | None) -> str:
        """A value as text: 62.5%, 5.01, or n/a."""
        return "n/a" if value is None or not isfinite(value) else f"{self.number(value)}{self.level_suffix}"

    def number(self, value: float | None) -> str:
        """A value without its unit."""
        if value is None or not isfinite(value):
            return "n/a"
        return f"{value * self.scale:,.{self.digits}f}".replace("-", MINUS)

    def signed(self, value: float | None) -> str:
        """A difference without its unit: +0.4."""
        return signed(None if value is None else value * self.scale, self.digits)

    def difference(self, value: float | None) -> str:
        """A difference with its unit: +0.4 points."""
        text = self.signed(value)
        return text if text == "n/a" or not self.unit else f"{text} {self.unit}"

    def size(self, value: float | None) -> str:
        """An unsigned difference with its unit: 4.7 points."""
        if value is None:
            return "n/a"
        return f"{self.number(abs(value))} {self.unit}".rstrip()

    def short(self) -> str:
        """A short name for narrow tables: accuracy %, KL, nats."""
        unit = f" {self.level_suffix}" if self.level_suffix else f", {self.unit}" if self.unit else ""
        words = _SHORT.get(self.label, self.label)
        if "pass@" in words:
            words = words[words.index("pass@") :].rstrip(")")
        return f"{words}{unit}"

    def axis(self) -> str:
        """The label of an axis of levels."""
        unit = self.level_suffix.strip() or self.unit
        return f"{self.label} ({unit})" if unit else self.label


def signed(value: float | None, digits: int) -> str:
    """A number with its sign and a true minus; one that would round to zero gets up to two digits more.

    So that no end of an interval reads as zero when it is not; smaller ones are +0.
    """
    if value is None or not isfinite(value):
        return "n/a"
    digits = next((more for more in (digits, digits + 1, digits + 2) if round(value, more)), digits)
    return f"{round(value, digits) + 0.0:+,.{digits}f}".replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """A positive quantity with about this many significant digits: 1,911, 637, 2.41, 0.0004."""
    if value is None or not isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - floor(log10(abs(value))))
    return f"{value:,.{places}f}".replace("-", MINUS)


def plain(text: str) -> str:
    """The text in ASCII, for terminals without Unicode."""
    for symbol, ascii_text in PLAIN.items():
        text = text.replace(symbol, ascii_text)
    return text.encode("ascii", "replace").decode()


PLAIN = {
    MINUS: "-",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MIDDLE DOT}": "|",
    "\N{TILDE OPERATOR}": "~",
    "\N{BLACK UP-POINTING TRIANGLE}": "+",
    "\N{BLACK DOWN-POINTING TRIANGLE}": "-",
    "\N{BALLOT X}": "x",
    "\N{HORIZONTAL ELLIPSIS}": "...",
}

_SHORT = {
    "held-out accuracy": "accuracy",
    "answers cut at the limit": "cut answers",
    "KL from the SFT model": "KL",
    "accuracy, lenient reading": "lenient accuracy",
    "empty answers": "empty",
    "repetitive answers": "repetitive",
}
_KNOWN: dict[str, tuple[str, str, Better, int]] = {
    "accuracy_flexible": ("accuracy, lenient reading", "", "more", 1),
    "accuracy": ("accuracy", "", "more", 1),
    "avg_reward": ("reward", "", "more", 3),
    "avg_response_length": ("answer length", "tokens", "neither", 1),
    "truncated_fraction": ("answers cut at the limit", "", "less", 1),
    "kl": ("KL from the SFT model", "nats", "less", 2),
    "kl_token": ("KL per token", "nats", "less", 3),
    "perplexity": ("perplexity", "", "less", 2),
    "gold": ("gold reward", "", "more", 2),
    "empty_fraction": ("empty answers", "", "less", 1),
    "repeated_fraction": ("repetitive answers", "", "less", 1),
}


def is_share(name: str) -> bool:
    """Whether a metric is a share: stored from 0 to 1, displayed in percent and points."""
    return any(word in name for word in ("accuracy", "pass_at", "fraction"))


def metric_named(name: str) -> Metric:
    """The metric with this logged name; an unknown metric is displayed by its name."""
    leaf = name.rsplit("/", 1)[-1].removeprefix("start_")
    label, unit, better, digits = _KNOWN.get(leaf, (leaf.replace("_", " "), "", "more", 3))
    if leaf.startswith("pass_at_"):
        tries = leaf.removeprefix("pass_at_")
        label = f"right in {tries} tries (pass@{tries})"
    if name.startswith(("final/", "eval/")) and leaf == "accuracy":
        label = "held-out accuracy" if name.startswith("final/") else "validation accuracy"
    if name in metric_names.LOWER_IS_BETTER:
        better = "less"
    if is_share(name):
        return Metric(name=name, label=label, unit="points", level_suffix="%", scale=100.0, digits=1, better=better)
    return Metric(name=name, label=label, unit=unit, digits=digits, better=better)


_SPELLINGS = {
    "dr_grpo": "Dr. GRPO",
    "reinforce_pp": "REINFORCE++",
    "reinforce": "REINFORCE",
    "pairwise": "Pairwise",
}


def method_label(method: str) -> str:
    """The display name of a method: grpo -> GRPO, dr_grpo -> Dr. GRPO; settings stay as typed."""
    method, *settings = method.split(" ")
    spelled = _SPELLINGS.get(method, method.replace("_", " ").upper())
    return " ".join([spelled, *settings])


def listed(words: list[str], last: str = "and") -> str:
    """One, two and three."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else "none"


def counted(number: int, word: str) -> str:
    """1 seed, 3 seeds."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def capitalized(text: str) -> str:
    """The text with its first letter in upper case, the rest unchanged: held-out KL -> Held-out KL."""
    return text[:1].upper() + text[1:]

"""Judges leave their endpoints: when, who says so, and what to use then."""

from datetime import date, timedelta

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge

SOON = timedelta(days=30)


def day(text: str | None) -> date | None:
    """A date written YYYY-MM-DD; None for nothing and for what is no date."""
    try:
        return date.fromisoformat(text[:10]) if text else None
    except ValueError:
        return None


def check_not_retired(judge: Judge, told: str | None, today: date) -> None:
    """Raise UserError when the model has left: by the endpoint's own date, else by the reported one."""
    end = day(told) or day(judge.shutdown_date)
    if end is not None and end <= today:
        who = "its endpoint" if day(told) else "judge.shutdown_date"
        raise UserError(f"judge.model={judge.model} left on {end} (says {who}).{_next(judge)}")


def format_warning(judge: Judge, known: str | None, today: date) -> str | None:
    """What to say when the model is about to leave, or has left since it judged."""
    end = day(known)
    if end is None or end > today + SOON:
        return None
    verb = "leaves" if end > today else "left"
    return f"The judge {judge.model} {verb} its endpoint on {end}: what it said stays in the cache.{_next(judge)}"


def _next(judge: Judge) -> str:
    return f" Use judge={judge.successor} for new studies." if judge.successor else " Choose another judge."

"""Shutdown dates of judge models: checks that a model is available and warns before it is retired."""

from datetime import date, timedelta

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge

WARNING_PERIOD = timedelta(days=30)


def parse_date(text: str | None) -> date | None:
    """Parse a date YYYY-MM-DD; None for an empty or invalid text."""
    try:
        return date.fromisoformat(text[:10]) if text else None
    except ValueError:
        return None


def check_not_retired(judge: Judge, reported: str | None, today: date) -> None:
    """Raise UserError if the model was shut down, by the date of the endpoint or else by judge.shutdown_date."""
    end = parse_date(reported) or parse_date(judge.shutdown_date)
    if end is not None and end <= today:
        source = "its endpoint" if parse_date(reported) else "judge.shutdown_date"
        raise UserError(f"judge.model={judge.model} was shut down on {end} (according to {source}).{_next(judge)}")


def format_warning(judge: Judge, known: str | None, today: date) -> str | None:
    """Warning for a model that is shut down within 30 days or was shut down since it judged; None otherwise."""
    end = parse_date(known)
    if end is None or end > today + WARNING_PERIOD:
        return None
    verb = "will be" if end > today else "was"
    return f"The judge {judge.model} {verb} shut down on {end}; its verdicts remain in the cache.{_next(judge)}"


def _next(judge: Judge) -> str:
    return f" Use judge={judge.successor} for new studies." if judge.successor else " Choose another judge."

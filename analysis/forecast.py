"""Power and cost forecast of a planned study: detectable effects, judge cost, and missing requirements.

`python -m analysis.forecast` reads a JSON object with the fields of Question from stdin and writes the forecast as JSON
to stdout, computed by the functions of the report.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from typing import Any, TypeVar

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge

from .judge import endpoint, model_retirement
from .judge.answer_pairs import AnswerPair, sampling_key
from .judge.panel import Panel, add_second_judge, judge_from_config
from .judge.prompt import ORDERS, Template
from .judge.spending_limit import CHARACTERS_PER_TOKEN, expected_price
from .judge.trial import Trial
from .statistics.power import minimum_detectable_d, minimum_detectable_d_z

SAMPLED = 100
"""Number of prompts from which the price per call is estimated."""
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A planned study."""

    seeds: Mapping[str, Sequence[int]]
    """The seeds of each method."""
    paired: bool
    """Whether methods are compared seed by seed."""
    judge: Any
    """The config section `judge`."""
    prompts: Sequence[Mapping[str, str]]
    """The test prompts: id, prompt and reference."""
    answer_tokens: float
    """Expected length of an answer, in tokens."""


def main() -> None:
    """Read a question from stdin and write the forecast to stdout."""
    sys.stdout.write(json.dumps(answer(Question(**json.load(sys.stdin)), datetime.now(UTC).date())))


def answer(question: Question, today: date) -> dict[str, Any]:
    """The forecast of a study as JSON values.

    `effects`: smallest detectable d of each two methods; `judges`: calls and dollars; `problems`: errors that the
    report would raise after the runs.
    """
    problems: list[str] = []
    panel = _attempt(lambda: _panel(question.judge), problems)
    judges = [judge for judge in ((panel.judge, panel.second) if panel else ()) if judge]
    for judge in judges:
        _attempt(partial(model_retirement.check_not_retired, judge, None, today), problems)
        if judge.mode == "ask":
            _attempt(partial(endpoint.read_api_key, judge), problems)
    if any(judge.mode == "ask" for judge in judges) and find_spec("openai") is None:
        problems.append("the judge requires the openai package: pip install -e '.[judge]'")
    return {
        "effects": effects(question),
        "judges": [cost(judge, question) for judge in judges],
        "problems": list(dict.fromkeys(problems)),
    }


def effects(question: Question) -> list[dict[str, Any]]:
    """The smallest standardized effect that each two methods detect with 80% power."""
    found = []
    for first, second in combinations(question.seeds, 2):
        one, other = set(question.seeds[first]), set(question.seeds[second])
        smallest = (
            minimum_detectable_d_z(len(one & other))
            if question.paired
            else (minimum_detectable_d(len(one), len(other)))
        )
        found.append({"methods": [first, second], "seeds": [len(one), len(other)], "smallest": smallest})
    return found


def cost(judge: Judge, question: Question) -> dict[str, Any]:
    """Number of judge calls and their price, if no call is repeated."""
    chosen = sorted(question.prompts, key=lambda row: sampling_key(row["id"]))[: judge.max_prompts]
    seed_pairs = sum(len(set(question.seeds[a]) & set(question.seeds[b])) for a, b in combinations(question.seeds, 2))
    template, calls = Template(judge), len(chosen) * seed_pairs * len(ORDERS)
    text = "x" * round(question.answer_tokens * CHARACTERS_PER_TOKEN)
    some = chosen[:: max(len(chosen) // SAMPLED, 1)]
    pairs = [AnswerPair("one", "other", 0, row["id"], row["prompt"], row["reference"], (text, text)) for row in some]
    each = sum(expected_price(Trial(template, pair, 0).request, judge) for pair in pairs) / max(len(pairs), 1)
    return {
        "model": judge.model,
        "calls": calls,
        "dollars": each * calls,
        "limit": judge.max_dollars,
        "key": judge.api_key_env,
    }


def _panel(section: Any) -> Panel | None:
    judge = judge_from_config(section)
    return None if judge is None else add_second_judge(judge)


def _attempt(what: Callable[[], Found], problems: list[str]) -> Found | None:
    try:
        return what()
    except UserError as error:
        problems.append(str(error))
        return None


if __name__ == "__main__":
    main()

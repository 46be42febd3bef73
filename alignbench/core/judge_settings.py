"""The knobs of a language model that judges answers in pairs; a run declares them, the analysis uses them."""

from dataclasses import dataclass
from typing import Literal

from .field_types import Count, NonNegative, Positive, Size


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Dollars for a million tokens."""

    input: NonNegative
    """What is sent."""
    cached_input: NonNegative
    """What is sent and was in the provider's own cache."""
    output: NonNegative
    """What is written, reasoning included."""


@dataclass(frozen=True, kw_only=True)
class NoJudge:
    """Nobody compares answers; the verifier or the reward decides alone."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint that says which of two answers is better.

    A parameter that is null is not sent, for models that refuse it.
    """

    model: str
    """The model's name at the endpoint; a dated snapshot where there is one."""
    base_url: str
    """The endpoint, up to and without /chat/completions."""
    api_key_env: str | None
    """The environment variable that holds the key; null sends none."""
    family: tuple[str, ...]
    """Words in a policy's name that make it a relative of the judge, which may then favor it."""
    mode: Literal["ask", "cache_only"]
    """Cache_only never calls the endpoint: what was not judged before stays unjudged."""
    max_prompts: Count
    """Prompts to judge on; a fixed sample of them where there are more."""
    max_chars: Count
    """Characters of a prompt or an answer that the judge is shown; longer ones are cut, and counted."""
    criteria: str
    """What makes an answer better."""
    temperature: NonNegative | None
    """Sampling temperature."""
    seed: Size | None
    """Sampling seed; endpoints do not promise to obey it, the cache is what makes a report repeatable."""
    reasoning_effort: str | None
    """How much a reasoning model may think."""
    json_schema: bool
    """Whether the endpoint can be held to a JSON schema; without, the verdict is read from the text."""
    token_limit: Literal["max_completion_tokens", "max_tokens"]
    """The name of the limit on what is written; older servers know only the second."""
    max_completion_tokens: Count
    """Tokens the judge may write for one verdict."""
    reasks: Size
    """How often to ask again when no verdict came back."""
    concurrency: Count
    """Calls under way at a time."""
    timeout_seconds: Positive
    """How long to wait for one answer."""
    retries: Size
    """How often a call that failed on the way is repeated."""
    prices: Prices
    """What a call costs."""
    max_dollars: NonNegative | None
    """Judging of a study stops before it has cost more than this, with what was judged so far; null sets no limit."""
    shutdown_date: str | None
    """When the model is reported to leave the endpoint (YYYY-MM-DD); the endpoint's own date goes first."""
    successor: str | None
    """The option of this group to change to then."""
    second: str | None
    """Another option of this group that judges the same pairs, to see whether two judges agree."""
    human_labels: str | None
    """A JSON-lines file with what people preferred: prompt_id, seed, methods (two), winner (one of them, or tie)."""

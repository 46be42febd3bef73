"""Settings of the LLM judge, which compares two answers; a run declares them, the analysis uses them."""

from dataclasses import dataclass
from typing import Literal

from .field_types import Count, NonNegative, Positive, Size


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in dollars per million tokens."""

    input: NonNegative
    """Input tokens."""
    cached_input: NonNegative
    """Input tokens in the provider's cache."""
    output: NonNegative
    """Output tokens, reasoning included."""


@dataclass(frozen=True, kw_only=True)
class NoJudge:
    """No judge: the analysis uses the metrics of the runs only."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint that decides which of two answers is better.

    Parameters that are null are not sent, for models that reject them.
    """

    model: str
    """Name of the model at the endpoint; use a dated snapshot where one exists."""
    base_url: str
    """URL of the endpoint, without /chat/completions."""
    api_key_env: str | None
    """Environment variable with the API key; null sends no key."""
    family: tuple[str, ...]
    """Substrings of policy names that belong to the judge's model family, which the judge may favor."""
    mode: Literal["ask", "cache_only"]
    """ask calls the endpoint for pairs that are not in the cache; cache_only never calls it."""
    max_prompts: Count
    """Maximum number of prompts to judge; of more prompts a fixed sample is used."""
    max_chars: Count
    """Maximum characters of a prompt or answer sent to the judge; longer ones are truncated and counted."""
    criteria: str
    """Criteria by which the judge compares answers."""
    temperature: NonNegative | None
    """Sampling temperature."""
    seed: Size | None
    """Sampling seed. Endpoints do not guarantee determinism; reports are reproducible because of the cache."""
    reasoning_effort: str | None
    """Reasoning effort of a reasoning model."""
    json_schema: bool
    """Whether the endpoint supports JSON schemas; otherwise the verdict is parsed from the text."""
    token_limit: Literal["max_completion_tokens", "max_tokens"]
    """Name of the request parameter for the output limit; older servers only support max_tokens."""
    max_completion_tokens: Count
    """Maximum output tokens for one verdict."""
    reasks: Size
    """Repetitions of a call that returned no verdict."""
    concurrency: Count
    """Maximum number of concurrent calls."""
    timeout_seconds: Positive
    """Timeout of a call, in seconds."""
    retries: Size
    """Retries of a call that failed with a transport error."""
    prices: Prices
    """Prices of the model."""
    max_dollars: NonNegative | None
    """Spending limit for judging a study, in dollars; judging stops before it is exceeded. null sets no limit."""
    shutdown_date: str | None
    """Announced retirement date of the model (YYYY-MM-DD); a date reported by the endpoint takes precedence."""
    successor: str | None
    """Option of this config group to use after that date."""
    second: str | None
    """Another option of this config group that judges the same pairs, to measure agreement of the two judges."""
    human_labels: str | None
    """A JSON Lines file of human labels: prompt_id, seed, methods (two), winner (one of them, or tie)."""

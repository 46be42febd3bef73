"""The endpoint that judges: one call at a time, over the openai client; errors sorted into what to do about them."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge

from .prompt import Request
from .verdicts import Reply

if TYPE_CHECKING:
    import openai

TOO_LONG = "context_length_exceeded"


class RequestRejected(UserError):
    """Asking again would not help: no money, no such model, a wrong key or parameter."""


class EndpointUnavailable(Exception):
    """No answer after all retries: the network, a timeout, or a server in trouble."""


@dataclass(frozen=True)
class Bought:
    """A reply and all that was returned with it."""

    reply: Reply
    raw: str


class Endpoint:
    """A connection to the judge of one config. Raises UserError where the key or the openai package is missing."""

    def __init__(self, judge: Judge) -> None:
        try:
            import openai
        except ImportError as error:
            raise UserError("a judge needs the openai package: pip install -e '.[judge]'") from error
        self._judge, self._key, self._errors = judge, read_api_key(judge), openai
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=judge.base_url,
            timeout=judge.timeout_seconds,
            max_retries=judge.retries,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=judge.timeout_seconds, event_hooks={"response": [_no_retry_without_money]}
            ),
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    async def ask(self, request: Request) -> Bought:
        """Send one request. Raises RequestRejected or EndpointUnavailable; a refusal is a reply too."""
        try:
            raw = (await self._client.chat.completions.with_raw_response.create(**request.body)).text
        except (self._errors.APIConnectionError, self._errors.InternalServerError) as error:
            raise EndpointUnavailable(self._words(error)) from error
        except self._errors.RateLimitError as error:
            if _code(error) == "insufficient_quota":
                raise RequestRejected(f"{self._judge.base_url}: no money left there ({self._words(error)})") from error
            raise EndpointUnavailable(self._words(error)) from error
        except self._errors.APIStatusError as error:
            if _code(error) in (TOO_LONG, "content_filter"):
                return _unanswered("length" if _code(error) == TOO_LONG else "content_filter", request, error)
            raise self._refusal(error) from error
        return Bought(_reply(raw, request), raw)

    async def shutdown_date(self) -> str | None:
        """When the endpoint says that the model leaves; None where it says nothing or has no list of models."""
        try:
            raw = (
                await self._client.with_options(max_retries=1).models.with_raw_response.retrieve(self._judge.model)
            ).text
        except self._errors.APIConnectionError as error:
            raise RequestRejected(f"{self._judge.base_url} cannot be reached: {self._words(error)}") from error
        except self._errors.AuthenticationError as error:
            raise self._refusal(error) from error
        except self._errors.APIError:
            return None  # many servers have no such page; the first question will show whether the model is there
        try:
            date = json.loads(raw).get("shutdown_date")
        except (json.JSONDecodeError, AttributeError):
            return None
        return str(date)[:10] if date else None

    def _words(self, error: "openai.APIError") -> str:
        """What the server said, without the key."""
        body = error.body if isinstance(error.body, dict) else {}
        told = str(body.get("message") or error.message or type(error).__name__)
        return " ".join((told.replace(self._key, "***") if self._key else told).split())[:300]

    def _refusal(self, error: "openai.APIStatusError") -> RequestRejected:
        return RequestRejected(f"{self._judge.base_url} refuses: {self._words(error)}{self._remedy(error)}")

    def _remedy(self, error: "openai.APIStatusError") -> str:
        judge = self._judge
        if error.status_code == 404:
            other = f"; judge={judge.successor} is the successor" if judge.successor else ""
            return f" (is judge.model={judge.model} there, and judge.base_url right?{other})"
        if error.status_code in (401, 403):
            return (
                f" (look at the environment variable {judge.api_key_env})"
                if judge.api_key_env
                else (" (name the environment variable with the key in judge.api_key_env)")
            )
        return " (a parameter that the model does not take is left out with judge.<parameter>=null)"


def read_api_key(judge: Judge) -> str | None:
    """What opens the endpoint; None where it asks for nothing. Raises UserError where it is not in the environment."""
    if judge.api_key_env is None:
        return None
    found = os.environ.get(judge.api_key_env, "").strip()
    if not found:
        raise UserError(
            f"judge.api_key_env={judge.api_key_env}: that environment variable is not set. Put the key of "
            f"{judge.base_url} into it, or use judge.mode=cache_only, which asks nobody."
        )
    return found


async def _no_retry_without_money(response: Any) -> None:
    """A 429 for an empty account is final; the client's own header says so, else it would wait and try again."""
    if response.status_code == 429 and b"insufficient_quota" in await response.aread():
        response.headers["x-should-retry"] = "false"


def _code(error: "openai.APIError") -> str | None:
    body = error.body if isinstance(error.body, dict) else {}
    return error.code or body.get("type")


def _reply(raw: str, request: Request) -> Reply:
    """The reply in a response body; a body that is no chat completion is an empty reply."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage") or {}
        content, refusal = message.get("content"), message.get("refusal")
    except (json.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        return Reply(None, None, "malformed", "", None, request.size // 4, 0, 0)
    return Reply(
        content=None if content is None else str(content),
        refusal=None if refusal is None else str(refusal),
        finish=str(choice.get("finish_reason") or "stop"),
        model=str(body.get("model") or ""),
        fingerprint=body.get("system_fingerprint"),
        input_tokens=int(usage.get("prompt_tokens", request.size // 4)),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens", len(str(content or "")) // 4)),
    )


def _unanswered(finish: str, request: Request, error: "openai.APIStatusError") -> Bought:
    """The server would not read this question: an outcome of the pair, kept like any other."""
    return Bought(Reply(None, None, finish, "", None, 0, 0, 0), json.dumps({"error": str(error.body)}))

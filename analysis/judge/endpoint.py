"""Client of the judge's endpoint (OpenAI API): sends a request, and classifies errors by their remedy."""

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

CONTEXT_TOO_LONG = "context_length_exceeded"


class RequestRejected(UserError):
    """A permanent error: insufficient quota, unknown model, invalid key or unsupported parameter."""


class EndpointUnavailable(Exception):
    """No response after all retries: network error, timeout or server error."""


@dataclass(frozen=True)
class ReceivedReply:
    """A parsed reply and the raw response body."""

    reply: Reply
    raw: str


class Endpoint:
    """Connection to the endpoint of a judge. Raises UserError if the API key or the openai package is missing."""

    def __init__(self, judge: Judge) -> None:
        try:
            import openai
        except ImportError as error:
            raise UserError("the judge requires the openai package: pip install -e '.[judge]'") from error
        self._judge, self._key, self._errors = judge, read_api_key(judge), openai
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=judge.base_url,
            timeout=judge.timeout_seconds,
            max_retries=judge.retries,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=judge.timeout_seconds, event_hooks={"response": [_no_retry_without_quota]}
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def send(self, request: Request) -> ReceivedReply:
        """Send one request. Raises RequestRejected or EndpointUnavailable; a refusal is a reply too."""
        try:
            raw = (await self._client.chat.completions.with_raw_response.create(**request.body)).text
        except (self._errors.APIConnectionError, self._errors.InternalServerError) as error:
            raise EndpointUnavailable(self._server_message(error)) from error
        except self._errors.RateLimitError as error:
            if _code(error) == "insufficient_quota":
                raise RequestRejected(
                    f"{self._judge.base_url}: quota exhausted ({self._server_message(error)})"
                ) from error
            raise EndpointUnavailable(self._server_message(error)) from error
        except self._errors.APIStatusError as error:
            if _code(error) in (CONTEXT_TOO_LONG, "content_filter"):
                return _unprocessed("length" if _code(error) == CONTEXT_TOO_LONG else "content_filter", request, error)
            raise self._rejection(error) from error
        return ReceivedReply(_reply(raw, request), raw)

    async def fetch_shutdown_date(self) -> str | None:
        """Fetch the shutdown date of the model (YYYY-MM-DD); None if the endpoint does not report one."""
        try:
            raw = (
                await self._client.with_options(max_retries=1).models.with_raw_response.retrieve(self._judge.model)
            ).text
        except self._errors.APIConnectionError as error:
            raise RequestRejected(f"{self._judge.base_url} is unreachable: {self._server_message(error)}") from error
        except self._errors.AuthenticationError as error:
            raise self._rejection(error) from error
        except self._errors.APIError:
            return None  # many servers do not list models; the first request shows whether the model exists
        try:
            date = json.loads(raw).get("shutdown_date")
        except (json.JSONDecodeError, AttributeError):
            return None
        return str(date)[:10] if date else None

    def _server_message(self, error: "openai.APIError") -> str:
        """The server's error message, with the API key removed."""
        body = error.body if isinstance(error.body, dict) else {}
        message = str(body.get("message") or error.message or type(error).__name__)
        return " ".join((message.replace(self._key, "***") if self._key else message).split())[:300]

    def _rejection(self, error: "openai.APIStatusError") -> RequestRejected:
        return RequestRejected(
            f"{self._judge.base_url} rejected the request: {self._server_message(error)}{self._remedy(error)}"
        )

    def _remedy(self, error: "openai.APIStatusError") -> str:
        judge = self._judge
        if error.status_code == 404:
            other = f"; judge={judge.successor} is its successor" if judge.successor else ""
            return (
                f" (check that the endpoint serves judge.model={judge.model} and that judge.base_url is correct{other})"
            )
        if error.status_code in (401, 403):
            return (
                f" (check the environment variable {judge.api_key_env})"
                if judge.api_key_env
                else (" (set judge.api_key_env to the name of the environment variable that holds the key)")
            )
        return " (omit a parameter that the model does not support with judge.<parameter>=null)"


def read_api_key(judge: Judge) -> str | None:
    """Read the API key from the environment; None if the endpoint needs no key. Raises UserError if it is not set."""
    if judge.api_key_env is None:
        return None
    found = os.environ.get(judge.api_key_env, "").strip()
    if not found:
        raise UserError(
            f"judge.api_key_env={judge.api_key_env}: the environment variable is not set. Set it to the API key of "
            f"{judge.base_url}, or use judge.mode=cache_only, which makes no calls."
        )
    return found


async def _no_retry_without_quota(response: Any) -> None:
    """Mark a 429 for an exhausted quota as final; otherwise the client would retry it."""
    if response.status_code == 429 and b"insufficient_quota" in await response.aread():
        response.headers["x-should-retry"] = "false"


def _code(error: "openai.APIError") -> str | None:
    body = error.body if isinstance(error.body, dict) else {}
    return error.code or body.get("type")


def _reply(raw: str, request: Request) -> Reply:
    """Parse a response body; a body that is not a chat completion gives a malformed reply."""
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
        system_fingerprint=body.get("system_fingerprint"),
        input_tokens=int(usage.get("prompt_tokens", request.size // 4)),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens", len(str(content or "")) // 4)),
    )


def _unprocessed(finish: str, request: Request, error: "openai.APIStatusError") -> ReceivedReply:
    """The reply for a request that the server did not process: an outcome of the answer pair, cached like any other."""
    return ReceivedReply(Reply(None, None, finish, "", None, 0, 0, 0), json.dumps({"error": str(error.body)}))

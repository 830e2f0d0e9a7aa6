"""A chat endpoint that speaks OpenAI's protocol: GPT-4o, vLLM, llama.cpp, `transformers serve`.

Requests that fail for a while (a busy server, a rate limit, a lost connection) are tried again with
growing pauses, or after the pause the server asks for; others stop with the server's own words.
"""

import base64
import random
import threading
import time
from dataclasses import dataclass

import httpx

PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
TRIES, LONGEST_PAUSE = 8, 60.0


class EndpointError(RuntimeError):
    """An endpoint that does not answer as it should; its text says what it said."""


@dataclass(frozen=True)
class Reply:
    """What a model wrote, and the tokens it was charged for."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def picture_message(picture: bytes, form: str, text: str) -> dict:
    """Return what a person sends: an encoded picture ("jpeg" or "png"), then words."""
    address = f"data:image/{form};base64,{base64.b64encode(picture).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": text},
    ]
    return {"role": "user", "content": content}


class Endpoint:
    """Asks one model; may be used by several threads.

    Args:
        url: up to and without "/chat/completions".
        model: its name there.
        key: sent as a bearer token; None for a server without.
        per_minute: requests in a minute at most; 0 for no limit.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self, url: str, model: str, key: str | None, per_minute: float, timeout: float = 180.0
    ):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.model, self.pause = model, 60 / per_minute if per_minute else 0.0
        self.client = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._turn, self._next = threading.Lock(), 0.0

    def ask(
        self,
        messages: list[dict],
        seed: int,
        max_tokens: int,
        schema: dict | None = None,
        temperature: float | None = None,
    ) -> Reply:
        """Return the answer to a talk.

        Args:
            max_tokens: of the answer, after which it is cut.
            schema: the server is asked for JSON of this form.
            temperature: of the drawing of words, 0 for the likeliest; None leaves it to the server.

        Raises:
            EndpointError: the request is refused, or fails again and again.
        """
        request = {"model": self.model, "messages": messages, "seed": seed}
        request["max_tokens"] = max_tokens
        if temperature is not None:
            request["temperature"] = temperature
        if schema:
            form = {"name": "fea", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        problem = ""
        for attempt in range(TRIES):
            self._wait_for_turn()
            try:
                response = self.client.post("/chat/completions", json=request)
            except httpx.TransportError as error:
                problem, asked = f"{type(error).__name__}: {error}", None
            else:
                if response.status_code == 200:
                    return self._reply(response)
                problem = f"{response.status_code}: {response.text[:300]}"
                if response.status_code not in PASSING:
                    raise EndpointError(f"{self.client.base_url} refuses: {problem}")
                asked = response.headers.get("retry-after", "")
            usual = min(LONGEST_PAUSE, 2.0**attempt) * (0.5 + random.random())
            time.sleep(float(asked) if asked and asked.replace(".", "").isdigit() else usual)
        raise EndpointError(f"{self.client.base_url} fails again and again: {problem}")

    def _wait_for_turn(self) -> None:
        with self._turn:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self.pause
        time.sleep(start - now)

    def _reply(self, response: httpx.Response) -> Reply:
        try:
            answer = response.json()
            text = answer["choices"][0]["message"]["content"] or ""
            usage = answer.get("usage") or {}
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                f"{self.client.base_url} answers in another form: {response.text[:300]}"
            ) from error
        return Reply(text, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))

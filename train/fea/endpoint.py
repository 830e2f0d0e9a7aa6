"""A chat endpoint that speaks OpenAI's protocol: GPT-4o, vLLM, llama.cpp, `transformers serve`.

Requests that fail for a while (a busy server, a rate limit, a lost connection) are tried again with
growing pauses, or after the pause the server asks for; others stop with the server's own words. A
talk that is refused alone, by a filter of contents say, is told apart from an endpoint that refuses
every talk.
"""

import base64
import io
import random
import threading
import time
from dataclasses import dataclass

import httpx
from PIL import Image

PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
OWN = (400, 413, 422)
"""Statuses that may be about this one talk."""
TRIES, LONGEST_PAUSE = 8, 60.0
IN_A_ROW = 3
"""Talks refused one after the other, after which the endpoint is greeted again."""


class EndpointError(RuntimeError):
    """An endpoint that does not answer as it should; its text says what it said."""


class Refused(EndpointError):
    """One talk that an endpoint refuses which answers others."""


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
        self._answers, self._refusals = False, 0
        self._limit, self._tempered = "max_tokens", True

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
            Refused: this talk alone is refused.
            EndpointError: every talk is refused, or the request fails again and again.
        """
        options: dict = {"seed": seed}
        if schema:
            form = {"name": "fea", "strict": True, "schema": schema}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        problem = ""
        for attempt in range(TRIES):
            self._wait_for_turn()
            try:
                response = self._post(messages, max_tokens, temperature, options)
            except httpx.TransportError as error:
                problem, asked = f"{type(error).__name__}: {error}", None
            else:
                if response.status_code == 200:
                    self._answers, self._refusals = True, 0
                    return self._reply(response)
                problem = f"{response.status_code}: {response.text[:300]}"
                if response.status_code not in PASSING:
                    alone = response.status_code in OWN and self._greets(max_tokens, options)
                    kind = Refused if alone else EndpointError
                    raise kind(f"{self.client.base_url} refuses: {problem}")
                asked = response.headers.get("retry-after", "")
            usual = min(LONGEST_PAUSE, 2.0**attempt) * (0.5 + random.random())
            time.sleep(float(asked) if asked and asked.replace(".", "").isdigit() else usual)
        raise EndpointError(f"{self.client.base_url} fails again and again: {problem}")

    def _post(
        self, messages: list[dict], max_tokens: int, temperature: float | None, options: dict
    ) -> httpx.Response:
        """Send a talk; the server's names for the options are learned from its refusals."""
        while True:
            request = {"model": self.model, "messages": messages, self._limit: max_tokens}
            if temperature is not None and self._tempered:
                request["temperature"] = temperature
            response = self.client.post("/chat/completions", json=request | options)
            refusal = response.text if response.status_code == 400 else ""
            # OpenAI's reasoning models name the limit otherwise and draw at their own temperature
            if "max_completion_tokens" in refusal and "max_tokens" in request:
                self._limit = "max_completion_tokens"
            elif "temperature" in refusal and "temperature" in request:
                self._tempered = False
            else:
                return response

    def _greets(self, max_tokens: int, options: dict) -> bool:
        """Whether the endpoint answers on pictures: it just did, or it does on a grey one."""
        self._refusals += 1
        if not self._answers or self._refusals % IN_A_ROW == 0:
            grey = io.BytesIO()
            Image.new("RGB", (64, 64), "grey").save(grey, "PNG")
            greeting = [picture_message(grey.getvalue(), "png", "What colour is this?")]
            try:
                response = self._post(greeting, max_tokens, None, options)
            except httpx.TransportError:
                return False
            self._answers = response.status_code == 200
        return self._answers

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

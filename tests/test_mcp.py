"""`analyze` as an MCP tool: what a language model's client is offered, and what it cannot reach."""

import ast
import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from browsing import StandIn, png, serve
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from train.fea.endpoint import picture_message


@pytest.fixture(scope="module")
def endpoint():
    demo, url = serve(StandIn())
    yield f"{url}gradio_api/mcp/"
    demo.close()


def call(endpoint: str, **arguments) -> tuple[list[str], str]:
    """Return the tools offered, and what the only one answers."""

    async def talk():
        async with streamable_http_client(endpoint) as (reading, writing, _):
            async with ClientSession(reading, writing) as session:
                await session.initialize()
                tools = (await session.list_tools()).tools
                result = await session.call_tool(tools[0].name, arguments)
                return [tool.name for tool in tools], result.content[0].text

    with ThreadPoolExecutor(1) as other:  # in this one the browser of other tests has its loop
        return other.submit(asyncio.run, talk()).result()


def test_the_only_tool_reads_a_photo_and_answers_a_question(endpoint, portrait):
    photo = picture_message(png(portrait)["buffer"], "png", "")["content"][0]["image_url"]["url"]
    tools, answer = call(endpoint, photo=photo, question="Is the smile real?")
    assert len(tools) == 1 and tools[0].endswith("analyze")
    (face,) = ast.literal_eval(answer)  # Gradio writes a value as Python does
    assert face["expression"] == "Happiness"
    assert face["answer"].startswith("You asked: Is the smile real?")


@pytest.mark.parametrize("photo", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x.png"])
def test_nothing_but_a_sent_photo_is_opened(endpoint, photo):
    _, answer = call(endpoint, photo=photo, question="")
    assert "expression" not in answer and "root:" not in answer
    refusals = "Send the photo itself", "Invalid file data format", "not allowed"
    assert any(refusal in answer for refusal in refusals)

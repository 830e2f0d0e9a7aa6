"""Nothing leaves the machine and nothing is kept; a killed page serves again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browsing import StandIn, png, serve, upload
from playwright.sync_api import expect

import page.layout
from page.layout import build_demo

ROOT = Path(__file__).parent.parent
WATCHED = """
import runpy, sys
def watch(event, args):
    if event == "socket.getaddrinfo":
        print("LOOKUP", args[0], flush=True)
    elif event == "socket.connect" and isinstance(args[1], tuple):
        print("CONNECT", args[1][0], flush=True)
sys.addaudithook(watch)
sys.argv = ["app.py"]
runpy.run_path("app.py", run_name="__main__")
"""
HERE = {"127.0.0.1", "localhost", "::1", "0.0.0.0", "None", os.uname().nodename}


class Server:
    """`app.py` in a process of its own whose every look-up and connection is written down."""

    def __init__(self, folder: Path):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.folder, self.log = folder, folder / "log.txt"
        self.start()

    def start(self) -> None:
        env = os.environ | {"FEALLM_PORT": str(self.port), "GRADIO_TEMP_DIR": str(self.folder)}
        del env["GRADIO_ANALYTICS_ENABLED"]  # the page itself must silence it
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WATCHED], cwd=ROOT, env=env, stdout=log, stderr=log
            )
        for _ in range(240):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.25)
        raise TimeoutError(self.log.read_text())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def foreign(self) -> set[str]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return {w[1] for w in lines if w and w[0] in ("LOOKUP", "CONNECT")} - HERE


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.process.kill()


def visit(browser, server, portrait) -> list[str]:
    """Upload, ask, and return the requests to anywhere else."""
    context = browser.new_context()
    requests: list[str] = []
    context.on("request", lambda r: requests.append(r.url))
    tab = context.new_page()
    tab.goto(server.url)
    upload(tab, png(portrait))
    expect(tab.locator(".verdict strong")).to_be_visible(timeout=60_000)
    tab.locator("#question textarea").fill("What is AU12?")
    tab.locator("#question textarea").press("Enter")
    expect(tab.locator("#chat .message.bot").last).to_contain_text("lip corner puller")
    context.close()
    return [u for u in requests if not u.startswith((server.url, "data:", "blob:"))]


def test_neither_server_nor_browser_speaks_to_the_outside(browser, server, portrait):
    assert visit(browser, server, portrait) == []
    assert server.foreign() == set()
    # the watch itself works
    code = WATCHED.split("sys.argv")[0] + "import socket; socket.getaddrinfo('localhost', 1)"
    heard = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOOKUP localhost" in heard.stdout


def test_a_killed_page_serves_again(browser, server, portrait):
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.start()
    assert visit(browser, server, portrait) == []


def test_uploads_and_exports_are_deleted(browser, monkeypatch, tmp_path, portrait):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(page.layout, "SWEEP_SECONDS", 1)
    monkeypatch.setattr(page.layout, "KEEP_SECONDS", 2)
    demo, url = serve(StandIn())
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(url)
    upload(tab, png(portrait))
    expect(tab.locator(".verdict strong")).to_be_visible()

    def kept() -> list[str]:
        return [p.suffix for p in tmp_path.rglob("*") if p.suffix in (".png", ".zip", ".webp")]

    assert {".png", ".zip"} <= set(kept())
    until = time.monotonic() + 30
    while kept() and time.monotonic() < until:
        time.sleep(0.5)
    assert kept() == []
    context.close()
    demo.close()


def test_the_promise_on_the_page_is_kept_with_room_to_spare():
    assert page.layout.SWEEP_SECONDS + page.layout.KEEP_SECONDS <= 3600
    assert build_demo(StandIn()).delete_cache == (
        page.layout.SWEEP_SECONDS,
        page.layout.KEEP_SECONDS,
    )

"""Nothing leaves the machine and nothing is kept; a killed page serves again."""

import datetime
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from browsing import StandIn, ask, png, serve, upload, upload_and_read, wait_until
from gradio.utils import get_upload_folder
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

import page.keeping
import page.layout
from benchmarks.soak import free_port
from page.keeping import end_answers, keep_clean, sweep_files, sweep_sessions
from page.layout import build_demo
from page.uploads import own_folder, temporary_folder
from page.visit import Question, Visit

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
        self.port = free_port()
        self.folder, self.log = folder / "feallm-uploads", folder / "log.txt"
        self.start()

    def start(self) -> None:
        env = os.environ | {"FEALLM_PORT": str(self.port), "GRADIO_TEMP_DIR": str(self.folder)}
        for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
            env.pop(name, None)  # the page itself must keep silent
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


def test_a_killed_page_serves_again_and_sweeps_what_it_left(browser, server, portrait):
    left = server.folder / "of-the-killed" / "photo.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"a face")
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    os.utime(left, (0, 0))  # as if it had been long ago
    server.start()
    assert visit(browser, server, portrait) == []
    assert not left.exists()


def test_uploads_exports_and_sessions_are_deleted(browser, monkeypatch, tmp_path, portrait):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "feallm-uploads"))
    monkeypatch.setattr(page.layout, "SWEEP_SECONDS", 1)
    demo, url = serve(StandIn(), keep=4)
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(url)
    upload_and_read(tab, portrait)
    with tab.expect_download():
        tab.get_by_role("button", name="Export").click()

    def kept() -> list[str]:
        return [p.suffix for p in tmp_path.rglob("*") if p.is_file()]

    def sessions() -> int:
        return len(demo.state_holder.session_data)

    assert {".png", ".zip"} <= set(kept()) and sessions() > 0
    wait_until(lambda: not kept() and not sessions(), 40)
    assert kept() == [] and sessions() == 0
    ask(tab, "Still there?")
    expect(tab.get_by_text("Add a photo first")).to_be_visible()
    expect(tab.locator("#upload")).to_be_visible()  # and there is room for one
    expect(tab.locator(".stage")).to_have_count(0)
    expect(tab.locator("#question textarea")).to_have_value("Still there?")
    context.close()
    demo.close()


def test_what_others_keep_in_the_temporary_folder_stays(monkeypatch, tmp_path):
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("keep me")
    os.utime(theirs, (0, 0))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="temporary_folder"):
        build_demo(StandIn())
    monkeypatch.setenv("GRADIO_TEMP_DIR", temporary_folder())
    folder = own_folder(get_upload_folder())
    assert folder.parent == tmp_path
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "face.png").write_text("delete me")
    os.utime(folder / "x" / "face.png", (0, 0))
    sweep_files(folder, 60)
    assert theirs.exists() and not (folder / "x" / "face.png").exists()
    assert temporary_folder() == str(folder)  # as where a page starts another


def test_uploads_lie_where_only_their_owner_can_read(monkeypatch, tmp_path):
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path(temporary_folder()).mkdir()  # as Gradio may
    folder = own_folder(temporary_folder())
    assert folder.parent == tmp_path and folder.name == f"feallm-uploads-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert own_folder(str(folder)) == folder
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(RuntimeError, match="somebody else's"):
        own_folder(str(folder))


def test_a_sweep_that_fails_is_not_the_last(monkeypatch, tmp_path):
    swept = []

    def fail_once(folder, age):
        swept.append(folder)
        if len(swept) == 1:
            raise FileNotFoundError("a folder that vanished")

    monkeypatch.setattr(page.keeping, "sweep_files", fail_once)
    keep_clean(SimpleNamespace(), tmp_path, 0.01, 60)
    assert wait_until(lambda: len(swept) > 1, 5)
    monkeypatch.setattr(page.keeping, "sweep_files", lambda folder, age: time.sleep(3600))


def test_the_first_photo_of_a_comparison_ages_too(monkeypatch):
    first = Visit(begun=time.time() - 100)
    for visit, kept in ((Visit(before=first), 0), (Visit(before=Visit()), 1)):
        session = SimpleNamespace(state_data={1: visit})
        holder = SimpleNamespace(
            time_last_used={"a": datetime.datetime.now()}, session_data={"a": session}
        )
        sweep_sessions(SimpleNamespace(state_holder=holder), 60)
        assert len(holder.session_data) == kept


def test_only_old_files_and_old_empty_folders_are_swept(tmp_path):
    old, new = tmp_path / "a" / "old.png", tmp_path / "b" / "new.png"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    sweep_files(tmp_path, 60)
    assert not old.exists() and new.exists()
    assert old.parent.exists()  # a photo may be on its way into it
    for path in (old, new):
        os.utime(path.parent, (0, 0))
    sweep_files(tmp_path, 60)
    assert not old.parent.exists() and new.exists()


def test_the_promise_on_the_page_is_kept_with_room_to_spare():
    assert page.layout.SWEEP_SECONDS + page.layout.KEEP_SECONDS <= 3600


def test_an_address_is_never_fetched(portrait):
    """Gradio itself would download it before any handler runs."""
    asked = []

    class Trap(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET

    trap = http.server.HTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=trap.serve_forever, daemon=True).start()
    demo, url = serve(StandIn())
    looked_up = []
    sys.addaudithook(lambda e, a: looked_up.append(a[0]) if e == "socket.getaddrinfo" else None)
    client = Client(url, verbose=False)
    before = len(looked_up)
    for address in (f"http://127.0.0.1:{trap.server_port}/face.png", "http://example.com/x.png"):
        photo = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(AppError):
            client.predict(photo, "", api_name="/analyze")
    assert asked == []
    assert not [host for host in looked_up[before:] if "127.0.0.1" not in str(host)]
    trap.shutdown()
    demo.close()


def test_the_queue_cannot_be_skipped():
    demo, url = serve(StandIn())
    answer = httpx.post(f"{url}gradio_api/run/analyze", json={"data": [None, ""]})
    assert answer.status_code in (401, 403, 404)
    demo.close()


def test_an_answer_for_somebody_who_is_gone_ends():
    mine, other = Visit(asked=Question(0, "Mine?")), Visit(asked=Question(0, "Theirs?"))
    sessions = {n: SimpleNamespace(state_data={1: v}) for n, v in (("a", mine), ("b", other))}
    demo = SimpleNamespace(state_holder=SimpleNamespace(session_data=sessions))
    end_answers(demo, "a")
    end_answers(demo, "never seen")
    assert mine.asked is None and other.asked is not None

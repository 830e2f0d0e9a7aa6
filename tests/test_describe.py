"""The FEA texts: what is asked, which answers are kept, and that nothing is asked for twice."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from feallm.facs import AUS, EXPRESSIONS, parse_analysis
from train.agreement import kind_of
from train.data import read_rows
from train.fea import compose, describe, endpoint
from train.fea.affwild2 import Frame
from train.fea.describe import complaints, findings, texts_of, write_offline
from train.fea.endpoint import Endpoint, EndpointError, Refused
from train.fea.journal import Journal

SMILE = Frame("v/00001.jpg", "v", 1, "train", "Happiness", (6, 12))
CALM = Frame("v/00009.jpg", "v", 9, "train", "Neutral", ())
GOOD = {
    "emotion_summary": "A joyful, engaging smile: this is happiness.",
    "facial_movements": "AU12 pulls the lip corners up, and AU6 lifts the cheeks.",
    "emotion_reasoning": [
        {"action_unit": 12, "explanation": "AU12 draws the smile"},
        {"action_unit": 6, "explanation": "The cheeks show that the smile reaches the eyes."},
    ],
}


def test_a_good_answer_becomes_three_texts_in_their_form():
    assert complaints(GOOD, SMILE) == []
    texts = texts_of(GOOD, SMILE)
    assert texts.summary == "Happiness. A joyful, engaging smile: this is happiness."
    assert texts.movement.startswith("Active action units: AU6 (cheek raiser), AU12 (lip corner")
    assert texts.reasoning == (
        "AU6: The cheeks show that the smile reaches the eyes. AU12 draws the smile. "
        "The face reads as Happiness."
    )
    assert [kind_of(t) for t in (texts.summary, texts.movement)] == ["summary", "movement"]
    none = {"emotion_summary": "Neutral.", "facial_movements": "At rest.", "emotion_reasoning": []}
    assert complaints(none, CALM) == []
    assert texts_of(none, CALM).reasoning.startswith("No action unit is active.")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"emotion_summary": "A sad face."}, "must name the expression Happiness"),
        ({"emotion_summary": "A lovely day."}, "must name the expression Happiness"),
        ({"emotion_summary": "Happiness, with AU4."}, "emotion_summary claims AU4"),
        ({"facial_movements": "AU12 is active."}, "leaves out AU6"),
        ({"facial_movements": "AU6, AU12 and AU9 act."}, "facial_movements claims AU9"),
        ({"facial_movements": "AU6, AU12 and the jaw drop."}, "facial_movements claims AU26"),
        ({"emotion_reasoning": GOOD["emotion_reasoning"][:1]}, "one entry for each active unit"),
        ({"emotion_reasoning": GOOD["emotion_reasoning"] * 2}, "one entry for each active unit"),
        ({"emotion_reasoning": ["AU6", "AU12"]}, "one entry for each active unit"),
        (
            {
                "emotion_reasoning": [
                    GOOD["emotion_reasoning"][0],
                    {"action_unit": 6, "explanation": " "},
                ]
            },
            "needs an explanation",
        ),
        (
            {
                "emotion_reasoning": [
                    GOOD["emotion_reasoning"][0],
                    {"action_unit": 6, "explanation": "With AU1 it shows joy."},
                ]
            },
            "explanation of AU6 claims AU1",
        ),
        ({"facial_movements": None}, "must be texts"),
    ],
)
def test_an_answer_that_leaves_the_labels_is_complained_of(change, complaint):
    assert any(complaint in c for c in complaints(GOOD | change, SMILE))


def test_an_answer_that_is_no_object_is_complained_of():
    for answer in ([], "text", {}, {"emotion_summary": "Happiness."}):
        assert "must be a JSON object" in complaints(answer, SMILE)[0]


def test_a_denied_unit_is_not_a_claim():
    text = "AU6 and AU12 act; there is no AU4."
    assert complaints(GOOD | {"facial_movements": text}, SMILE) == []


@pytest.mark.parametrize("index", range(40))
def test_our_own_writer_keeps_to_the_labels(index):
    aus = tuple(k for i, k in enumerate(AUS) if (index * 7 + i) % 5 == 0)
    frame = Frame("a", "v", 1, "train", EXPRESSIONS[index % 7], aus)
    texts = write_offline(frame, index, seed=0)
    assert texts == write_offline(frame, index, seed=0)
    assert parse_analysis(texts.summary).expression == frame.expression
    assert parse_analysis(texts.movement).aus == aus
    assert set(parse_analysis(texts.reasoning).aus) <= set(aus)


def test_what_the_model_is_told():
    assert findings(SMILE).splitlines()[:2] == ["Expression: Happiness", "Active action units:"]
    assert "- AU12 (lip corner puller): pulls the lip corners up and back" in findings(SMILE)
    assert findings(CALM).endswith("- none")


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    journal = Journal(tmp_path, ("described",))
    journal.add("described", {"image": "a"})
    with (tmp_path / "described.jsonl").open("a") as file:
        file.write('{"image": "b", "summ')
    again = Journal(tmp_path, ("described",))
    assert again.images("described") == ["a"]
    with (tmp_path / "described.jsonl").open("ab") as file:
        file.write('{"image": "’'.encode()[:-1])  # cut within a letter
    again = Journal(tmp_path, ("described",))
    again.add("described", {"image": "c"})
    assert Journal(tmp_path, ("described",)).images("described") == ["a", "c"]


class Scripted(BaseHTTPRequestHandler):
    """Answers with what a test has laid ready: (status, headers, content), the last for ever."""

    script: list[tuple[int, dict, str]] = []
    asked: list[dict] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(json.loads(body) | {"key": self.headers["authorization"]})
        status, headers, content = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on the loopback, for what only a server that misbehaves on demand can show."""
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.01)
    http = HTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    Scripted.script, Scripted.asked = [], []
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()


def reply(answer: object) -> tuple[int, dict, str]:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    usage = {"prompt_tokens": 300, "completion_tokens": 100}
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}], "usage": usage})


def test_what_fails_for_a_while_is_tried_again(server):
    Scripted.script = [(429, {"retry-after": "0.01"}, ""), (503, {}, ""), reply("here")]
    said = Endpoint(server, "m", "secret", 0).ask(
        [{"role": "user", "content": "?"}], 1, 9, {"type": "object"}
    )
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("here", 300, 100)
    assert len(Scripted.asked) == 3 and Scripted.asked[0]["key"] == "Bearer secret"
    assert Scripted.asked[0]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("script", "sentence", "requests"),
    [
        ((401, {}, "wrong key"), "refuses: 401: wrong key", 1),
        ((500, {}, "broken"), "again and again: 500: broken", endpoint.TRIES),
        ((200, {}, "no json"), "another form: no json", 1),
        ((200, {}, '{"choices": []}'), "another form", 1),
    ],
)
def test_what_cannot_succeed_is_said(server, script, sentence, requests):
    Scripted.script = [script]
    with pytest.raises(EndpointError, match=sentence):
        Endpoint(server, "m", None, 0).ask([], 1, 9)
    assert len(Scripted.asked) == requests


TALK = [{"role": "user", "content": "?"}]


def test_a_talk_that_is_refused_alone_is_told_apart(server):
    Scripted.script = [(400, {}, "content filter"), reply("hello"), (400, {}, "no"), reply("x")]
    asked = Endpoint(server, "m", None, 0)
    for sentence in ("content filter", "no"):
        with pytest.raises(Refused, match=sentence):
            asked.ask(TALK, 1, 9)
    assert len(Scripted.asked) == 3  # greeted once, with a picture
    assert "image_url" in json.dumps(Scripted.asked[1]["messages"])
    Scripted.script = [(400, {}, "no pictures any more")]
    with pytest.raises(EndpointError, match="no pictures") as refusal:
        asked.ask(TALK, 1, 9)
    assert not isinstance(refusal.value, Refused)  # the third in a row: greeted again
    Scripted.script = [(400, {}, "no such model")]
    with pytest.raises(EndpointError, match="no such model") as refusal:
        Endpoint(server, "m", None, 0).ask(TALK, 1, 9)
    assert not isinstance(refusal.value, Refused)


def test_todays_names_of_the_options_are_learned(server):
    Scripted.script = [
        (400, {}, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        (400, {}, "Unsupported value: 'temperature' does not support 0."),
        reply("here"),
    ]
    asked = Endpoint(server, "m", None, 0)
    assert asked.ask(TALK, 1, 9, temperature=0.0).text == "here"
    assert asked.ask(TALK, 1, 9, temperature=0.0).text == "here"
    sent = Scripted.asked[-1]
    assert sent["max_completion_tokens"] == 9 and not {"max_tokens", "temperature"} & sent.keys()
    assert len(Scripted.asked) == 4


def run(monkeypatch, tmp_path, *options) -> None:
    arguments = ["describe", "--frames", tmp_path / "frames.jsonl", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", [*map(str, arguments), *options])
    describe.main()


def write_frames(tmp_path, *frames: Frame) -> None:
    lines = [json.dumps(vars(f)) for f in frames]
    (tmp_path / "frames.jsonl").write_text("\n".join(lines) + "\n")
    for frame in frames:
        (tmp_path / frame.image).parent.mkdir(exist_ok=True)
        (tmp_path / frame.image).write_bytes(b"jpeg")


def test_answers_are_asked_for_again_with_the_complaint_and_never_twice(
    monkeypatch, tmp_path, server, capsys
):
    write_frames(tmp_path, SMILE, CALM)
    wrong = GOOD | {"facial_movements": "AU12 acts."}
    Scripted.script = [reply(wrong), reply(GOOD), reply("no JSON")]
    options = ["--images", str(tmp_path), "--endpoint", server, "--model", "m"]
    options += ["--concurrency", "1", "--price", "10", "30"]
    run(monkeypatch, tmp_path, *options)
    kept = Journal(tmp_path / "out", ("described", "dropped", "asked")).kept
    assert [e["image"] for e in kept["described"]] == [SMILE.image]
    assert [e["image"] for e in kept["dropped"]] == [CALM.image]
    assert [e["image"] for e in kept["asked"]] == [SMILE.image] * 2 + [CALM.image] * 3
    assert "leaves out AU6" in Scripted.asked[1]["messages"][-1]["content"]
    assert "1 described, 1 dropped, 5 answers, 0.03 paid" in capsys.readouterr().out
    run(monkeypatch, tmp_path, *options)
    assert len(Scripted.asked) == 5
    assert "0 frames to describe" in capsys.readouterr().out


def test_a_run_that_stopped_goes_on_with_the_tries_that_are_left(monkeypatch, tmp_path, server):
    write_frames(tmp_path, SMILE)
    Scripted.script = [reply("no JSON"), (401, {}, "no money left")]
    options = ["--images", str(tmp_path), "--endpoint", server, "--model", "m"]
    with pytest.raises(SystemExit, match="no money left"):
        run(monkeypatch, tmp_path, *options)
    Scripted.script, Scripted.asked = [reply("no JSON")], []
    run(monkeypatch, tmp_path, *options)
    assert len(Scripted.asked) == describe.TRIES - 1
    kept = Journal(tmp_path / "out", ("described", "dropped", "asked")).kept
    assert len(kept["dropped"]) == 1 and len(kept["asked"]) == describe.TRIES


def test_a_stopped_try_goes_on_with_its_complaint(monkeypatch, tmp_path, server):
    write_frames(tmp_path, SMILE)
    wrong = GOOD | {"facial_movements": "AU12 acts."}
    Scripted.script = [reply(wrong), (401, {}, "no money left")]
    options = ["--images", str(tmp_path), "--endpoint", server, "--model", "m"]
    with pytest.raises(SystemExit, match="no money left"):
        run(monkeypatch, tmp_path, *options)
    Scripted.script, Scripted.asked = [reply(GOOD)], []
    run(monkeypatch, tmp_path, *options)
    assert "leaves out AU6" in Scripted.asked[0]["messages"][-1]["content"]
    assert Journal(tmp_path / "out", ("described",)).images("described") == [SMILE.image]


def test_a_refused_face_is_dropped_and_the_others_go_on(monkeypatch, tmp_path, server):
    write_frames(tmp_path, SMILE, CALM)
    calm = {"emotion_summary": "Neutral.", "facial_movements": "None.", "emotion_reasoning": []}
    Scripted.script = [(400, {}, "content filter"), reply("hello"), reply(calm)]
    options = ["--images", str(tmp_path), "--endpoint", server, "--model", "m"]
    run(monkeypatch, tmp_path, *options, "--concurrency", "1")
    kept = Journal(tmp_path / "out", ("described", "dropped", "asked")).kept
    assert [e["image"] for e in kept["described"]] == [CALM.image]
    assert "content filter" in kept["dropped"][0]["complaints"][0]


def test_the_estimate_asks_nothing_and_needs_a_price_to_name_one(monkeypatch, tmp_path, capsys):
    write_frames(tmp_path, SMILE)
    run(monkeypatch, tmp_path, "--estimate")
    assert "tokens to read and 260 to write (--price tells the cost)" in capsys.readouterr().out
    run(monkeypatch, tmp_path, "--estimate", "--price", "1000", "10000")
    assert ", 3." in capsys.readouterr().out
    assert (tmp_path / "out" / "described.jsonl").read_text() == ""


def test_texts_of_two_writers_are_not_mixed(monkeypatch, tmp_path, server):
    write_frames(tmp_path, SMILE)
    run(monkeypatch, tmp_path)
    Scripted.script = [reply(GOOD)]
    options = ["--images", str(tmp_path), "--endpoint", server, "--model", "m"]
    with pytest.raises(SystemExit, match="holds texts by writer"):
        run(monkeypatch, tmp_path, *options)


def test_without_an_endpoint_our_writer_describes(monkeypatch, tmp_path, capsys):
    write_frames(tmp_path, SMILE, CALM)
    run(monkeypatch, tmp_path)
    kept = (tmp_path / "out" / "described.jsonl").read_text()
    assert "2 described, 0 dropped, 0 answers" in capsys.readouterr().out
    run(monkeypatch, tmp_path)
    assert (tmp_path / "out" / "described.jsonl").read_text() == kept


def test_described_frames_become_rows_and_a_datasheet(monkeypatch, tmp_path, capsys):
    test = Frame("w/00001.jpg", "w", 1, "test", "Sadness", (1, 15))
    write_frames(tmp_path, SMILE, CALM, test)
    (tmp_path / "out").mkdir()
    (tmp_path / "frames.jsonl").rename(tmp_path / "out" / "frames.jsonl")
    arguments = ["--frames", tmp_path / "out" / "frames.jsonl", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["describe", *map(str, arguments)])
    describe.main()
    monkeypatch.setattr("sys.argv", ["compose", "--out", str(tmp_path / "out")])
    compose.main()
    assert "2 rows in" in capsys.readouterr().out
    rows = read_rows(tmp_path / "out" / "fea_train.json")  # what the training reads
    assert [r.image for r in rows] == [SMILE.image, CALM.image]
    kinds = {kind_of(m["content"]) for m in rows[0].messages if m["role"] == "assistant"}
    assert kinds == {"summary", "movement", "reasoning"}
    sheet = (tmp_path / "out" / "DATASHEET.md").read_text()
    assert "3 faces" in sheet and "2 to train, 1 to test" in sheet and "our own writer" in sheet
    assert "| Happiness | 1 | 0 |" in sheet and "| AU15 | 0 | 1 |" in sheet
    first = (tmp_path / "out" / "fea_train.json").read_bytes()
    compose.main()
    assert (tmp_path / "out" / "fea_train.json").read_bytes() == first


def test_orders_and_questions_vary_from_row_to_row():
    entry = {"image": "a/1.jpg", "summary": "s", "movement": "m", "reasoning": "r"}
    rows = [compose.row(entry, i, 0)["conversations"] for i in range(60)]
    assert {r[1]["value"] for r in rows} == {"s", "m", "r"}
    assert len({r[0]["value"] for r in rows}) > 30
    assert all(r[0]["value"].startswith("<image>\n") for r in rows)

"""The page in a real browser: with a stand-in for the model where only the page matters."""

import re
import time
import zipfile
from pathlib import Path

import gradio as gr
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import StandIn, ask, png, serve, upload, upload_and_read, wait_until
from conftest import made_reading
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page, expect

from feallm import views
from feallm.photos import BadPhoto
from page.handlers import Handlers, uploaded
from page.layout import build_apology, place_parts
from page.theme import SESSIONS, launch_options
from page.visit import Visit

WATCH_LAST_ANSWER = """() => {
    window.seen = new Set();
    const look = () => {
        const answers = document.querySelectorAll('#chat .message.bot');
        window.seen.add(answers[answers.length - 1].innerText);
    };
    new MutationObserver(look).observe(document.querySelector('#chat'),
        {subtree: true, childList: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def stand_in():
    predictor = StandIn()
    demo, url = serve(predictor)
    predictor.url = url
    yield predictor
    demo.close()


@pytest.fixture
def page(browser, stand_in):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(stand_in.url)
    expect(page.locator("#upload")).to_be_visible()
    yield page
    context.close()


def last_answer(page: Page):
    return page.locator("#chat .message.bot").last


@pytest.fixture(scope="session")
def couple(portrait) -> Image.Image:
    both = Image.new("RGB", (1100, 640), "grey")
    both.paste(portrait, (0, 20))
    darker = portrait.resize((420, 492)).point(lambda v: v // 2)
    both.paste(darker, (600, 60))
    return both


def test_the_shipped_model_reads_the_portrait_and_talks(browser, predictor):
    """The main job: example portrait, an expression, a question, an answer that streams."""
    demo, url = serve(predictor)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    requests = []
    context.on("request", lambda r: requests.append(r.url))
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name="Try an example").click()
    expect(page.locator(".verdict strong")).to_have_text("Happiness", timeout=60_000)
    expect(page.locator(".chain")).to_have_text(re.compile(r"AU6\s*\+\s*AU12"))
    assert page.locator(".units .unit").count() == 12
    assert page.locator(".ring button.cell").count() == 16
    expect(page.locator(".matrix .grid i")).to_have_count(256)
    page.evaluate(WATCH_LAST_ANSWER)
    ask(page, "What is AU4?")
    expect(last_answer(page)).to_contain_text("brow lowerer", timeout=30_000)
    expect(page.locator("#question .submit-button")).to_be_visible()
    assert page.evaluate("window.seen.size") >= 3  # it grew before our eyes
    foreign = [u for u in requests if not u.startswith((url, "data:", "blob:"))]
    assert foreign == []
    context.close()
    demo.close()


@pytest.mark.parametrize("name", ["Try an example: Eileen Collins", "or Grace Hopper"])
def test_each_example_is_opened(page, name):
    page.get_by_role("button", name=name).click()
    expect(page.locator(".stage .face")).to_have_count(1)
    expect(page.locator(".verdict strong")).to_have_text("Happiness")
    expect(page.locator("#examples")).to_be_hidden()
    page.get_by_role("button", name="Change photo").click()
    expect(page.locator("#examples")).to_be_visible()


def test_a_photo_is_read_and_shown(page, portrait):
    upload(page, png(portrait))
    expect(page.locator(".verdict strong")).to_have_text("Happiness")
    expect(page.locator(".stage .face")).to_have_count(1)
    expect(page.locator(".chain")).to_have_text(re.compile(r"AU6\s*\+\s*AU12\s*→\s*Happiness"))
    expect(page.locator("#status")).to_contain_text("1 face")
    page.locator("button.cell").nth(3).focus()
    assert page.locator(".ring[data-ring='0'] .window").evaluate("e => e.style.opacity") == "1"
    page.get_by_role("button", name="¾").click()
    expect(page.locator(".ring[data-ring='1']")).to_be_visible()
    page.locator(".chip[data-au=AU12]").hover()
    expect(page.locator("li.unit.lit")).to_have_attribute("data-au", "AU12")
    ask(page, "Say it")
    link = last_answer(page).get_by_role("link", name="AU12")
    expect(page.locator("#question .submit-button")).to_be_visible()
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("li.unit.lit")).to_have_attribute("data-au", "AU12")
    page.get_by_role("button", name="Change photo").click()
    expect(page.locator("#upload")).to_be_visible()
    expect(page.locator(".verdict strong")).to_have_count(0)


def test_faces_are_chosen_by_keyboard_and_keep_their_own_talk(page, stand_in, couple):
    upload(page, png(couple))
    expect(page.locator(".stage .face")).to_have_count(2)
    expect(page.locator(".verdict strong")).to_have_text("Happiness")
    first = last_answer(page).inner_text()
    ask(page, "One?")
    expect(last_answer(page)).to_contain_text("You asked: One?")
    expect(page.locator("#question .submit-button")).to_be_visible()
    page.locator(".face").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".face").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(last_answer(page)).not_to_contain_text("You asked")
    assert last_answer(page).inner_text() != first  # the darker face
    analysed = stand_in.analysed
    page.locator(".face").nth(0).click()
    expect(last_answer(page)).to_contain_text("You asked: One?")
    assert stand_in.analysed == analysed  # nothing is read twice


def test_stop_keeps_what_was_written_and_frees_the_model(page, stand_in, portrait):
    upload_and_read(page, portrait)
    ended = stand_in.stopped
    ask(page, "Tell me slowly")
    expect(last_answer(page)).to_contain_text("more more")
    page.locator("#question .stop-button").click()
    assert wait_until(lambda: stand_in.stopped > ended, 2)
    time.sleep(1)  # what was on its way has come
    length = len(last_answer(page).inner_text())
    time.sleep(0.4)
    assert len(last_answer(page).inner_text()) == length
    ask(page, "And now?")
    expect(last_answer(page)).to_contain_text("You asked: And now?")


def test_a_question_right_after_a_stop_is_answered(page, stand_in, portrait):
    """Before the stopped answer's event has ended in the browser."""
    upload_and_read(page, portrait)
    for k in range(3):
        ask(page, "Tell me slowly")
        expect(last_answer(page)).to_contain_text("more more")
        page.locator("#question .stop-button").click()
        expect(page.locator("#question .submit-button")).to_be_visible()
        ask(page, f"And now {k}?")
        expect(last_answer(page)).to_contain_text(f"You asked: And now {k}? AU12 says")
        expect(page.locator("#question .submit-button")).to_be_visible()


def test_events_that_overlap_leave_whole_talks(page, stand_in, couple):
    """Ask twice, choose another face while an answer is written, go back: every turn is whole."""
    upload_and_read(page, couple)
    ask(page, "Tell me slowly")
    expect(last_answer(page)).to_contain_text("more")
    page.get_by_role("button", name="Which action units are active?").click()
    expect(page.get_by_text("One question at a time")).to_be_visible()
    page.locator(".face").nth(1).click()
    expect(page.locator(".face").nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("#question .stop-button").click()
    expect(page.locator("#question .submit-button")).to_be_visible()
    expect(page.locator(".verdict strong")).to_be_visible()
    ask(page, "And this one?")
    expect(last_answer(page)).to_contain_text("You asked: And this one?")
    expect(page.locator("#question .submit-button")).to_be_visible()
    page.locator(".face").nth(0).click()
    expect(page.locator("#chat")).to_contain_text("You asked: Tell me slowly")
    expect(page.locator("#chat")).not_to_contain_text("And this one?")
    ask(page, "And the first again?")
    expect(last_answer(page)).to_contain_text("You asked: And the first again?")


def waiting_behind(page: Page, browser, stand_in, portrait) -> Page:
    """Return another visitor's page, where an answer is written that this one's question awaits."""
    other = browser.new_context().new_page()
    other.goto(stand_in.url)
    for tab in (other, page):
        upload_and_read(tab, portrait)
    ask(other, "Tell me slowly")
    expect(last_answer(other)).to_contain_text("more")
    ask(page, "Waiting?")
    return other


def test_a_question_stopped_while_it_waits_leaves_nothing(page, browser, stand_in, portrait):
    other = waiting_behind(page, browser, stand_in, portrait)
    expect(page.locator("#chat")).to_contain_text("Waiting?")
    page.locator("#question .stop-button").click()
    expect(page.locator("#chat")).not_to_contain_text("Waiting?")
    other.context.close()
    ask(page, "Now?")
    expect(last_answer(page)).to_contain_text("You asked: Now?")


def test_clearing_the_talk_frees_the_question_box(page, browser, stand_in, portrait):
    other = waiting_behind(page, browser, stand_in, portrait)
    for tab, question in ((page, "Waiting?"), (other, "Tell me slowly")):
        expect(tab.locator("#chat")).to_contain_text(question)
        tab.locator("#chat").get_by_label("Clear").click()
        expect(tab.locator("#question .submit-button")).to_be_visible()
        expect(tab.locator("#status")).to_have_text("Stopped.")
        expect(tab.locator("#chat")).not_to_contain_text(question)
    ask(page, "Now?")
    expect(last_answer(page)).to_contain_text("You asked: Now?")
    other.context.close()


def test_another_photo_is_not_overtaken_by_the_old_answer(page, stand_in, portrait):
    upload_and_read(page, portrait)
    ask(page, "Tell me slowly")
    expect(last_answer(page)).to_contain_text("more more")
    page.get_by_role("button", name="Change photo").click()
    expect(page.locator("#upload")).to_be_visible()
    time.sleep(1)
    assert page.locator("#chat .message").count() == 0
    assert page.locator(".verdict strong").count() == 0
    expect(page.locator("#question .submit-button")).to_be_visible()
    upload_and_read(page, portrait)
    ask(page, "New?")
    expect(last_answer(page)).to_contain_text("You asked: New?")


def test_a_closed_tab_frees_the_model(browser, stand_in, portrait):
    context = browser.new_context()
    page = context.new_page()
    page.goto(stand_in.url)
    upload_and_read(page, portrait)
    ask(page, "Tell me slowly")
    expect(last_answer(page)).to_contain_text("more more")
    ended = stand_in.stopped
    context.close()
    # how soon is not measured here
    assert wait_until(lambda: stand_in.stopped > ended, 10)


def test_a_failure_is_said_without_its_details_and_the_next_question_works(page, portrait):
    upload_and_read(page, portrait)
    ask(page, "Please fail")
    expect(last_answer(page)).to_contain_text("The model failed on this. Please try again.")
    assert "secret" not in page.content()
    ask(page, "And now?")
    expect(last_answer(page)).to_contain_text("You asked: And now?")


def test_a_face_that_could_not_be_read_can_be_read_again(page, stand_in, portrait):
    stand_in.broken = True
    upload(page, png(portrait))
    expect(page.locator("#status")).to_contain_text("The model failed on this. Please try again.")
    ask(page, "What now?")
    expect(page.get_by_text("This face could not be read")).to_be_visible()
    stand_in.broken = False
    page.locator(".face").click()
    expect(page.locator(".verdict strong")).to_have_text("Happiness")
    assert "secret" not in page.content()


def test_the_page_is_light(browser, stand_in):
    context = browser.new_context()
    page = context.new_page()
    network = context.new_cdp_session(page)
    sizes: list[int] = []
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    network.send("Network.enable")
    page.goto(stand_in.url)
    expect(page.locator("#upload input[type=file]")).to_be_attached()
    page.wait_for_timeout(2000)
    assert len(sizes) > 10 and sum(sizes) <= 400_000
    context.close()


def test_a_long_talk_says_what_it_forgets(page, portrait):
    upload_and_read(page, portrait)
    for k in range(4):
        expect(page.get_by_text("no longer considered")).to_have_count(0)
        ask(page, f"Question {k}?")
        expect(last_answer(page)).to_contain_text(f"You asked: Question {k}?")
        expect(page.locator("#question .submit-button")).to_be_visible()
    expect(page.get_by_text("no longer considered").first).to_be_visible()


def test_retry_and_undo(page, stand_in, portrait):
    upload_and_read(page, portrait)
    expect(last_answer(page)).to_be_visible()
    for button in ("Retry", "Undo"):  # the description was not asked for
        expect(page.get_by_label(button, exact=True).first).to_be_hidden()
    ask(page, "Again?")
    expect(last_answer(page)).to_contain_text("You asked: Again?")
    expect(page.locator("#question .submit-button")).to_be_visible()
    page.get_by_label("Retry").last.click()
    wait_until(lambda: stand_in.temperatures[-1] > 0, 3)
    assert stand_in.temperatures[-1] == 0.7
    time.sleep(1.0)
    page.get_by_label("Undo").last.click()
    expect(page.locator("#question textarea")).to_have_value("Again?")
    expect(last_answer(page)).not_to_contain_text("You asked")
    expect(page.get_by_label("Undo", exact=True).first).to_be_hidden()


def test_special_words_and_markup_stay_words(page, portrait):
    upload_and_read(page, portrait)
    ask(page, "<image> <b>bold</b> ![x](http://127.0.0.1:9/x.png)")
    expect(last_answer(page)).to_contain_text("<image> <b>bold</b>")
    assert page.locator("#chat .message img, #chat .message b, #chat .message a").count() == 0


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"this is text"}, "not a picture"),
        (png(Image.effect_noise((300, 300), 90).convert("RGB")), "No face was found"),
        (png(Image.new("RGB", (20, 20))), "too small"),
    ],
    ids=["text", "no face", "tiny"],
)
def test_a_bad_photo_gets_a_sentence_and_the_page_lives(page, portrait, file, sentence):
    upload(page, file)
    expect(page.locator("#status")).to_contain_text(sentence)
    expect(page.locator("#upload input[type=file]")).to_be_attached()
    upload(page, png(portrait))
    expect(page.locator(".verdict strong")).to_have_text("Happiness")


def test_questions_that_cannot_be_taken(page, portrait):
    ask(page, "Hello?")
    expect(page.get_by_text("Add a photo first")).to_be_visible()
    upload_and_read(page, portrait)
    ask(page, "   ")
    expect(page.get_by_text("Type a question")).to_be_visible()
    ask(page, "a" * 1001)
    expect(page.get_by_text("the limit is 1000")).to_be_visible()
    expect(page.locator("#question textarea")).to_have_value("a" * 1001)


def test_two_visitors_do_not_see_each_other(browser, page, stand_in, portrait):
    upload_and_read(page, portrait)
    ask(page, "My secret?")
    expect(last_answer(page)).to_contain_text("My secret?")
    other = browser.new_context().new_page()
    other.goto(stand_in.url)
    expect(other.locator("#upload")).to_be_visible()
    assert other.locator("#chat .message").count() == 0
    assert other.locator(".stage").count() == 0
    upload_and_read(other, portrait.point(lambda v: v // 2))
    assert "My secret?" not in other.locator("#chat").inner_text()
    other.context.close()


def test_a_phone_shows_everything_without_sideways_scrolling(browser, stand_in, portrait):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(stand_in.url)
    upload_and_read(page, portrait)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    order = ["#stage", "#verdict", "#chat", "#clues", "#units", "#matrix"]
    tops = [page.locator(s).bounding_box()["y"] for s in order]
    assert tops == sorted(tops)
    context.close()


def test_covering_is_read_once_and_shown(page, stand_in, portrait):
    upload_and_read(page, portrait)
    before = stand_in.covered
    page.get_by_role("button", name="Covered", exact=True).click()
    cell = page.locator(".ring[data-ring='0'] button.cell").first
    expect(cell.locator(".of-covered")).to_have_text("−56")  # from 70 to a seventh
    cell.focus()
    expect(page.locator(".detail")).to_contain_text("Happiness 70 → 14 %")
    page.get_by_role("button", name="Attention", exact=True).click()
    expect(cell.locator(".of-attention")).to_be_visible()
    page.get_by_role("button", name="Covered", exact=True).click()
    expect(cell.locator(".of-covered")).to_be_visible()
    assert stand_in.covered == before + 1


def test_a_second_photo_is_compared_with_the_first(page, portrait, tmp_path):
    upload_and_read(page, portrait)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#status")).to_contain_text("second photo")
    upload(page, png(portrait.point(lambda v: v // 2)))
    expect(page.locator(".comparison")).to_contain_text("Both faces read as Happiness")
    expect(page.locator(".comparison .rows li")).to_have_count(19)
    with page.expect_download() as download:
        page.get_by_text("Export").click()
    download.value.save_as(tmp_path / "session.zip")
    with zipfile.ZipFile(tmp_path / "session.zip") as kept:
        assert "Both faces read as Happiness" in kept.read("session.md").decode()
        assert "first-face.png" in kept.namelist()
    page.get_by_label("Stop comparing").click()
    expect(page.locator(".comparison")).to_have_count(0)
    expect(page.locator(".verdict strong")).to_be_visible()


def test_the_first_photo_comes_back_as_it_was(page, stand_in, portrait):
    back = page.get_by_role("button", name="Back to the first photo")
    upload_and_read(page, portrait)
    expect(back).to_be_hidden()
    ask(page, "First?")
    expect(last_answer(page)).to_contain_text("You asked: First?")
    expect(page.locator("#question .submit-button")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#upload")).to_be_visible()
    analysed = stand_in.analysed
    back.click()  # nothing was chosen
    expect(page.locator("#chat")).to_contain_text("You asked: First?")
    expect(page.locator(".verdict strong")).to_be_visible()
    expect(page.locator("#upload")).to_be_hidden()
    page.get_by_role("button", name="Compare").click()
    upload(page, png(portrait.point(lambda v: v // 2)))
    expect(page.locator(".comparison")).to_be_visible()
    expect(page.locator("#chat")).not_to_contain_text("First?")
    back.click()
    expect(page.locator("#chat")).to_contain_text("You asked: First?")
    expect(page.locator(".comparison")).to_have_count(0)
    assert stand_in.analysed == analysed + 1  # the second photo's
    ask(page, "And again?")
    expect(last_answer(page)).to_contain_text("You asked: And again?")


def test_the_session_can_be_kept(page, portrait, tmp_path):
    upload_and_read(page, portrait)
    ask(page, "Kept?")
    expect(last_answer(page)).to_contain_text("You asked: Kept?")
    expect(page.locator("#question .submit-button")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_text("Export").click()
    download.value.save_as(tmp_path / "session.zip")
    with zipfile.ZipFile(tmp_path / "session.zip") as kept:
        assert "> You asked: Kept?" in kept.read("session.md").decode()


def test_a_session_is_not_exported_before_it_is_read(page, stand_in, portrait):
    upload_and_read(page, portrait)
    with page.expect_download():
        page.get_by_text("Export").click()
    page.get_by_role("button", name="Change photo").click()
    stand_in.broken = True
    upload(page, png(portrait))
    expect(page.locator("#status")).to_contain_text("The model failed on this.")
    stand_in.broken = False
    downloads = []
    page.on("download", lambda download: downloads.append(download))
    page.get_by_text("Export").click()
    expect(page.get_by_text("This face could not be read")).to_be_visible()
    time.sleep(0.5)
    assert downloads == []  # nor the photo's before


def test_suggestions_fit_the_face_and_are_not_repeated(page, portrait):
    buttons = page.locator("#suggestions button")
    expect(buttons.first).to_have_text("What emotion is this, and why?")
    upload(page, png(portrait))
    expect(page.locator("#suggestions")).to_contain_text("Is the smile genuine?")
    page.get_by_role("button", name="Is the smile genuine?").click()
    expect(last_answer(page)).to_contain_text("You asked: Is the smile genuine?")
    expect(page.locator("#suggestions")).not_to_contain_text("Is the smile genuine?")


@pytest.mark.parametrize(
    ("locale", "word", "welcome"),
    [
        ("zh-CN", "动作单元", "这张脸"),
        ("zh-TW", "动作单元", "这张脸"),
        ("es-MX", "Unidades de acción", "¿Qué muestra esta cara?"),
    ],
)
def test_the_interface_follows_the_browsers_language(
    browser, stand_in, portrait, locale, word, welcome
):
    context = browser.new_context(locale=locale)
    page = context.new_page()
    page.goto(stand_in.url)
    expect(page.locator("#units h2")).to_have_text(word)
    expect(page.locator("#chat")).to_contain_text(welcome)
    upload(page, png(portrait))
    expect(page.locator(".verdict strong")).to_have_text("Happiness")  # the model's word stays
    expect(page.locator("#units h2")).to_have_text(word)  # drawn again, translated again
    # Gradio's parts and its buttons too
    expect(page.get_by_text("Change photo")).to_have_count(0)
    expect(page.locator("#privacy")).not_to_contain_text("Photos stay")
    buttons = page.locator("#chat .message-buttons button")
    expect(buttons).to_have_count(3)
    assert [buttons.nth(k).is_visible() for k in range(3)] == [True, False, False]
    context.close()


def test_messages_are_in_the_browsers_language_too(browser, stand_in, portrait):
    context = browser.new_context(locale="es")
    page = context.new_page()
    page.goto(stand_in.url)
    upload(page, {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#status")).to_contain_text("no es una imagen que podamos leer")
    upload(page, png(Image.new("RGB", (20, 30))))
    expect(page.locator("#status")).to_contain_text("demasiado pequeña (20 x 30); una cara")
    upload_and_read(page, portrait)
    ask(page, "a" * 1001)
    expect(
        page.get_by_text("La pregunta tiene 1001 caracteres; el límite es 1000.")
    ).to_be_visible()
    context.close()


def test_the_public_endpoint_gives_the_command_lines_json(stand_in, portrait, couple, tmp_path):
    couple.save(tmp_path / "couple.png")
    client = Client(stand_in.url, verbose=False)
    faces = client.predict(handle_file(tmp_path / "couple.png"), "Who?", api_name="/analyze")
    assert [f["face"] for f in faces] == [0, 1]
    assert faces[0]["action_units"] == [6, 12] and "You asked: Who?" in faces[0]["answer"]
    assert "path" not in faces[0] and "photo" not in faces[0]
    (tmp_path / "text.png").write_text("no picture")
    refused = client.predict(handle_file(tmp_path / "text.png"), "", api_name="/analyze")
    assert "not a picture" in refused[0]["error"]
    names = client.view_api(return_format="dict")["named_endpoints"]
    assert list(names) == ["/analyze"]


def axe_finds_nothing(page: Page) -> None:
    """On every screen, light and dark."""
    for width, height, scheme in (
        (1440, 900, "light"), (1440, 900, "dark"), (820, 1180, "dark"), (390, 844, "light"),
    ):  # fmt: skip
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)
        result = Axe().run(page).response
        assert len(result["passes"]) > 20  # it looked
        found = {r["id"]: [node["target"] for node in r["nodes"]] for r in result["violations"]}
        assert found == {}, (width, scheme)


def test_axe_finds_nothing(browser, stand_in, couple):
    context = browser.new_context(reduced_motion="reduce")  # colours in between are nobody's
    page = context.new_page()
    page.goto(stand_in.url)
    expect(page.locator("#upload")).to_be_visible()
    axe_finds_nothing(page)
    upload_and_read(page, couple)
    page.get_by_role("button", name="Covered", exact=True).click()
    expect(page.locator(".shown.covered")).to_be_visible()
    for part in (".matrix", ".looks", ".glossary"):
        page.locator(f"{part} summary").click()
    ask(page, "Is the smile genuine?")
    expect(page.locator("#status")).to_contain_text("written in")
    axe_finds_nothing(page)
    page.get_by_role("button", name="Compare").click()
    upload(page, png(couple.point(lambda v: v // 2)))
    expect(page.locator(".comparison .rows li")).to_have_count(19)
    axe_finds_nothing(page)
    context.close()


def test_units_and_the_map_are_reached_by_keyboard(page, portrait):
    upload_and_read(page, portrait)
    page.locator(".chip[data-au=AU12]").focus()
    expect(page.locator("li.unit.lit")).to_have_attribute("data-au", "AU12")
    page.locator(".matrix summary").focus()
    page.keyboard.press("Enter")
    page.locator(".matrix .grid").focus()
    told = page.locator(".matrix .cell-title")
    first = told.inner_text()
    assert "→" in first
    page.keyboard.press("ArrowUp")  # there is nothing above
    expect(told).to_have_text(first)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".matrix .at")).to_have_count(1)
    expect(told).not_to_have_text(first)
    assert told.inner_text().split(" → ")[0] == first.split(" → ")[0]  # the same row
    page.keyboard.press("ArrowDown")
    assert told.inner_text().split(" → ")[0] != first.split(" → ")[0]


def test_a_model_that_was_not_tuned_is_labelled_on_every_screen(browser, page):
    expect(page.get_by_text("not tuned for faces")).to_have_count(0)
    plain = StandIn()
    plain.tuned = False
    demo, url = serve(plain)
    for width in (1440, 390):
        context = browser.new_context(viewport={"width": width, "height": 844})
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_text("not tuned for faces")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        axe_finds_nothing(page)
        context.close()
    demo.close()


def test_a_model_without_crops_shows_none(browser, portrait):
    plain = StandIn()
    plain.crops = []
    plain.analyse = lambda face: made_reading(face=face, attention=None)
    demo, url = serve(plain)
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_text("Twelve FACS action units")).to_be_visible()
    expect(page.get_by_text("Sixteen local crops")).to_be_hidden()
    upload_and_read(page, portrait)
    for part in ("#clues", "#matrix"):
        expect(page.locator(part)).to_be_hidden()
    expect(page.locator("#units")).to_be_visible()
    context.close()
    demo.close()


def test_without_a_model_the_page_says_so(browser):
    demo = build_apology()
    options = launch_options()
    _, url, _ = demo.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **options
    )
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_text("The model could not be loaded")).to_be_visible()
    context.close()
    demo.close()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        "photo.png",
        {"path": "/etc/passwd"},
        {"path": "data:image/png;base64,AAAA"},
        {"path": "http://127.0.0.1/x.png"},
        {"path": str(Path(__file__).parent.parent / "assets" / "photo.png")},
    ],
)
def test_only_uploaded_files_are_opened(payload):
    with pytest.raises(BadPhoto):
        uploaded(payload)


def test_the_chat_shows_the_talk_of_the_chosen_face_only(portrait):
    visit = Visit(b"", [], chosen=1, talks={0: [{"role": "user", "content": "AU1?"}]})
    assert visit.shown() == []
    visit.chosen = 0
    assert visit.shown() == [{"role": "user", "content": views.chat_text("AU1?")}]


def test_many_visitors_do_not_fill_the_memory():
    demo, _ = serve(StandIn())
    for i in range(SESSIONS + 3):
        assert demo.state_holder[f"visitor {i}"] is not None
    kept = set(demo.state_holder.session_data)
    demo.close()
    assert len(kept) == SESSIONS
    assert "visitor 0" not in kept and f"visitor {SESSIONS + 2}" in kept


def test_an_answer_given_under_another_event_is_shown(portrait):
    handlers, visit = a_visit(portrait)
    handlers.ask("What is AU12?", visit)
    for _ in handlers.answer(visit):  # of an event that was cancelled, but came to its turn
        pass
    (shown,) = handlers.answer(visit)
    assert shown[handlers.parts.chat][-1]["content"].startswith("You asked: What is")


def test_an_answer_that_another_event_writes_is_followed(portrait):
    handlers, visit = a_visit(portrait)
    handlers.ask("Tell me slowly", visit)
    writing = handlers.answer(visit)  # of an event that was cancelled
    next(writing)
    following = handlers.answer(visit)
    lengths = []
    for _ in range(3):
        lengths.append(len(str(next(following)[handlers.parts.chat])))
        next(writing)
    assert lengths[0] < lengths[1] < lengths[2]
    assert visit.shown()[-2]["content"].startswith("Tell me") and len(visit.talk) == 2
    visit.asked = None  # stopped
    writing.close()
    (shown,) = following
    assert shown[handlers.parts.chat] == visit.shown()


def test_two_visitors_are_answered_at_once(browser, portrait):
    predictor = StandIn()
    predictor.voices = 2
    demo, url = serve(predictor)
    context = browser.new_context()
    one, two = (context.new_page() for _ in range(2))
    for tab in (one, two):
        tab.goto(url)
        upload_and_read(tab, portrait)
    ask(one, "Tell me slowly")
    expect(last_answer(one)).to_contain_text("more")
    ask(two, "And me?")
    expect(last_answer(two)).to_contain_text("You asked: And me? AU12 says Happiness.")
    expect(one.locator("#question .stop-button")).to_be_visible()
    context.close()
    demo.close()


def test_no_part_is_left_out_after_it_was_given_a_dict():
    """The browser changes the dict in place to what comes next, drawn or not."""
    handlers = Handlers(StandIn(), place_parts_of_a_page())
    events = [list(handlers.start_collins(None))]
    visit = events[0][-1][handlers.parts.state]
    events += [list(handlers.read(visit)), list(handlers.cover(visit))]
    handlers.ask("What is AU12?", visit)
    events.append(list(handlers.answer(visit)))
    for event in events:
        for before, after in zip(event, event[1:], strict=False):
            given = {p for p, v in before.items() if isinstance(v, dict) and "__type__" not in v}
            for part in given:
                assert isinstance(after[part], dict) and "__type__" not in after[part]
    assert events[1][-1][handlers.parts.verdict]["expression"] == "Happiness"
    assert events[2][-1][handlers.parts.clues]


def place_parts_of_a_page():
    with gr.Blocks():
        return place_parts()


def a_visit(portrait: Image.Image) -> tuple[Handlers, Visit]:
    handlers = Handlers(StandIn(), place_parts_of_a_page())
    return handlers, Visit(faces=[None], portraits=[portrait], readings={0: made_reading()})


def answered(handlers: Handlers, visit: Visit) -> str:
    list(handlers.answer(visit))
    return visit.talk[-1]["content"]


def test_a_second_try_that_is_stopped_leaves_the_first_answer(portrait):
    handlers, visit = a_visit(portrait)
    handlers.ask("Why?", visit)
    first = answered(handlers, visit)
    handlers.retry(visit)
    handlers.stop(visit)  # while it waits
    assert [m["content"] for m in visit.talk] == ["Why?", first]
    handlers.retry(visit)
    writing = handlers.answer(visit)
    next(writing)
    handlers.stop(visit)  # in the middle
    assert list(writing) == []
    assert [m["content"] for m in visit.talk] == ["Why?", first]
    assert handlers.fail(visit)[handlers.parts.chat] == visit.shown()
    handlers.retry(visit)
    handlers.compare(visit)
    assert [m["content"] for m in visit.talk] == ["Why?", first]
    visit.left = False
    handlers.retry(visit)
    handlers.predictor.stream = broken
    answered(handlers, visit)
    assert [m["content"] for m in visit.talk] == ["Why?", first]


def broken(*_, **__):
    raise RuntimeError("out of order")
    yield


def test_excuses_are_not_told_to_the_model(portrait):
    handlers, visit = a_visit(portrait)
    handlers.ask("Please fail", visit)
    assert "The model failed" in answered(handlers, visit)
    told = []
    handlers.predictor.fitting = lambda reading, messages: told.append(messages) or messages
    handlers.ask("And now?", visit)
    answered(handlers, visit)
    assert [m["content"] for m in told[0]] == ["And now?"]
    assert len(visit.talk) == 4  # but shown and kept


def test_the_end_of_a_stopped_answer_takes_no_newer_question(portrait):
    handlers, visit = a_visit(portrait)
    handlers.ask("One?", visit)
    writing = handlers.answer(visit)
    next(writing)
    handlers.stop(visit)
    handlers.ask("Two?", visit)
    handlers.fail(visit)  # the first one's event has ended
    assert visit.asked.text == "Two?"
    writing.close()
    assert answered(handlers, visit).startswith("You asked: Two?")
    handlers.ask("Three?", visit)
    handlers.fail(visit)  # the queue was full
    assert visit.asked is None

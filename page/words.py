"""The interface's words in the visitor's language; the model answers in English.

The key of a word is the word in English, so that the code reads as the page does and a missing
translation shows English. `assets/page/words` holds one JSON file per language. Gradio's own parts
are translated by `gr.I18n`; our templates by a script that looks at elements with `data-t`.
"""

import json
from pathlib import Path

import gradio as gr

WORDS = Path(__file__).parent.parent / "assets" / "page" / "words"


def translations() -> dict[str, dict[str, str]]:
    """Return {language tag: {English: translation}}; English maps to itself."""
    others = {f.stem: json.loads(f.read_text("utf-8")) for f in sorted(WORDS.glob("*.json"))}
    english = {word: word for words in others.values() for word in words}
    return {"en": english, **others}


def for_gradio() -> dict[str, dict[str, str]]:
    """Return the translations under every tag that Gradio would else show in English.

    It looks for the browser's tag, then for its first part: zh-TW finds no zh-CN.
    """
    found = translations()
    return found | dict.fromkeys(("zh", "zh-TW", "zh-HK"), found["zh-CN"])


def t(english: str) -> gr.i18n.I18nData:
    """Mark a word of a Gradio part for translation."""
    return gr.i18n.I18nData(english)


def head_script() -> str:
    """Return the script that translates our templates, with the dictionaries it needs."""
    script = (WORDS.parent / "words.js").read_text("utf-8")
    dictionaries = {tag: words for tag, words in translations().items() if tag != "en"}
    # no "</script>" may end the script early
    data = json.dumps(dictionaries, ensure_ascii=False).replace("</", "<\\/")
    return f"<script>window.FEALLM_WORDS = {data};\n{script}</script>"

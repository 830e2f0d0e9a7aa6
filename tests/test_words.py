"""Every word of the interface has its translation, and no translation lost its word."""

import ast
import re

import pytest

from page.theme import ASSETS
from page.words import translations

ROOT = ASSETS.parent.parent


SAID = {
    "feallm/photos.py": {"BadPhoto", "append"},
    "feallm/faces.py": {"caveat", "NO_FACE"},
    "feallm/predictor.py": {"QuestionTooLong", "excuse"},
    "page/handlers.py": {
        "BadPhoto",
        "refusal",
        "Info",
        "Warning",
        "question_problem",
        "not_read",
        "NO_PHOTO",
    },
}
"""Where sentences for a visitor are: what calls, functions and constants of these names say."""
IN_THE_CHAT = {"This question is too long for the model."}  # an answer, in the model's language


def key_of(node: ast.expr) -> str | None:
    """The dictionary's key of a text: {} stands for what an f-string fills in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def sentences_of_the_code() -> set[str]:
    found: set[str | None] = set()
    for file, names in SAID.items():
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", None))
                texts = [*node.args, *(k.value for k in node.keywords)]
            elif isinstance(node, ast.FunctionDef):
                name = node.name
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
            elif isinstance(node, ast.Assign):
                name, texts = getattr(node.targets[0], "id", None), [node.value]
            else:
                continue
            if name in names:
                found |= {key_of(t) for t in texts}
    return found - {None, ""} - IN_THE_CHAT


def words_of_the_page() -> set[str]:
    found = sentences_of_the_code()
    for template in ASSETS.glob("*.html"):
        text = template.read_text("utf-8")
        found |= {m.strip() for m in re.findall(r"data-t>([^<{]+)<", text)}
        found |= set(re.findall(r'aria-label="([^"]+)" data-t-label', text))
    layout = (ROOT / "page" / "layout.py").read_text("utf-8")
    found |= {eval(m) for m in re.findall(r'\bt\(\s*("[^"]*")\s*\)', layout)}
    found |= {eval(re.search(r"PRIVACY = (\(.*?\))\n", layout, re.DOTALL).group(1))}
    handlers = (ROOT / "page" / "handlers.py").read_text("utf-8")
    return found | set(re.findall(r'\bnote\("([^"]+)"', handlers))


@pytest.mark.parametrize("language", [tag for tag in translations() if tag != "en"])
def test_every_word_is_translated_and_none_is_left_over(language):
    words = translations()[language]
    assert set(words) == words_of_the_page()
    assert all(words.values())
    for key, word in words.items():
        assert key.count("{}") == word.count("{}") and key.count("{n}") == word.count("{n}"), key


def test_two_languages_beside_english():
    assert set(translations()) == {"en", "es", "zh-CN"}

"""FACS: the twelve units, and a parser that reads what a text asserts and nothing else."""

import pytest

from feallm.facs import ACTION_UNITS, AUS, EXPRESSIONS, PROTOTYPES, parse_analysis, supporting


def test_the_papers_twelve_and_seven():
    assert AUS == (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
    assert set(EXPRESSIONS) == set(PROTOTYPES)
    assert all(set(units) <= set(AUS) for units in PROTOTYPES.values())
    assert ACTION_UNITS[12].name == "lip corner puller"


@pytest.mark.parametrize(
    ("text", "expression", "aus"),
    [
        ("Happiness. The person shows AU6 (cheek raiser) and AU12.", "Happiness", (6, 12)),
        ("**Anger**. The brows are lowered.", "Anger", ()),
        ("The person looks sad.", "Sadness", ()),
        ("AUs 1, 2 and 25 are active.", None, (1, 2, 25)),
        ("AU1+2+4", None, (1, 2, 4)),
        ("AU 12, AU-25", None, (12, 25)),
        ("The lip corner puller is active.", None, (12,)),
        # nothing said is nothing read
        ("", None, ()),
        ("I cannot tell.", None, ()),
        ("The person looks angry and sad.", None, ()),
        ("An unhappy coincidence.", None, ()),
        # denials, over whole lists and from both sides
        ("Not sad but happy.", "Happiness", ()),
        ("Not only happy.", "Happiness", ()),
        ("The expression is not happiness, sadness or fear.", None, ()),
        ("AU1, AU2. No AU4, AU6 or AU7.", None, (1, 2)),
        ("There is neither AU1 nor AU2.", None, ()),
        ("AU4 is absent, but AU12 pulls.", None, (12,)),
        ("AU6 and AU12 are active, AU4 is not active.", None, (6, 12)),
        ("No smile is visible, AU4 is active.", None, (4,)),
        # as general models list them
        ("Action Unit 6 and Action Unit 12 are active.", None, (6, 12)),
        ("Action units 6, 12 and 25 are active.", None, (6, 12, 25)),
        ("AU12: Yes\nAU4: No\nAU6\nAU7: none", None, (6, 12)),
        ("AU4 (Brow Lowerer): Not present. AU12 (Lip Corner Puller): Present.", None, (12,)),
        ("**AU4 (Brow Lowerer):** Not active\n**AU6 (Cheek Raiser):** Active", None, (6,)),
        ("| AU4 | Brow lowerer | inactive |\n| AU6 | Cheek raiser | active |", None, (6,)),
        ("AU6: Cheek Raiser\nAU4: not active", None, (6,)),
        ("AU1 - absent, AU2 - present", None, (2,)),
        ("AU12: not only a smile.", None, (12,)),
        ("AU12, no AU4", None, (12,)),
        ("**AU4**: Not present\n**AU12**: Present", None, (12,)),
        ("**AU4 (Brow Lowerer)**: Not present", None, ()),
        ("Brow lowerer: absent\nLip corner puller: present", None, (12,)),
        ("Lip corner puller: not present", None, ()),
        ("AU4 - No\nAU6 – No\nAU7 (absent)\nAU10: N/A\nAU12 - yes", None, (12,)),
        ("AU4: no | AU12: yes", None, (12,)),
        ("AU1=1, AU2=0, AU4=0.5, AU6=0.0", None, (1, 4)),
        ("AU12: 0.85\nAU4: 0", None, (12,)),
        ("Action units: 6, 12", None, (6, 12)),
        ("AUs: 6, 12 and 25.", None, (6, 12, 25)),
        # what only looks like a denial
        ("AU6 and AU12: no teeth visible, lips pulled up.", None, (6, 12)),
        ("AU12: No doubt present", None, (12,)),
        ("AU12: not strongly, but visible", None, (12,)),
        ("AU6, AU7, AU12 | none of the others", None, (6, 7, 12)),
        # "no" inside a word denies nothing
        ("The nose wrinkles, AU10 is active.", None, (10,)),
        ("Active action units: none.", None, ()),
        ("AU123 does not exist.", None, ()),
    ],
)
def test_reading(text, expression, aus):
    read = parse_analysis(text)
    assert (read.expression, read.aus) == (expression, aus)
    assert read.text == text


def test_units_outside_the_twelve_are_kept_apart():
    read = parse_analysis("The nose wrinkler AU9 and AU12 are active.")
    assert (read.aus, read.unknown_aus) == ((12,), (9,))
    assert parse_analysis("Action Unit 9 is active.").unknown_aus == (9,)


def test_supporting_units_are_the_prototypes():
    assert supporting("Happiness", (25, 4, 12)) == (12, 25)
    assert supporting("Neutral", (4,)) == ()

"""Two readings side by side, in words."""

from conftest import made_reading

from feallm.comparison import Comparison


def test_what_was_gained_lost_and_kept():
    compared = Comparison(made_reading("Sadness", (1, 4, 25)), made_reading("Surprise", (1, 2, 25)))
    assert (compared.gained, compared.lost, compared.kept) == ((2,), (4,), (1, 25))
    assert compared.sentences() == [
        "From Sadness (70 %) to Surprise (70 %).",
        "Active only here: AU2 (outer brow raiser).",
        "Active only in the first: AU4 (brow lowerer).",
        "Active in both: AU1 (inner brow raiser) and AU25 (lips part).",
    ]


def test_faces_alike():
    compared = Comparison(made_reading("Neutral", (), 0.9), made_reading("Neutral", (), 0.6))
    assert compared.sentences() == [
        "Both faces read as Neutral (90 % first, 60 % here).",
        "No action unit is active in either face.",
    ]

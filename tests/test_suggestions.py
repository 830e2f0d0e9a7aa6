"""The questions offered fit the face and are not offered twice."""

from conftest import made_reading

from feallm.suggestions import FIRST, suggest


def test_without_a_face_they_fit_any():
    assert suggest(None, [])[:2] == list(FIRST)


def test_a_smile_is_asked_about_and_a_doubt_too():
    smile = suggest(made_reading(), list(FIRST), count=9)
    assert "Is the smile genuine?" in smile and "What is AU6?" in smile
    calm = suggest(made_reading("Neutral", (), share=0.4), list(FIRST), count=9)
    assert "Is the smile genuine?" not in calm
    assert calm[0] == "How sure are you?"


def test_nothing_is_offered_twice():
    asked: list[str] = []
    for _ in range(2):
        offered = suggest(made_reading(), asked)
        assert len(offered) == len(set(offered)) == 3
        assert not set(offered) & set(asked)
        asked += offered

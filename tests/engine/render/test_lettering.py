import pytest

from comfy_revelio.render.lettering import fitted, font, number, width, wrapped


@pytest.mark.parametrize("bold", [False, True])
def test_the_typeface_has_every_sign_that_figures_use(bold):
    face = font(20, bold)
    missing = bytes(face.getmask("\uffff"))
    signs = "#0123456789/σ±−+·×…–%∞éüñßçøЖд"
    assert [sign for sign in signs if bytes(face.getmask(sign)) == missing] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (14.6146, "14.6"),
        (5.0, "5"),
        (0.0292, "0.0292"),
        (-2.5, "−2.5"),
        (1234.5, "1,234"),
        (100.0, "100"),
        (1e7, "1.0e+07"),
        (2e-5, "2.0e-05"),
        (float("nan"), "?"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_text_is_shortened_to_its_room():
    face = font(14)
    assert fitted("glasses", face, 200) == "glasses"
    short = fitted("a very long label of a feature", face, 80)
    assert short.endswith("…") and width(short, face) <= 80


def test_text_is_wrapped_between_words():
    face = font(14)
    lines = wrapped("the quick brown fox jumps over the lazy dog", face, 100)
    assert " ".join(lines) == "the quick brown fox jumps over the lazy dog"
    assert all(width(line, face) <= 100 for line in lines)
    assert wrapped("", face, 100) == []

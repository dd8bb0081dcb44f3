import pytest

from gateway.catalogue_cells import READERS, FormulaError, read_text


@pytest.mark.parametrize(
    ("cell", "text"), [("'-1层", "-1层"), ("''=x", "'=x"), ("'t Hof", "'t Hof"), ("''", "''"), ("", "")]
)
def test_an_apostrophe_saves_what_looks_like_a_formula(cell, text):
    assert read_text(cell) == text


@pytest.mark.parametrize(
    ("cell", "purposes"),
    [
        ("", None), (" ", None), ("-", []), ("－", []), (" - ", []),
        ("case", ["case"]), ("case; patrol ；", ["case", "patrol"]),
    ],
)  # fmt: skip
def test_a_cell_says_which_purposes_an_owner_allows(cell, purposes):
    assert READERS["sharing_purposes"](cell) == purposes


def test_a_list_of_purposes_without_one_is_refused_not_guessed():
    with pytest.raises(ValueError, match="a single - for none"):
        READERS["sharing_purposes"](";")
    with pytest.raises(FormulaError):
        READERS["sharing_purposes"]("-1")

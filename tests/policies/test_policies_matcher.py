import pytest
from casbin.model import Model

from policies.enforcer import MODEL, Matcher, ModelError

FUNCTIONS = {"g": lambda left, right: left == right, "live": lambda left, right: right == "yes"}


def test_the_model_is_the_specification():
    model = Model()
    model.load_model_from_text(MODEL.read_text(encoding="utf-8"))
    assert model["r"]["r"].tokens == ["r_sub", "r_obj", "r_act", "r_ctx"]
    assert model["p"]["p"].tokens == ["p_sub", "p_obj", "p_act", "p_eft", "p_gid"]
    assert model["e"]["e"].value == "some(where (p_eft == allow)) && !some(where (p_eft == deny))"


def test_a_conjunction_of_equalities_and_calls():
    matcher = Matcher("r_act == p_act && g(r_sub, p_sub) && live(r_ctx, p_gid)", FUNCTIONS)
    request = {"r_act": 1, "p_act": 1, "r_sub": 2, "p_sub": 2, "r_ctx": None, "p_gid": "yes"}
    assert matcher.eval(request) is True
    assert matcher.eval(request | {"p_act": 2}) is False
    assert matcher.eval(request | {"p_sub": 3}) is False
    assert matcher.eval(request | {"p_gid": "no"}) is False


@pytest.mark.parametrize(
    "text",
    [
        "r_act == p_act",
        "r_act == p_act || g(r_sub, p_sub)",
        "r_act == p_act and eval(p_sub, p_obj)",
        "r_act == p_act and g(r_sub)",
        "r_act == p_act and g(r_sub, p_sub, x=1)",
        "r_act == p_act and not g(r_sub, p_sub)",
        "r_act == p_act and r_sub.__class__ == p_sub",
        "r_act == p_act and r_sub == 'root'",
        "r_act == p_act == r_sub and g(r_sub, p_sub)",
        "r_act != p_act and g(r_sub, p_sub)",
        "r_act == p_act and (lambda: 1)()",
    ],
)
def test_nothing_else_is_accepted(text):
    with pytest.raises((ModelError, SyntaxError)):
        Matcher(text, FUNCTIONS)

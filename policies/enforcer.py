"""Casbin's enforcer over the rules that the index finds, with a matcher that is checked and built once.

Extension points used: Assertion.policy, role managers, `_get_expression` (private, hence pycasbin is
pinned to a minor version and tests compare with the stock enforcer), the effector.
"""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from casbin.core_enforcer import CoreEnforcer
from casbin.effect import AllowAndDenyEffector, Effector
from casbin.model import Model

from policies.catalogue import Catalogue
from policies.subjects import Subjects

MODEL = Path(__file__).with_name("model.conf")

_Parameters = Mapping[str, Any]
_Term = Callable[[_Parameters], bool]


class ModelError(ValueError):
    """model.conf says more than the matcher knows: somebody edited the one without the other."""


class PolicyRow(NamedTuple):
    """One Casbin policy row; the fields are those of `p` in model.conf. `effect` is exactly allow or deny."""

    subject: str
    object: str
    action: str
    effect: str
    gid: str


class Matcher:
    """A conjunction of equalities and calls, as closures: what model.conf needs, and nothing is evaluated.

    Stands where Casbin expects a simpleeval object.
    """

    def __init__(self, text: str, functions: Mapping[str, Callable[[Any, Any], bool]]) -> None:
        expression = ast.parse(text.replace("&&", " and "), mode="eval").body
        if not isinstance(expression, ast.BoolOp) or not isinstance(expression.op, ast.And):
            raise ModelError(f"the matcher must be a conjunction: {text}")
        self._terms = tuple(_compile_term(value, functions) for value in expression.values)

    def eval(self, parameters: _Parameters) -> bool:
        for term in self._terms:  # noqa: SIM110 - all() with a generator costs twice as much
            if not term(parameters):
                return False
        return True


def _compile_term(node: ast.expr, functions: Mapping[str, Callable[[Any, Any], bool]]) -> _Term:
    match node:
        case ast.Compare(left=ast.Name(id=left), ops=[ast.Eq()], comparators=[ast.Name(id=right)]):
            return lambda parameters: bool(parameters[left] == parameters[right])
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=left), ast.Name(id=right)], keywords=[]) if (
            name in functions
        ):
            function = functions[name]
            return lambda parameters: function(parameters[left], parameters[right])
        case _:
            raise ModelError(f"the matcher may not contain: {ast.unparse(node)}")


class _FirstDecides(AllowAndDenyEffector):  # type: ignore[misc] # casbin has no type information
    """The model's effect, for rules sorted denials first: the first rule that matches decides."""

    def intermediate_effect(self, effects: set[int]) -> int:
        decisive = Effector.DENY if Effector.DENY in effects else Effector.ALLOW
        return int(decisive if decisive in effects else Effector.INDETERMINATE)


class IndexedEnforcer(CoreEnforcer):  # type: ignore[misc] # casbin has no type information
    """Casbin's decision over the few rows that name a request. Belongs to one thread."""

    def __init__(self, subjects: Subjects, catalogue: Catalogue, is_live: Callable[[Any, str], bool]) -> None:
        """`is_live`: the model's `live(ctx, gid)`."""
        model = Model()
        model.load_model_from_text(MODEL.read_text(encoding="utf-8"))
        super().__init__(model)
        for name, role_manager in (("g", subjects), ("g2", catalogue)):
            self.set_named_role_manager(name, role_manager)
            model["g"][name].rm = role_manager
        self.set_effector(_FirstDecides())
        self._assertion = model["p"]["p"]
        self._matcher = Matcher(
            model["m"]["m"].value, {"g": subjects.has_link, "g2": catalogue.has_link, "live": is_live}
        )

    def enforce_over(
        self, rows: list[PolicyRow], subject: str, resource: str, action: str, context: object
    ) -> tuple[bool, str | None]:
        """Casbin's decision over rows in order of precedence, and the gid that decided; None if none did.

        Without rows Casbin is not asked: over an empty policy it would match against empty strings.
        """
        if not rows:
            return False, None
        self._assertion.policy = rows
        allowed, row = self.enforce_ex(subject, resource, action, context)
        return allowed, row.gid if row else None

    def enable_enforce(self, enabled: bool = True) -> NoReturn:  # noqa: ARG002 - Casbin's signature
        """Casbin's switch that allows everything does not exist here. Raises TypeError."""
        raise TypeError("enforcement cannot be switched")

    def _get_expression(self, *_: object) -> Matcher:
        return self._matcher

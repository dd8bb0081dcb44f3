"""Between a camera's form and what keeps it: the table's columns, the PDP's facts, the index's entry."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from gateway.catalogue_index import IndexedCamera
from gateway.clock import from_micros, to_micros
from gateway.forms import SharingTerms
from policies.access import Sharing, SharingMode

_NOT_COLUMNS = {"password", "groups", "tags", "sharing"}


def column_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The columns for the fields of a form that were given; password, groups and tags have other places."""
    values = {name: value for name, value in given.items() if name not in _NOT_COLUMNS}
    if "sharing" in given:
        terms: SharingTerms = given["sharing"]
        values |= {
            "sharing_mode": terms.mode.value,
            "sharing_departments": list(dict.fromkeys(terms.departments)) or None,
            "sharing_scope": terms.scope,
            "sharing_purpose": terms.purpose,
            "sharing_frequency": terms.frequency,
            "sharing_until": None if terms.until is None else to_micros(terms.until),
            "sharing_purposes": None if terms.purposes is None else sorted(set(terms.purposes)),
        }
    return values


def sharing_terms(row: sa.Row[Any]) -> SharingTerms:
    """The terms in a row of `cameras`."""
    return SharingTerms(
        mode=SharingMode(row.sharing_mode),
        departments=row.sharing_departments or [],
        scope=row.sharing_scope,
        purpose=row.sharing_purpose,
        frequency=row.sharing_frequency,
        until=None if row.sharing_until is None else from_micros(row.sharing_until),
        purposes=row.sharing_purposes,
    )


def policy_sharing(terms: SharingTerms) -> Sharing:
    """What the PDP knows of the terms."""
    return Sharing(
        mode=terms.mode,
        departments=tuple(terms.departments),
        until=terms.until,
        purposes=None if terms.purposes is None else frozenset(terms.purposes),
    )


def indexed_camera(values: Mapping[str, Any]) -> IndexedCamera:
    """What the index knows, from columns by name; what is missing has its default."""
    return IndexedCamera(**{name: values[name] for name in IndexedCamera._fields if name in values})

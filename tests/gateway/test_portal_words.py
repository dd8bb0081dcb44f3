"""The portal has words, in both languages, for every code that the gateway may say to a viewer."""

import re
from pathlib import Path

import pytest

from gateway.duty import DutyEnd
from gateway.live_session import EndReason
from gateway.problems import codes
from policies.access import Reason

WORDS = Path(__file__).resolve().parents[2] / "gateway" / "portal" / "src" / "i18n"
ALLOWING = {Reason.GRANTED, Reason.ROLE, Reason.SHARED}
NOT_A_VIEWERS = {
    "account_refused",
    "analyser_unknown",
    "bad_request",
    "body_too_large",
    "dispute_refused",
    "duty_refused",
    "erasure_refused",
    "import_busy",
    "import_invalid",
    "limit_analyses",
    "media_type_unknown",
    "method_not_allowed",
    "records_removed",
    "role_read_only",
    "role_refused",
    "test_busy",
    "thumbnail_late",
    "thumbnails_over",
}
"""Said to who administers, or to programs; what the portal does not know it shows in the gateway's words."""


def known(language: str, table: str) -> set[str]:
    text = (WORDS / f"{language}.ts").read_text()
    found = re.search(rf"^( +){table}: {{\n(.*?)^\1}}", text, re.MULTILINE | re.DOTALL)
    assert found is not None, table
    return set(re.findall(rf"^{found[1]}  (\w+):", found[2], re.MULTILINE))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_why_a_picture_ended(language):
    assert {reason.value for reason in EndReason} <= known(language, "reasons")
    assert {detail.value for detail in DutyEnd} <= known(language, "details")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_why_a_grant_counts_for_nothing(language):
    void = (
        Reason.DISPUTED,
        Reason.FROZEN,
        Reason.NOT_IN_LEDGER,
        Reason.MALFORMED_RULE,
        Reason.PARENT_REVOKED,
    )
    assert set(void) == known(language, "void")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_why_none_is_shown(language):
    said = codes().keys() | {reason.value for reason in Reason if reason not in ALLOWING}
    assert said - NOT_A_VIEWERS <= known(language, "problems")

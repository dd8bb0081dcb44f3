"""Every refusal that a caller can meet, as an RFC 9457 problem document with a stable `code`."""

import msgspec

_TITLES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be read"),
    "invalid_field": (422, "A field has a value that is not allowed"),
    "not_authenticated": (401, "Log in first"),
    "invalid_credentials": (401, "User name or password is wrong"),
    "second_factor_required": (401, "Give the code of your second factor"),
    "second_factor_enrolment_required": (403, "Set up your second factor first"),
    "second_factor_refused": (422, "The second factor cannot be changed so"),
    "network_not_allowed": (403, "This job may not come from that network"),
    "key_expired": (401, "The job's key has expired"),
    "undertaking_required": (403, "Accept the undertaking first: whoever uses it is responsible"),
    "undertaking_outdated": (409, "There is a newer undertaking"),
    "nobody_on_duty": (403, "Nobody is signed on at this wall"),
    "duty_refused": (422, "This person cannot sign on here"),
    "erasure_refused": (422, "This cannot be erased so"),
    "dispute_refused": (422, "This cannot be disputed so"),
    "login_throttled": (429, "Too many failed log-ins"),
    "login_busy": (503, "Too many log-ins at once"),
    "cross_origin": (403, "The request comes from another site"),
    "access_denied": (403, "You may not do this"),
    "not_found": (404, "There is no such thing, or you may not see it"),
    "method_not_allowed": (405, "This address does not know that method"),
    "conflict": (409, "It contradicts what is there"),
    "body_too_large": (413, "The request's body is too large"),
    "media_type_unknown": (415, "This address does not take a body of that type"),
    "import_invalid": (422, "Lines of the file are wrong, so nothing is imported"),
    "import_busy": (503, "Other files are being imported"),
    "purpose_required": (422, "Declare a purpose"),
    "purpose_unknown": (422, "There is no such purpose"),
    "purpose_reference_required": (422, "This purpose needs a reference"),
    "purpose_not_for_this": (422, "This purpose is not for that action"),
    "purpose_not_yours": (422, "This purpose is another department's"),
    "records_removed": (410, "The records that this needs were removed when their years had passed"),
    "camera_disabled": (409, "The camera is switched off in the catalogue"),
    "account_refused": (403, "This account is not yours to write"),
    "thumbnails_over": (410, "This batch of thumbnails is over, or has no such camera left"),
    "thumbnail_late": (503, "There was no time left for this picture"),
    "test_busy": (503, "Too many connections are being tested"),
    "grant_refused": (422, "This grant cannot be given"),
    "role_refused": (422, "This role cannot be made"),
    "role_read_only": (409, "This role comes from the policies file and is changed there"),
    "not_publishing": (504, "The camera's encoder is not publishing"),
    "session_over": (409, "The session is over"),
    "no_sub_stream": (422, "The camera has no second stream"),
    "ticket_required": (401, "The address lacks its ticket"),
    "ticket_invalid": (403, "The ticket is used, expired, or of another session"),
    "limit_sessions_total": (503, "All viewing sessions of the gateway are taken"),
    "limit_sessions_user": (503, "All your viewing sessions are taken"),
    "limit_sessions_department": (503, "All viewing sessions of your department are taken"),
    "limit_sessions_role": (503, "All viewing sessions of your role are taken"),
    "limit_sessions_camera": (503, "All viewing sessions of the camera are taken"),
    "limit_sessions_grant": (503, "All viewing sessions that the grant allows are taken"),
    "limit_bandwidth": (503, "The gateway's bandwidth is taken"),
    "limit_waiting": (503, "Too many wait for a place already"),
    "limit_analyses": (503, "All analyses of the gateway are taken"),
    "limit_listeners": (503, "Too many listeners"),
    "analyser_unknown": (422, "There is no such analyser"),
    "store_busy": (503, "Too much is being written at once"),
    "store_unavailable": (503, "The database or the ledger cannot be written, so nothing is granted"),
    "worker_unavailable": (503, "No relay worker is running"),
    "starting": (503, "The gateway is reading its policy; try again in a moment"),
    "draining": (503, "The gateway is shutting down"),
    "internal_error": (500, "The gateway failed; the log names the request"),
}


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an `application/problem+json` answer (RFC 9457 §3).

    `running` of `bound`: how full a limit is, in sessions or bit/s.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    request_id: str = ""
    reason: str | None = None
    rule: str | None = None
    running: int | None = None
    bound: int | None = None


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """Raise to refuse. `code` is one of `codes()`; status and title follow from it."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        headers: dict[str, str] | None = None,
        reason: str | None = None,
        rule: str | None = None,
        running: int | None = None,
        bound: int | None = None,
    ) -> None:
        self.status, self.title = _TITLES[code]
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.reason = reason
        self.rule = rule
        self.running = running
        self.bound = bound
        super().__init__(f"{code}: {detail or self.title}")

    def document(self, request_id: str) -> ProblemDocument:
        return ProblemDocument(
            type=f"urn:custos:problem:{self.code}",
            title=self.title,
            status=self.status,
            code=self.code,
            detail=self.detail,
            request_id=request_id,
            reason=self.reason,
            rule=self.rule,
            running=self.running,
            bound=self.bound,
        )


def codes() -> dict[str, int]:
    """Every code with its HTTP status, for the OpenAPI document and its test."""
    return {code: status for code, (status, _) in _TITLES.items()}

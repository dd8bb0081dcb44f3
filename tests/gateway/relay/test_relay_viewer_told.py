"""What a viewer on WebSocket reads last: why it ended, and which unit ended it."""

import json

import aiohttp
import pytest
from support.relay_worker import running_relay

from gateway.live_session import EndReason
from gateway.messages import End
from gateway.relay import viewer
from gateway.relay.viewer import MAX_CLOSE_REASON_BYTES, MAX_DETAIL_CHARACTERS, end_messages

UNIT = "交通运输局"


class _Over:
    """As much of a session as is told when it is over."""

    def __init__(self, reason, detail="", by=""):
        self.reason, self.detail, self.by = reason, detail, by
        self.why = f"{reason}; {by}" if by else reason


def _read(messages):
    """The text message, the code and the words of the closing one (RFC 6455 §5.2)."""
    assert messages[0] == 0x81
    size, start = messages[1], 2
    if size == 126:
        size, start = int.from_bytes(messages[2:4]), 4
    text, closing = messages[start : start + size], messages[start + size :]
    assert closing[0] == 0x88
    assert closing[1] == len(closing) - 2 <= 125
    return json.loads(text), int.from_bytes(closing[2:4]), closing[4:].decode()


@pytest.mark.parametrize("reason", EndReason)
def test_each_reason_has_a_code_of_its_own(reason):
    told, code, words = _read(end_messages(_Over(reason.value, "detail", UNIT)))
    assert told == {"type": "end", "reason": reason.value, "detail": "detail", "by": UNIT}
    assert 4000 <= code < 4099
    assert [other for other, number in viewer._END_CODES.items() if number == code] == [reason.value]
    assert words == f"{reason.value}; {UNIT}"


def test_a_reason_of_a_newer_control_is_told_all_the_same():
    told, code, words = _read(end_messages(_Over("of-tomorrow")))
    assert (told["reason"], code, words) == ("of-tomorrow", 4099, "of-tomorrow")


@pytest.mark.parametrize("beyond", [0, 1, 2, 3, 200])
def test_the_closing_words_are_cut_between_two_characters(beyond):
    room = MAX_CLOSE_REASON_BYTES - len("revoked; ")
    by = "x" * (room % 3) + "市" * (room // 3) + "x" * beyond
    _, _, words = _read(end_messages(_Over("revoked", by=by)))
    assert words == f"revoked; {by}"[: len(f"revoked; {by}") - beyond]
    by = "市" * (room // 3 + beyond)
    _, _, words = _read(end_messages(_Over("revoked", by=by)))
    assert words == f"revoked; {'市' * (room // 3)}"


def test_what_is_told_is_bounded():
    longest = _read(end_messages(_Over("revoked", "d" * (MAX_DETAIL_CHARACTERS + 1), "市" * 5000)))[0]
    assert len(longest["detail"]) == len(longest["by"]) == MAX_DETAIL_CHARACTERS


async def test_a_real_client_reads_it_in_the_closing_message(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.ws_connect(relay.media(session, "ws"), autoclose=False) as viewing:
            await viewing.receive_json()
            relay.control.send(End(session=session[0], reason="disputed", by=UNIT))
            while (message := await viewing.receive()).type is not aiohttp.WSMsgType.CLOSE:
                assert message.type in {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT}
        assert (message.data, message.extra) == (4010, f"disputed; {UNIT}")

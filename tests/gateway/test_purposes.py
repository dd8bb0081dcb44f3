"""The list of purposes: given once to a new installation, added to, never declared wrongly."""

from support.controls import Clock, open_city

from gateway.purposes import INITIAL


async def test_a_new_installation_has_the_first_ones_and_keeps_its_own(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        listed = (await city.call("job", "GET", "/purposes"))["items"]
        assert [item["code"] for item in listed] == sorted(entry.code for entry in INITIAL)
        assert {item["code"] for item in listed if item["needs_reference"]} == {"case", "emergency"}
        body = {"code": "flood", "text": {"zh": "防汛", "en": "Flood"}, "needs_reference": True}
        assert await city.call("root", "POST", "/purposes", body) == body
        assert (await city.call("root", "POST", "/purposes", body, 409))["code"] == "conflict"
    async with open_city(tmp_path, clock=clock) as city:
        listed = (await city.call("job", "GET", "/purposes"))["items"]
        assert len(listed) == len(INITIAL) + 1
        await city.grant()
        assert (await city.watch("urban-operator", purpose="flood", expect=422))[
            "code"
        ] == "purpose_reference_required"

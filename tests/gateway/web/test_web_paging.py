"""Listings: every item once, in one order, also while it changes, in every collation; names survive."""

import re

from support.controls import PASSWORD, Clock, add_camera, open_city

import gateway.directory
import gateway.grants

NAMES = (
    'O\'Neill, "gate" <b>1</b> & 100%',
    "人民路与中山路交叉口",
    "ａｂｃ",
    "ABC",
    "abc",
    "äbc",
    "_",
    "a_b",
    "%",
    "; DROP TABLE cameras;--",
    "🚦",
    "Ω",
    "é",
    "e\u0301",
    "＜script＞alert(1)＜/script＞",
    "\\",
    "{{7*7}}",
    "=1+1",
)


async def _pages(city, username, path, size):
    """Every item of a listing, page by page."""
    items, token = [], ""
    while token is not None:
        page = await city.call(username, "GET", f"{path}?page_size={size}{token}")
        assert len(page["items"]) <= size
        items += page["items"]
        token = page["next_page_token"]
        token = None if token is None else f"&page_token={_quoted(token)}"
    return items


def _quoted(text):
    return re.sub(rb"[^A-Za-z0-9]", lambda m: b"%%%02X" % m[0][0], text.encode()).decode()


async def test_names_survive_the_database_and_a_restart(tmp_path, database_url):
    clock = Clock()
    async with open_city(tmp_path, url=database_url, clock=clock) as city:
        for index, name in enumerate(NAMES):
            body = {
                "username": f"u{index}",
                "display_name": name,
                "department_id": "traffic",
                "password": PASSWORD,
            }
            await city.call("traffic-admin", "POST", "/users", {**body, "id": f"u{index}"})
            await city.call("traffic-admin", "POST", "/groups", {"name": name, "department_id": "traffic"})
            await add_camera(city, f"c{index}", name=name, description=f"{name}\n第二行", groups=[])
            await city.call("root", "POST", "/departments", {"name": name, "parent_id": "traffic"})
        body = {"code": "x", "text": {"zh": NAMES[0], "en": NAMES[1]}}
        await city.call("security", "POST", "/purposes", body)
    async with open_city(tmp_path, url=database_url, clock=clock) as city:
        cameras = {item["id"]: item for item in await _pages(city, "traffic-admin", "/cameras", 500)}
        for index, name in enumerate(NAMES):
            assert (cameras[f"c{index}"]["name"], cameras[f"c{index}"]["description"]) == (
                name,
                f"{name}\n第二行",
            )
        users = {
            item["id"]: item["display_name"] for item in await _pages(city, "traffic-admin", "/users", 500)
        }
        assert [users[f"u{index}"] for index in range(len(NAMES))] == list(NAMES)
        for path in ("/groups", "/departments"):
            names = {item["name"] for item in (await city.call("root", "GET", path))["items"]}
            assert names >= set(NAMES)
        purposes = {
            item["code"]: item["text"] for item in (await city.call("root", "GET", "/purposes"))["items"]
        }
        assert purposes["x"] == {"zh": NAMES[0], "en": NAMES[1]}
        contents = [record.content for record in await city.records(kind="camera_created")]
        assert all(any(name in content for content in contents) for name in NAMES)


async def test_pages_of_cameras_are_complete_and_in_one_order(tmp_path, database_url, monkeypatch):
    monkeypatch.setattr(gateway.directory, "CHUNK_ROWS", 4)
    async with open_city(tmp_path, url=database_url) as city:
        for index, name in enumerate((*NAMES, "abc", "abc")):
            await add_camera(city, f"c{index}", name=name)
        await city.grant(camera="c3")
        await city.grant(camera="c7")
        whole = await _pages(city, "traffic-admin", "/cameras", 500)
        for size in (1, 3, 500):
            paged = await _pages(city, "traffic-admin", "/cameras", size)
            assert [item["id"] for item in paged] == [item["id"] for item in whole]
            assert {item["id"] for item in paged} == {f"c{i}" for i in range(len(NAMES) + 2)} | {
                "gate",
                "bridge",
            }
            assert len(paged) == len(NAMES) + 4
            page = await city.call("traffic-admin", "GET", f"/cameras?page_size={size}")
            assert page["total"] == len(paged)
            own = await _pages(city, "urban-operator", "/cameras", size)
            assert {item["id"] for item in own} == {"c3", "c7"}
            assert (await city.call("urban-operator", "GET", "/cameras?page_size=1"))["total"] == 2


async def test_search_finds_text_and_not_patterns(tmp_path):
    async with open_city(tmp_path) as city:
        for index, name in enumerate(NAMES):
            await add_camera(city, f"c{index}", name=name, description="")
        for text, found in (
            ("%", {NAMES[0], "%"}),
            ("_", {"_", "a_b"}),
            ("人民", {NAMES[1]}),
            ("'", {NAMES[0]}),
        ):
            page = await city.call("traffic-admin", "GET", f"/cameras?q={_quoted(text)}")
            assert ({item["name"] for item in page["items"]}, page["total"]) == (found, len(found))
        assert (await city.call("urban-operator", "GET", "/cameras?q=gate"))["total"] == 0


async def test_a_page_token_stands_where_its_item_was(tmp_path):
    async with open_city(tmp_path) as city:
        for index in range(6):
            await add_camera(city, f"n{index}", name=f"n{index}")
        first = await city.call("traffic-admin", "GET", "/cameras?page_size=4&q=n")
        assert [item["id"] for item in first["items"]] == ["n0", "n1", "n2", "n3"]
        await city.call("traffic-admin", "DELETE", "/cameras/n3")
        await add_camera(city, "n35", name="n35")
        await add_camera(city, "n00", name="n00")
        token = _quoted(first["next_page_token"])
        second = await city.call("traffic-admin", "GET", f"/cameras?page_size=4&q=n&page_token={token}")
        assert [item["id"] for item in second["items"]] == ["n35", "n4", "n5"]


async def test_pages_of_users_are_complete_also_with_folded_names(tmp_path, database_url, monkeypatch):
    monkeypatch.setattr(gateway.directory, "CHUNK_ROWS", 3)
    async with open_city(tmp_path, url=database_url) as city:
        names = ("ａａ", "Bb", "ｂｃ", "CC", "ß", "straße", "丁", "甲", "z")
        for name in names:
            body = {"username": name, "display_name": name, "department_id": "traffic", "password": PASSWORD}
            await city.call("traffic-admin", "POST", "/users", body)
        for size in (1, 2, 500):
            paged = [item["username"] for item in await _pages(city, "traffic-admin", "/users", size)]
            assert len(paged) == len(set(paged))
            assert set(paged) >= {*names, "traffic-admin", "traffic-operator"}
        alone = [item["username"] for item in await _pages(city, "traffic-operator", "/users", 1)]
        assert alone == ["traffic-operator"]
        everybody = [item["username"] for item in await _pages(city, "root", "/users", 2)]
        assert len(everybody) == len(names) + 8


async def test_pages_of_grants(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway.grants, "CHUNK_ROWS", 2)
    async with open_city(tmp_path) as city:
        given = {await city.grant() for _ in range(7)}
        own = await city.grant("traffic-operator", "bridge")
        for size in (1, 3, 500):
            assert {item["id"] for item in await _pages(city, "traffic-admin", "/grants", size)} == given | {
                own
            }
            assert {item["id"] for item in await _pages(city, "urban-operator", "/grants", size)} == given
            assert await _pages(city, "urban-admin", "/grants", size) == []

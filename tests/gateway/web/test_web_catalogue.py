"""The listing of cameras: words and filters, counted over what the caller may see, on both databases."""

from support.controls import add_camera, open_city

NETWORKS = ("government-extranet", "video-private-network", "internet-private-line")


async def _ids(city, username="traffic-admin", **query):
    page = await city.call(username, "GET", "/cameras", params={"page_size": "500", **query})
    assert page["total"] == len(page["items"])
    return {item["id"] for item in page["items"]}


async def _furnish(city):
    await city.call("root", "POST", "/departments", {"id": "sub", "name": "sub", "parent_id": "traffic"})
    for group, parent in (("top", None), ("below", "top")):
        body = {"id": group, "name": group, "department_id": "traffic", "parent_id": parent}
        await city.call("traffic-admin", "POST", "/groups", body)
    await add_camera(
        city,
        "one",
        name="天河区体育西路 1 号枪机",
        place="ＡＢＣ Plaza",
        code="44010600001326000001",
        network="government-extranet",
        point_class=1,
        tags=["night"],
        groups=["below"],
    )
    await add_camera(
        city,
        "two",
        name="体育中心",
        description="天河\n第二行",
        department_id="sub",
        network="video-private-network",
        point_class=2,
        enabled=False,
        groups=["top"],
    )
    await add_camera(
        city,
        "three",
        name="Bridge 3",
        management_unit="天河分局",
        tags=["night", "day"],
        sharing={"mode": "not-shared"},
    )


async def test_words_and_filters(tmp_path, database_url):
    async def check(city):
        for query, found in (
            ({"q": "天河"}, {"one", "two", "three"}),
            ({"q": "体育 天河"}, {"one", "two"}),
            ({"q": "体育西路"}, {"one"}),
            ({"q": "河"}, {"one", "two", "three"}),
            ({"q": "天二"}, set()),
            ({"q": "abc plaza"}, {"one"}),
            ({"q": "44010600"}, {"one"}),
            ({"q": "THREE"}, {"three"}),
            ({"q": "bridge"}, {"bridge", "three"}),
            ({"q": "第二行"}, {"two"}),
            ({"department": "sub"}, {"two"}),
            ({"department": "traffic"}, {"one", "two", "three", "gate", "bridge"}),
            ({"department": "urban"}, set()),
            ({"department": "no-such"}, set()),
            ({"group": "top"}, {"one", "two"}),
            ({"group": "below"}, {"one"}),
            ({"tag": "night"}, {"one", "three"}),
            ({"tag": "no such"}, set()),
            ({"network": "government-extranet"}, {"one"}),
            ({"network": "internet-private-line"}, set()),
            ({"point_class": "2"}, {"two"}),
            ({"sharing_mode": "not-shared"}, {"three"}),
            ({"sharing_mode": "conditional"}, {"one", "two", "gate", "bridge"}),
            ({"enabled": "false"}, {"two"}),
            ({"enabled": "true", "q": "天河", "tag": "night"}, {"one", "three"}),
            ({"q": "天河", "tag": "night", "group": "top"}, {"one"}),
        ):
            assert await _ids(city, **query) == found, query

    async with open_city(tmp_path, url=database_url) as city:
        await _furnish(city)
        await check(city)
    async with open_city(tmp_path, url=database_url) as city:
        await check(city)


async def test_what_no_filter_is(tmp_path):
    async with open_city(tmp_path) as city:
        for query in (
            {"network": "lan"},
            {"point_class": "4"},
            {"point_class": "x"},
            {"enabled": "perhaps"},
            {"sharing_mode": "x"},
            {"tag": "a;b"},
            {"department": "a b"},
            {"page_token": "%"},
            {"unknown": "1"},
        ):
            refused = await city.call("traffic-admin", "GET", "/cameras", params=query, expect=422)
            assert refused["code"] == "invalid_field"


async def test_only_what_is_visible_is_found_and_counted(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await _furnish(city)
        assert await _ids(city, "urban-operator") == set()
        await city.grant(camera="two")
        for query in ({}, {"q": "天河"}, {"group": "top"}, {"department": "traffic"}, {"point_class": "2"}):
            assert await _ids(city, "urban-operator", **query) == {"two"}
        for query in ({"q": "体育西路"}, {"tag": "night"}, {"group": "below"}):
            assert await _ids(city, "urban-operator", **query) == set()
        await city.call("traffic-admin", "DELETE", "/cameras/two")
        assert await _ids(city, "urban-operator") == set()


async def test_changes_are_found_at_once(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call(
            "traffic-admin",
            "PATCH",
            "/cameras/gate",
            {"name": "东门", "network": NETWORKS[1], "tags": ["x"], "enabled": False},
        )
        assert await _ids(city, q="gate 摄像机") == set()
        assert (
            await _ids(city, q="东门", network=NETWORKS[1], tag="x", enabled="false")
            == await _ids(city, q="gate")
            == {"gate"}
        )
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"network": None, "tags": []})
        assert await _ids(city, network=NETWORKS[1]) == await _ids(city, tag="x") == set()


async def test_a_refused_write_changes_no_listing(tmp_path):
    async with open_city(tmp_path) as city:
        body = {"name": "东门", "groups": ["no-such"]}
        await city.call("traffic-admin", "PATCH", "/cameras/gate", body, 404)
        assert await _ids(city, q="东门") == set()
        assert await _ids(city, q="gate") == {"gate"}


async def test_the_longest_names_have_a_next_page(tmp_path):
    async with open_city(tmp_path) as city:
        for index in range(3):
            await add_camera(city, str(index) * 64, name="\ufdfa" * 200)
        token, seen = None, []
        while True:
            params = {"page_size": "1", **({"page_token": token} if token else {})}
            page = await city.call("traffic-admin", "GET", "/cameras", params=params)
            seen += [item["id"] for item in page["items"]]
            if (token := page["next_page_token"]) is None:
                break
        assert seen == ["bridge", "gate", *(str(index) * 64 for index in range(3))]


async def test_until_the_index_is_there_listings_come_later(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        monkeypatch.setattr(city.services.index, "_waiting", {})
        refused = await city.call("traffic-admin", "GET", "/cameras", expect=503)
        assert refused["code"] == "starting"
        await city.call("traffic-admin", "GET", "/cameras/gate")

"""What is wrong with a file of cameras is told, line by line; nothing of it is imported."""

import json

from support.catalogue_files import DEVICE, NDJSON, csv_file, import_file, json_lines, new_cameras
from support.controls import open_city

from gateway.import_plan import MAX_ERRORS


async def errors_of(city, username, content, **options):
    problem = await import_file(city, username, content, expect=422, **options)
    assert problem["code"] == "import_invalid"
    return [(e["line"], e.get("column"), e["code"]) for e in problem["report"]["errors"]]


BAD_LINES = [
    ({"name": ""}, ("name", "invalid_field")),
    ({"name": "n" * 10_000}, ("name", "invalid_field")),
    ({"name": "a\0b"}, ("name", "invalid_field")),
    ({"name": "a\x1bb"}, ("name", "invalid_field")),
    ({"id": "a b"}, ("id", "invalid_field")),
    ({"id": "a\0b"}, ("id", "invalid_field")),
    ({"id": "机"}, ("id", "invalid_field")),
    ({"name": "=1+1"}, ("name", "formula_cell")),
    ({"url": ""}, ("url", "required")),
    ({"url": "http://user:secret@127.0.0.1/"}, ("url", "invalid_field")),
    ({"url": "file:///etc/passwd"}, ("url", "invalid_field")),
    ({"url": "push:"}, ("username", "invalid_field")),
    ({"url": "push:", "username": "u", "password": "short"}, ("password", "invalid_field")),
    ({"sub_url": "gopher://127.0.0.1/"}, ("sub_url", "invalid_field")),
    ({"department_id": "nowhere"}, ("department_id", "unknown_department")),
    ({"department_id": "urban"}, ("department_id", "access_denied")),
    ({"groups": "nothing"}, ("groups", "unknown_group")),
    ({"code": "123"}, ("code", "invalid_field")),
    ({"code": DEVICE + "000x"}, ("code", "invalid_field")),
    ({"code": DEVICE + "0001", "network": "internet-private-line"}, ("code", "invalid_field")),
    ({"civil_code": "99"}, ("civil_code", "invalid_field")),
    ({"longitude": "181", "latitude": "1"}, ("longitude", "invalid_field")),
    ({"longitude": "1"}, ("latitude", "invalid_field")),
    ({"point_class": "4"}, ("point_class", "invalid_field")),
    ({"network": "wifi"}, ("network", "invalid_field")),
    ({"direction": "up"}, ("direction", "invalid_field")),
    ({"tags": ";".join(map(str, range(33)))}, ("tags", "invalid_field")),
    ({"tags": "x" * 33}, ("tags", "invalid_field")),
    ({"sharing_mode": "perhaps"}, ("sharing_mode", "invalid_field")),
    ({"sharing_mode": "unconditional"}, ("sharing_departments", "invalid_field")),
    (
        {"sharing_mode": "unconditional", "sharing_departments": "x"},
        ("sharing_departments", "invalid_field"),
    ),
    ({"sharing_until": "tomorrow"}, ("sharing_until", "invalid_field")),
    ({"sharing_purposes": "patrol;fun"}, ("sharing_purposes", "invalid_field")),
    ({"sharing_purposes": ";"}, ("sharing_purposes", "invalid_field")),
]  # fmt: skip
"""What is changed in a line, and the column and code that answer."""


async def test_a_bad_line_is_named_and_nothing_is_imported(tmp_path):
    async with open_city(tmp_path) as city:
        good, bad, last = new_cameras(3)
        for change, found in BAD_LINES:
            content = csv_file(good, {**bad, **change}, last)
            problem = await import_file(city, "traffic-admin", content, expect=422)
            (error,) = problem["report"]["errors"]
            assert (error["line"], error["column"], error["code"]) == (3, *found), change
            assert "secret" not in json.dumps(problem)
        assert (await city.call("traffic-admin", "GET", "/cameras"))["total"] == 2


async def test_json_values_of_other_kinds_are_refused(tmp_path):
    async with open_city(tmp_path) as city:
        (camera,) = new_cameras(1)
        for change, column in (
            ({"id": 7}, "id"),
            ({"id": ["x"]}, "id"),
            ({"code": {"a": 1}}, "code"),
            ({"tags": "a"}, "tags"),
            ({"tags": None}, "tags"),
            ({"enabled": 1}, "enabled"),
            ({"name": None}, "name"),
            ({"name": ["x"]}, "name"),
            ({"longitude": 1e308, "latitude": 0}, "longitude"),
            ({"point_class": 10**40}, "point_class"),
            ({"sharing": {"departments": "urban"}}, "sharing_departments"),
        ):
            ((line, found, _),) = await errors_of(
                city, "traffic-admin", json_lines(camera | change), kind=NDJSON
            )
            assert (line, found) == (1, column), change
        half = b'{"id":"x","name":"\\ud800","department_id":"traffic","url":"rtsp://127.0.0.1/"}'
        assert await errors_of(city, "traffic-admin", half, kind=NDJSON) == [(1, None, "json_invalid")]


async def test_ids_and_codes_are_there_once(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        first, second, third = new_cameras(3)
        code, other = DEVICE + "0001", DEVICE + "0002"
        assert await errors_of(
            city,
            "traffic-admin",
            csv_file({**first, "code": code}, {**second, "code": code}, {**third, "id": "new-0", "code": ""}),
        ) == [(3, "code", "duplicate_code"), (4, "id", "duplicate_id")]
        await import_file(city, "traffic-admin", csv_file({**first, "code": code}, {**second, "code": other}))
        assert await errors_of(city, "traffic-admin", csv_file({**third, "code": code})) == [
            (2, "code", "duplicate_code")
        ]
        # a line without an id is the camera that has its code
        report = await import_file(
            city, "traffic-admin", csv_file({"code": code, "name": "known by its code"})
        )
        assert report["updated"] == 1
        # and two cameras may exchange theirs
        exchange = csv_file({"id": "new-0", "code": other}, {"id": "new-1", "code": code})
        assert (await import_file(city, "traffic-admin", exchange))["updated"] == 2
        assert (await city.services.directory.camera_row("new-0")).code == other


async def test_who_may_not_manage_a_camera_cannot_import_it(tmp_path):
    async with open_city(tmp_path) as city:
        taken = csv_file({"id": "gate", "name": "mine"})
        assert await errors_of(city, "urban-admin", taken) == [(2, "id", "access_denied")]
        moved = csv_file({"id": "gate", "department_id": "urban"})
        assert await errors_of(city, "traffic-admin", moved) == [(2, "department_id", "access_denied")]
        assert await errors_of(city, "traffic-operator", csv_file(*new_cameras(1))) == [
            (2, "department_id", "access_denied")
        ]
        denials = [r for r in await city.records(kind="decision", outcome="deny") if "import" in r.content]
        assert [(r.actor_id, r.resource) for r in denials] == [
            ("urban-admin", "camera:gate"),
            ("traffic-admin", "department:urban"),
            ("traffic-operator", "department:traffic"),
        ]
        # whether a guess is right is not told to who may not manage the camera
        guess = csv_file({"id": "gate", "url": "rtsp://127.0.0.1:8554/gate"})
        problem = await import_file(city, "urban-admin", guess, expect=422, query="?dry_run=1")
        assert problem["report"]["unchanged"] == 0


async def test_errors_are_counted_and_the_first_are_told(tmp_path):
    async with open_city(tmp_path) as city:
        content = csv_file(*new_cameras(MAX_ERRORS + 5), point_class="9")
        problem = await import_file(city, "traffic-admin", content, expect=422)
        report = problem["report"]
        assert (report["error_count"], len(report["errors"])) == (MAX_ERRORS + 5, MAX_ERRORS)
        assert [error["line"] for error in report["errors"]] == list(range(2, MAX_ERRORS + 2))


async def test_a_file_without_cameras_is_refused(tmp_path):
    async with open_city(tmp_path) as city:
        for content in (b"", b"id,name\n", b"\xef\xbb\xbf\r\n"):
            assert await errors_of(city, "traffic-admin", content) == [(1, None, "file_empty")]
        assert await errors_of(city, "traffic-admin", b"\n", kind=NDJSON) == [(1, None, "file_empty")]

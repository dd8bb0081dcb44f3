"""Files of cameras, sent to a running control."""

import csv
import io
import json

DEVICE = "3401040300131600"
"""With four digits more it is a camera of the government's extranet."""
NDJSON = "application/x-ndjson"


def csv_file(*rows, **columns):
    """A file with a row for each mapping; columns that are given by name stand in each."""
    rows = [{**columns, **row} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def new_cameras(count, department="traffic", prefix="new"):
    """So many rows that can be created."""
    return [
        {
            "id": f"{prefix}-{number}",
            "name": f"{prefix} 路口 {number}",
            "department_id": department,
            "url": f"rtsp://127.0.0.1:8554/{number}",
        }
        for number in range(count)
    ]


async def import_file(city, username, content, *, expect=200, kind="text/csv", query=""):
    """The answer: a report, or a problem."""
    status, _, text = await city.request(
        "POST",
        f"/api/v1/cameras/import{query}",
        city.tokens[username],
        data=content,
        headers={"Content-Type": kind},
    )
    assert status == expect, text
    return json.loads(text)


async def export_file(city, username, form="csv"):
    """The file, as bytes."""
    return (await city.call(username, "GET", f"/cameras/export?format={form}")).encode()


def json_lines(*cameras):
    return "".join(json.dumps(camera, ensure_ascii=False) + "\n" for camera in cameras).encode()


async def make_group(city):
    await city.call(
        "traffic-admin",
        "POST",
        "/groups",
        {"id": "crossings", "name": "crossings", "department_id": "traffic"},
    )

import io
from collections import deque

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import catalogue_reading
from gateway.catalogue_columns import COLUMNS, HEADINGS, FileFormat
from gateway.catalogue_reading import MAX_COLUMNS, MAX_LINE, CameraLine, LineError, read_lines

CSV, JSON = FileFormat.CSV, FileFormat.JSON_LINES


def read(content, form=CSV):
    return list(read_lines(io.BytesIO(content), form))


def fields_of(text, form=CSV):
    lines = read(text.encode(), form)
    assert all(isinstance(line, CameraLine) for line in lines), lines
    return [line.fields for line in lines]


def error_of(content, form=CSV):
    found = read(content if isinstance(content, bytes) else content.encode(), form)
    assert len(found) == 1, found
    assert isinstance(found[0], LineError)
    return found[0].line, found[0].column, found[0].code


class Dripping(io.RawIOBase):
    """A file that gives so many bytes at once and no more."""

    def __init__(self, content, size):
        self._file = io.BytesIO(content)
        self._size = size

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self._file.seek(offset, whence)

    def tell(self):
        return self._file.tell()

    def readinto(self, buffer):
        return self._file.readinto(memoryview(buffer)[: self._size])


def test_a_line_says_what_its_columns_say():
    text = (
        "id,name,department_id,tags,enabled,point_class,longitude,sharing_until,password,url\r\n"
        'c1,"路口 ""东""\r\n二",traffic,夜间;重点；a b, TRUE ,2,-12.50,2027-01-01T00:00:00Z,,\r\n'
        ",,,,,,,,,\r\n"
        "c2,n,d,,,,,,secret,rtsp://h/\r\n"
    )
    assert fields_of(text) == [
        {
            "id": "c1",
            "name": '路口 "东"\r\n二',
            "department_id": "traffic",
            "tags": ["夜间", "重点", "a b"],
            "enabled": True,
            "point_class": 2,
            "longitude": -12.5,
            "sharing_until": "2027-01-01T00:00:00Z",
        },
        {
            "id": "c2",
            "name": "n",
            "department_id": "d",
            "tags": [],
            "point_class": None,
            "longitude": None,
            "sharing_until": None,
            "password": "secret",
            "url": "rtsp://h/",
        },
    ]
    assert [line.line for line in read(text.encode())] == [2, 5]


def test_no_password_is_in_a_lines_repr():
    (line,) = read(b"id,password\nc1,canary-5150\n")
    assert line.fields["password"] == "canary-5150"
    assert "canary" not in repr(line)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters_are_found_out(encoding, delimiter):
    text = delimiter.join(("编号", "名称", "标签")) + "\n" + delimiter.join(("c1", "联通大厦路口", "重点"))
    lines = read(text.encode(encoding))
    assert lines == [CameraLine(2, {"id": "c1", "name": "联通大厦路口", "tags": ["重点"]})]


def test_big_endian_utf16_is_known_by_its_mark():
    content = b"\xfe\xff" + "id\n城\n".encode("utf-16-be")
    assert read(content) == [CameraLine(2, {"id": "城"})]


def test_chinese_text_after_much_ascii_is_still_found_out():
    content = b"id,name\n" + b"c,camera\n" * 20_000 + "x,东路口\n".encode("gb18030")
    assert read(content)[-1] == CameraLine(20_002, {"id": "x", "name": "东路口"})


def test_broken_characters_harm_their_own_line_only():
    content = "id,name\nc1,好\nc2,".encode() + b"\xe4\xbd" + "\nc3,好\n".encode() + "好".encode() * 30_000
    first, broken, third, *_ = read(content)
    assert (first.fields["name"], third.fields["name"]) == ("好", "好")
    assert (broken.line, broken.column, broken.code) == (3, "name", "encoding_invalid")


def test_every_column_has_its_two_headings():
    assert fields_of(",".join(COLUMNS) + "\n" + "," * (len(COLUMNS) - 1)) == []
    chinese = ",".join(HEADINGS.values())
    (line,) = fields_of(chinese + "\n" + "1" + "," * (len(COLUMNS) - 1))
    assert line["id"] == "1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (1, None, "file_empty")),
        ("\n", (1, None, "file_empty")),
        (",,\n", (1, None, "file_empty")),
        ("id,colour\nc1,red\n", (1, "colour", "column_unknown")),
        ("id,id\nc1,c2\n", (1, "id", "column_duplicate")),
        ("id,编号\nc1,c2\n", (1, "id", "column_duplicate")),
        ("id," + "x" * 1000 + "\n", (1, "x" * 99 + "…", "column_unknown")),
        ("id,name\nc1\n", (2, None, "cells_differ")),
        ("id,name\nc1,a,b\n", (2, None, "cells_differ")),
        ('id,name\nc1,"a"b\n', (2, None, "quoting_invalid")),
        ('id,name\nc1,"never closed\n\n', (2, None, "quoting_invalid")),
        ("id,point_class\nc1,two\n", (2, "point_class", "invalid_field")),
        ("id,point_class\nc1,２\n", (2, "point_class", "invalid_field")),
        ("id,longitude\nc1,nan\n", (2, "longitude", "invalid_field")),
        ("id,longitude\nc1,1e400\n", (2, "longitude", "invalid_field")),
        ("id,enabled\nc1,perhaps\n", (2, "enabled", "invalid_field")),
        ("id,name\nc1,=1+1\n", (2, "name", "formula_cell")),
        ("id,name\nc1,+1\n", (2, "name", "formula_cell")),
        ("id,name\nc1,-1层\n", (2, "name", "formula_cell")),
        ("id,name\nc1,@x\n", (2, "name", "formula_cell")),
        ("id,name\nc1,＝1\n", (2, "name", "formula_cell")),
        ('id,name\nc1,"\tx"\n', (2, "name", "formula_cell")),
        ('id,name\nc1,"\rx"\n', (2, "name", "formula_cell")),
        ("id,tags\nc1,=a;b\n", (2, "tags", "formula_cell")),
        ("=id\n", (1, "=id", "column_unknown")),
    ],
)
def test_what_is_wrong_is_said_with_line_and_column(text, found):
    if found[0] == 1 and "column_" in found[2]:
        assert [(e.line, e.column, e.code) for e in read(text.encode())] == [found]
    else:
        assert error_of(text) == found


def test_a_quote_that_is_wrong_harms_its_own_line_only():
    first, second, third = read(b'id,name\nc1,a\nc2,"a"b\nc3,a\n')
    assert (first.line, third.line) == (2, 4)
    assert (second.line, second.code) == (3, "quoting_invalid")


@pytest.mark.parametrize("form", [CSV, JSON])
def test_a_file_has_so_many_lines_and_no_more(form, monkeypatch):
    monkeypatch.setattr(catalogue_reading, "MAX_LINES", 5)
    header, line = (b"id\n", b"c\n") if form is CSV else (b'{"id":"c"}\n', b'{"id":"c"}\n')
    assert all(isinstance(found, CameraLine) for found in read(header + 4 * line, form))
    *_, last = read(header + 5 * line, form)
    assert (last.line, last.code) == (6, "too_many_lines")


@pytest.mark.parametrize("line", [b"c,n\n", b",\n", b"\n", b'{"id": "c"}\n'])
def test_ten_million_lines_are_not_read_to_the_end(line):
    class Endless(io.RawIOBase):
        position = read_bytes = 0

        def readable(self):
            return True

        def seekable(self):
            return True

        def seek(self, offset, whence=0):
            self.position = offset
            return offset

        def tell(self):
            return self.position

        def readinto(self, buffer):
            content = self.start[self.position : self.position + len(buffer)]
            if not content:
                offset = self.position % len(line)
                content = (line * (len(buffer) // len(line) + 2))[offset : offset + len(buffer)]
            buffer[: len(content)] = content
            self.position += len(content)
            self.read_bytes = max(self.read_bytes, self.position)
            return len(content)

    form = JSON if line.startswith(b"{") else CSV
    file = io.BufferedReader(Endless())
    file.raw.start = b"" if form is JSON else b"id,name\n".ljust(len(line) * 2, b"\n")
    found = deque(read_lines(file, form), maxlen=1)
    assert found[0].code == "too_many_lines"
    assert file.raw.read_bytes < 10_000_000 * len(line)


def test_a_line_has_so_many_characters_and_no_more():
    room = MAX_LINE - len("c,\n")
    (whole,) = read(b"id,name\nc," + b"x" * room + b"\n")
    assert len(whole.fields["name"]) == room
    assert error_of(b"id,name\nc," + b"x" * (room + 1) + b"\n") == (2, None, "line_too_long")
    assert error_of(b'id,name\nc,"' + b"x\n" * MAX_LINE) == (2, None, "line_too_long")
    assert error_of(b"x" * (MAX_LINE + 1)) == (1, None, "line_too_long")
    value = b'{"name":"' + b"x" * (MAX_LINE - len(b'{"name":""}\n')) + b'"}\n'
    assert isinstance(read(value, JSON)[0], CameraLine)
    assert error_of(b" " + value, JSON) == (1, None, "line_too_long")


def test_a_file_has_so_many_columns_and_no_more():
    assert error_of(",".join(f"c{i}" for i in range(MAX_COLUMNS + 1))) == (1, None, "too_many_columns")
    assert all(
        e.code == "column_unknown" for e in read(",".join(f"c{i}" for i in range(MAX_COLUMNS)).encode())
    )


def test_json_lines_say_what_a_body_of_the_api_says():
    text = (
        '\ufeff{"id": "c1", "tags": ["a"], "sharing": {"mode": "not-shared"}}\n\n{"id": "c2", "code": null}\n'
    )
    first, second = fields_of(text, JSON)
    assert first == {
        "id": "c1",
        "tags": ["a"],
        "sharing_mode": "not-shared",
        "sharing_departments": [],
        "sharing_scope": "",
        "sharing_purpose": "",
        "sharing_frequency": "",
        "sharing_until": None,
    }
    assert second == {"id": "c2", "code": None}


@pytest.mark.parametrize(
    ("line", "column", "code"),
    [
        (b"[]", None, "json_invalid"),
        (b"{", None, "json_invalid"),
        (b'{"id": "\xff"}', None, "json_invalid"),
        (b"[" * 10_000, None, "json_invalid"),
        (b'{"a":' * 10_000, None, "json_invalid"),
        (b'{"colour": 1}', "colour", "column_unknown"),
        (b'{"sharing_mode": "x"}', "sharing_mode", "column_unknown"),
        (b'{"sharing": {"colour": 1}}', "sharing.colour", "column_unknown"),
        (b'{"sharing": 1}', "sharing", "invalid_field"),
    ],
)
def test_what_is_wrong_with_json(line, column, code):
    assert error_of(line, JSON) == (1, column, code)


_HOSTILE = st.binary(max_size=200) | st.lists(
    st.sampled_from(
        [b"id", b"name", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b"=1", b"\0", b"{", b"}",
         b'{"id":1}', b"\xef\xbb\xbf", b"\xff\xfe", b"\xb1\xb1", "北".encode(), b"tags",
         b"longitude", b"\xe4", b"1e9"]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip


@settings(max_examples=300)
@given(_HOSTILE, st.sampled_from([CSV, JSON]), st.booleans())
def test_no_bytes_make_reading_fail_and_chunks_make_no_difference(content, form, headed):
    if headed:
        content = b"id,name\n" + content
    whole = read(content, form)
    for size in (1, 2, 3, 7):
        assert list(read_lines(io.BufferedReader(Dripping(content, size), 16), form)) == whole
    for line in whole:
        assert isinstance(line, CameraLine | LineError)
        if isinstance(line, LineError):
            msgspec.json.encode(line)


@pytest.mark.parametrize("form", [CSV, JSON])
def test_a_file_is_read_from_its_start_and_stays_open(form):
    file = io.BytesIO("\ufeff".encode() + (b"id\nc\n" if form is CSV else b'{"id":"c"}'))
    file.seek(0, io.SEEK_END)
    assert [line.fields for line in read_lines(file, form)] == [{"id": "c"}]
    assert not file.closed

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.catalogue_columns import FileFormat
from gateway.catalogue_reading import CameraLine, read_lines
from gateway.catalogue_writing import write_csv_line, write_header, write_json_line


def fields_of(content, form):
    lines = list(read_lines(io.BytesIO(content), form))
    assert all(isinstance(line, CameraLine) for line in lines), lines
    return [line.fields for line in lines]


_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd\0"), max_size=30)
_ITEM = st.text(
    st.characters(codec="utf-8", exclude_characters="\ufffd;；\0"), min_size=1, max_size=8
).filter(lambda item: item == item.strip())
_FIELDS = st.fixed_dictionaries(
    {
        "name": _ANY_TEXT,
        "description": _ANY_TEXT,
        "code": st.none() | _ANY_TEXT.filter(bool),
        "tags": st.lists(_ITEM, max_size=3),
        "enabled": st.booleans(),
        "point_class": st.none() | st.integers(-5, 10**17),
        "longitude": st.none() | st.floats(-180, 180),
        "sharing_mode": st.just("conditional"),
        "sharing_departments": st.lists(_ITEM, max_size=3),
        "sharing_scope": _ANY_TEXT,
        "sharing_purpose": _ANY_TEXT,
        "sharing_frequency": _ANY_TEXT,
        "sharing_until": st.none() | st.just("2027-01-01T00:00:00Z"),
        "sharing_purposes": st.none() | st.lists(_ITEM, max_size=3),
    }
)


@given(st.lists(_FIELDS, min_size=1, max_size=4))
@example([{"name": "'=", "tags": ["=a", "b"], "description": "\r\n", "longitude": 5e-324}])
def test_what_is_written_is_read_as_it_was(cameras):
    columns = tuple(cameras[0])
    text = write_header(columns) + "".join(write_csv_line(columns, fields) for fields in cameras)
    assert fields_of(text.encode(), FileFormat.CSV) == cameras
    assert fields_of(("\ufeff" + text).encode(), FileFormat.CSV) == cameras
    lines = b"".join(write_json_line(columns, fields) for fields in cameras)
    assert fields_of(lines, FileFormat.JSON_LINES) == cameras


@given(_ANY_TEXT)
def test_no_cell_that_is_written_is_a_formula(text):
    (cell,) = next(csv.reader(io.StringIO(write_csv_line(["name"], {"name": text}), newline="")), [""])
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))

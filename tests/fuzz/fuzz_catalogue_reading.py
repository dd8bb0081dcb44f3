"""Files of cameras: whatever they hold, reading them gives lines and errors."""

import io

from fuzz.targets import target

from gateway.catalogue_columns import FileFormat
from gateway.catalogue_reading import read_lines


@target(
    "catalogue_csv",
    '\ufeffid,name,tags,longitude\r\nc1,"路口 ""东""\r\n",夜间;重点,-12.5\r\nc2,\'=1,,\r\n'.encode(),
    "编号;名称\nc1;东路口\n".encode("gb18030"),
    "id\tname\nc1\t东路口\n".encode("utf-16"),
)
def _csv(data: bytes) -> None:
    list(read_lines(io.BytesIO(data), FileFormat.CSV))


@target("catalogue_json_lines", b'{"id":"c1","sharing":{"mode":"conditional"}}\n{"id":"c2","tags":["a"]}\n')
def _json_lines(data: bytes) -> None:
    list(read_lines(io.BytesIO(data), FileFormat.JSON_LINES))

"""The columns of a file of cameras, and its forms."""

from enum import StrEnum
from typing import Any

Fields = dict[str, Any]
"""Values by column, as in JSON. A column that is not there says nothing."""

HEADINGS = {
    "id": "编号",
    "name": "名称",
    "department_id": "所属单位",
    "code": "编码",
    "civil_code": "行政区划",
    "point_class": "点位类别",
    "network": "网络",
    "place": "安装地址",
    "longitude": "经度",
    "latitude": "纬度",
    "direction": "方向",
    "management_unit": "管理单位",
    "retention_days": "保存天数",
    "tags": "标签",
    "description": "描述",
    "enabled": "启用",
    "sharing_mode": "共享方式",
    "sharing_departments": "共享单位",
    "sharing_scope": "共享范围",
    "sharing_purpose": "共享用途",
    "sharing_frequency": "提供频度",
    "sharing_until": "共享时效",
    "sharing_purposes": "允许事由",
    "groups": "分组",
    "declared_bandwidth_bps": "带宽",
    "url": "地址",
    "sub_url": "子码流地址",
    "username": "用户名",
    "password": "密码",
    "allow_basic": "允许基本认证",
}
"""Every column by its name in the API, and its Chinese heading, which is read as well."""

COLUMNS = tuple(HEADINGS)
CONNECTION_COLUMNS = ("groups", "declared_bandwidth_bps", "url", "sub_url", "username", "allow_basic")
"""Written only of cameras that the reader manages. A password is read, and never written."""

OF_HEADING = {name: name for name in COLUMNS} | {heading: name for name, heading in HEADINGS.items()}
"""Every column by what may stand over it."""

SHARING_FIELDS = tuple(name.removeprefix("sharing_") for name in COLUMNS if name.startswith("sharing_"))
"""Of the object `sharing` in a JSON line."""


class FileFormat(StrEnum):
    CSV = "csv"
    JSON_LINES = "jsonl"

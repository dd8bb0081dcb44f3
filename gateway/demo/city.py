"""The demonstration's city: its departments, people, cameras and grants. Data only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoDepartment:
    id: str
    name: str
    parent: str | None = None


@dataclass(frozen=True)
class DemoJob:
    """A job's particulars; it comes from this machine."""

    responsible: str
    processing: str
    recipients: tuple[str, ...]
    result_days: int


@dataclass(frozen=True)
class DemoUser:
    """`job`: of a program's account."""

    username: str
    display_name: str
    department: str
    role: str
    job: DemoJob | None = None


@dataclass(frozen=True)
class DemoCamera:
    """`scene` names a scene of `streams.simulator.scenes`. The sub stream has a lower bit rate."""

    id: str
    scene: str
    department: str
    codec: str = "h264"
    has_sub_stream: bool = False
    has_sound: bool = False


@dataclass(frozen=True)
class DemoGrant:
    """`giver` is a user name; subject and object are (kind, id)."""

    giver: str
    subject: tuple[str, str]
    object: tuple[str, str]
    actions: tuple[str, ...]
    reason: str
    purposes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DemoAnalysis:
    by: str
    camera: str


ROOT_NAME = "临海市人民政府"
ADMINISTRATOR = "admin"

DEPARTMENTS = (
    DemoDepartment("traffic", "交通运输局"),
    DemoDepartment("urban", "城市管理局"),
    DemoDepartment("rivers", "河道管理处", parent="urban"),
    DemoDepartment("data", "政务数据管理局"),
)

USERS = (
    DemoUser("traffic-admin", "陈思远", "traffic", "department-administrator"),
    DemoUser("urban-admin", "林雨晴", "urban", "department-administrator"),
    DemoUser("traffic-operator", "王建国", "traffic", "operator"),
    DemoUser("urban-operator", "赵敏", "urban", "operator"),
    DemoUser("security", "沈岚", "", "security-administrator"),
    DemoUser("auditor", "周正", "", "auditor"),
    DemoUser(
        "analysis-job",
        "场景分析程序",
        "urban",
        "job",
        DemoJob("urban-operator", "逐帧抽样检测移动，不识别人脸和车牌", ("城市管理局", "交通运输局"), 30),
    ),
)

CAMERAS = (
    DemoCamera("crossroads-day", "crossroads-day", "traffic", has_sub_stream=True),
    DemoCamera("crossroads-night", "crossroads-night", "traffic"),
    DemoCamera("highway", "highway", "traffic", has_sound=True),
    DemoCamera("market", "market", "urban", has_sub_stream=True),
    DemoCamera("car-park", "car-park", "urban"),
    DemoCamera("school-gate", "school-gate", "urban"),
    DemoCamera("riverside", "riverside", "rivers", codec="h265"),
)

WATCH = ("live:view", "live:snapshot")
GRANTS = (
    DemoGrant("traffic-admin", ("department", "traffic"), ("department", "traffic"), WATCH, "本单位业务"),
    DemoGrant("urban-admin", ("department", "urban"), ("department", "urban"), WATCH, "本单位业务"),
    DemoGrant(
        "traffic-admin", ("user", "urban-operator"), ("camera", "crossroads-day"), WATCH, "占道施工联合巡查"
    ),
    DemoGrant(
        "urban-admin",
        ("user", "traffic-operator"),
        ("camera", "market"),
        ("live:view",),
        "农贸市场周边交通疏导",
        purposes=("patrol", "emergency"),
    ),
    DemoGrant(
        "traffic-admin",
        ("user", "analysis-job"),
        ("camera", "crossroads-day"),
        ("frames:consume",),
        "场景分析",
    ),
    DemoGrant("urban-admin", ("user", "analysis-job"), ("camera", "market"), ("frames:consume",), "场景分析"),
)

ANALYSES = (DemoAnalysis("analysis-job", "crossroads-day"), DemoAnalysis("analysis-job", "market"))

import numpy as np
import pytest
from support.scenes import renderer

from streams.simulator.paint import Canvas, convex_hull
from streams.simulator.perspective import Viewpoint
from streams.simulator.rendering import HEIGHT, PICTURES_PER_SECOND, WIDTH
from streams.simulator.routes import Route
from streams.simulator.scenes import SCENES
from streams.simulator.surfaces import value_noise

VIEW = Viewpoint(width=640, height=360, height_m=8, pitch_degrees=15)


def test_a_point_lies_on_the_ray_of_its_pixel():
    rays = VIEW.rays(1)
    for u, v in ((3, 200), (320, 180), (639, 359)):
        point = np.array([0, 8, 0], np.float32) + rays[:, v, u] * 25
        pixels, depth = VIEW.project(point[None].astype(np.float32))
        assert pixels[0] == pytest.approx((u + 0.5, v + 0.5), abs=0.01)
        assert depth[0] == pytest.approx(25, rel=1e-4)


def test_what_is_behind_the_lens_is_not_ahead():
    assert VIEW.is_ahead(np.array([[0, 0, 20]], np.float32))
    assert not VIEW.is_ahead(np.array([[0, 0, 20], [0, 0, -5]], np.float32))


def test_a_polygon_is_filled_in_either_winding_and_hidden_by_what_is_nearer():
    square = np.array([(10, 10), (30, 10), (30, 30), (10, 30)], np.float32)
    for points in (square, square[::-1]):
        depth = np.full((40, 40), 100, np.float32)
        depth[:, :20] = 5
        canvas = Canvas(np.zeros((40, 40, 3), np.uint8), depth)
        canvas.polygon(points, (1, 0, 0), depth=50)
        assert (canvas.pixels[12:28, 22:28] == (255, 0, 0)).all()
        assert not canvas.pixels[:, :20].any()
        assert not canvas.pixels[32:].any()


def test_shapes_beyond_the_picture_and_without_area_are_no_error():
    canvas = Canvas(np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 100, np.float32))
    for points in (
        [(100, 100), (120, 100), (110, 120)],
        [(5, 5), (5, 5), (9, 9)],
        [(-50, -50), (90, -50), (20, 90)],
    ):
        canvas.polygon(np.array(points, np.float32), (1, 1, 1), depth=1)
    assert canvas.pixels.any()


def test_the_convex_hull():
    inside = [(x, y) for x in (1, 2) for y in (1, 2)]
    hull = convex_hull(np.array([(0, 0), (3, 0), (3, 3), (0, 3), *inside], np.float32))
    assert sorted(map(tuple, hull.tolist())) == [(0, 0), (0, 3), (3, 0), (3, 3)]


def test_a_route_follows_its_timetable_without_overshooting():
    route = Route(((0, 0), (0, 100)), ((0, 0), (5, 0.5), (10, 0.5), (15, 1)))
    poses = [route.pose(seconds) for seconds in np.arange(0, 15.01, 0.25)]
    z = [pose.z for pose in poses]
    assert np.diff(z).min() > -1e-3
    assert (z[0], z[20], z[40], z[60]) == pytest.approx((0, 50, 50, 100), abs=0.01)
    assert not poses[30].is_moving
    assert poses[10].is_moving
    assert poses[10].heading == pytest.approx((0, 1))
    assert route.pose(-0.1) is None
    assert route.pose(15.1) is None


def test_noise_is_within_0_and_1_and_the_same_everywhere():
    x, y = np.meshgrid(np.linspace(-50, 50, 200, dtype=np.float32), np.linspace(0, 90, 200, dtype=np.float32))
    noise = value_noise(x, y, 3)
    assert 0 <= noise.min() < 0.1
    assert 0.9 < noise.max() <= 1
    assert (value_noise(x, y, 3) == noise).all()


def test_there_are_enough_scenes_by_day_and_by_night():
    scenes = {name: build() for name, build in SCENES.items()}
    assert len(scenes) >= 6
    assert all(scene.name == name for name, scene in scenes.items())
    assert {scene.lighting.is_night for scene in scenes.values()} == {True, False}
    assert len({scene.title["zh"] for scene in scenes.values()}) == len(scenes)
    assert all(20 <= scene.pictures / PICTURES_PER_SECOND <= 40 for scene in scenes.values())
    for scene in scenes.values():
        assert max(actor.route.duration_seconds for actor in scene.actors) <= scene.loop_seconds


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_the_same_every_time_and_its_truth_lies_in_the_picture(name):
    again = type(renderer(name))(SCENES[name]())
    seen = set()
    for index in (0, 60, 140, 230):
        pixels, truth = renderer(name).picture(index)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert (again.picture(index)[0] == pixels).all()
        for box in truth:
            assert 0 <= box.x < box.x + box.w <= WIDTH
            assert 0 <= box.y < box.y + box.h <= HEIGHT
            seen.add(box.id)
        assert len({box.id for box in truth}) == len(truth)
    assert len(seen) >= 4


@pytest.mark.slow
def test_the_truth_is_where_the_picture_changes():
    name = "crossroads-day"
    first, _ = renderer(name).picture(0)
    second, truth = renderer(name).picture(25)
    changed = np.abs(first.astype(int) - second).sum(axis=2) > 90
    boxes = [box for box in truth if box.moving and box.w * box.h > 500]
    assert boxes
    shares = [changed[box.y : box.y + box.h, box.x : box.x + box.w].mean() for box in boxes]
    assert min(shares) > 4 * changed.mean()


@pytest.mark.slow
def test_the_loop_closes():
    """From the last picture to the first nothing moves further than between any two others."""

    def step(index: int, following: int) -> int:
        before, after = (renderer("highway").picture(i)[0].astype(int) for i in (index, following))
        return int((np.abs(after - before).sum(axis=2) > 60).sum())

    pictures = SCENES["highway"]().pictures
    assert step(pictures - 1, 0) < 2 * max(step(100, 101), step(200, 201))

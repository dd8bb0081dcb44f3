"""Who hears of what an import wrote."""

from support.catalogue_files import csv_file, import_file, make_group, new_cameras
from support.controls import open_city

from gateway.messages import StreamMoved


async def test_the_decision_point_and_the_listing_know_what_was_imported(tmp_path):
    async with open_city(tmp_path) as city:
        await make_group(city)
        revision = city.services.enforcement.revision
        await import_file(
            city, "traffic-admin", csv_file(*new_cameras(3), groups="crossings", tags="夜间;重点")
        )
        assert city.services.enforcement.revision == revision + 1
        for kind, name in (("group", "crossings"), ("tag", "重点"), ("camera", "new-1")):
            await city.watch("urban-operator", "new-1", expect=403)
            grant = await city.grant(object={"kind": kind, "id": name})
            assert (await city.watch("urban-operator", "new-1"))["id"]
            await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        page = await city.call("traffic-admin", "GET", "/cameras?page_size=500")
        assert page["total"] == 5
    async with open_city(tmp_path) as city:
        assert (await city.call("traffic-admin", "GET", "/cameras"))["total"] == 5


async def test_what_no_longer_runs_is_ended(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        await city.grant(user="urban-operator", camera="gate")
        session = await city.watch("urban-operator", "gate")
        await worker.start(session)
        await worker.claim("gate")
        await import_file(city, "traffic-admin", csv_file({"id": "gate", "enabled": "false"}))
        await worker.ended(session["id"])
        await worker.moved("gate")
        await import_file(city, "traffic-admin", csv_file({"id": "gate", "enabled": "true"}))
        await worker.moved("gate")


async def test_an_encoder_hears_of_its_camera_s_new_key_and_of_its_end(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        await worker.claim("gate")
        camera = "/cameras/gate"
        for change in ({"password": "another-password"}, {"enabled": False}, {"enabled": True}):
            await city.call("traffic-admin", "PATCH", camera, change)
            await worker.moved("gate")
        await city.call("traffic-admin", "DELETE", camera)
        await worker.moved("gate")


async def test_a_file_that_moves_a_city_tells_each_worker_of_its_own_cameras_only(tmp_path):
    """Telling all of all froze control for longer than the lease, and cut the workers' links."""
    async with open_city(tmp_path) as city:
        await import_file(city, "traffic-admin", csv_file(*new_cameras(300)))
        first, second = await city.worker(), await city.worker(1)
        await first.claim("new-1")
        await second.claim("new-2")
        elsewhere = [{"id": f"new-{n}", "url": f"rtsp://127.0.0.1:8555/{n}"} for n in range(300)]
        await import_file(city, "traffic-admin", csv_file(*elsewhere))
        for worker, camera in ((first, "new-1"), (second, "new-2")):
            await worker.moved(camera)
            assert not [message for message in worker.received if isinstance(message, StreamMoved)]


async def test_a_worker_that_was_away_hears_of_what_moved_meanwhile(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        claimed = await worker.claim("gate")
        worker.channel.abort()
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"password": "another-password"})
        again = await city.worker(streams={"gate": claimed.epoch})
        await again.moved("gate")

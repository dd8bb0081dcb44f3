from support.controls import open_city


async def test_opens(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)

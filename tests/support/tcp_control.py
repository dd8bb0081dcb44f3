"""A running control's API on a TCP port, as the command line's client reaches it through a relay worker."""

from contextlib import asynccontextmanager

from aiohttp import web

from gateway.web import application


@asynccontextmanager
async def tcp_control(city):
    """The address, for as long as the block runs."""
    runner = web.AppRunner(application(city.services, None), access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()

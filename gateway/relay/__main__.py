"""`python -m gateway.relay`: one relay worker, settings on stdin, ended by SIGTERM."""

import asyncio
import gc
import resource
import signal

import uvloop

from gateway.child import announce_and_beat, read_settings
from gateway.logs import configure_logs
from gateway.relay.settings import RelaySettings
from gateway.relay.worker import RelayWorker


async def _main(settings: RelaySettings) -> None:
    worker = RelayWorker(settings)
    # a full collection among the modules' 50,000 objects would stop all pictures for 20 to 50 ms
    gc.freeze()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run(lambda _port: announce_and_beat())


def main() -> None:
    settings = read_settings(RelaySettings)
    configure_logs(settings.log_format, settings.log_level, f"relay-{settings.worker}")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    uvloop.run(_main(settings))


if __name__ == "__main__":
    main()

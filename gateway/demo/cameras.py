"""`python -m gateway.demo.cameras`: the process that plays the demonstration's cameras, settings on stdin."""

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from gateway.child import announce_ready, read_settings
from gateway.logs import configure_logs
from streams.media import Codec
from streams.simulator.camera import Login, SimulatedCamera, serve_cameras
from streams.simulator.producer import ClipProducer, EncoderSettings
from streams.simulator.sound import ToneProducer

_SUB_STREAM_QUALITY = 34
_SUB_STREAM_BPS = 200_000


@dataclass(frozen=True, kw_only=True)
class SimulatedCameraSettings:
    name: str
    clip: str
    codec: Codec
    has_sub_stream: bool = False
    has_sound: bool = False


@dataclass(frozen=True, kw_only=True)
class CamerasSettings:
    """Every camera is at `rtsp://127.0.0.1:{port}/{name}` and asks for the one login."""

    port: int
    username: str
    password: str
    cameras: tuple[SimulatedCameraSettings, ...]
    log_format: str


async def run(settings: CamerasSettings) -> None:
    """Serve until SIGTERM. Raises OSError if the port is taken."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with AsyncExitStack() as stack:
        cameras = [
            SimulatedCamera(
                name=camera.name,
                producer=ClipProducer(Path(camera.clip), EncoderSettings(codec=camera.codec)),
                sub=_sub_stream(camera) if camera.has_sub_stream else None,
                sound=ToneProducer() if camera.has_sound else None,
                username=settings.username,
                password=settings.password,
                logins=(Login.DIGEST_SHA256, Login.DIGEST_MD5),
            )
            for camera in settings.cameras
        ]
        await stack.enter_async_context(serve_cameras(cameras, port=settings.port))
        announce_ready()
        await stopping.wait()


def _sub_stream(camera: SimulatedCameraSettings) -> ClipProducer:
    encoder = EncoderSettings(
        codec=camera.codec, quality=_SUB_STREAM_QUALITY, max_bit_rate_bps=_SUB_STREAM_BPS
    )
    return ClipProducer(Path(camera.clip), encoder)


def main() -> None:
    settings = read_settings(CamerasSettings)
    configure_logs(settings.log_format, "info", "cameras")
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()

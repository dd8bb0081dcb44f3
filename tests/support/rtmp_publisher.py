"""FFmpeg as an RTMP publisher, in a process of its own: PyAV holds the GIL while it connects.

`python -m support.rtmp_publisher URL CODEC SOUND PICTURES`: exits with 1 if FFmpeg is refused.
"""

import asyncio
import fractions
import os
import sys
from pathlib import Path


def _publish(url, codec, sound, pictures):
    import av
    import numpy as np

    with av.open(url, "w", format="flv") as output:
        video = output.add_stream(codec, rate=25, options={"preset": "ultrafast", "g": "10", "bf": "2"})
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        if sound:
            form, kind, rate = ("fltp", np.float32, 44100) if sound == "aac" else ("s16", np.int16, 8000)
            audio = output.add_stream(sound, rate=rate, layout="mono")
        for number in range(pictures):
            pixels = np.random.default_rng(number).integers(0, 255, (180, 320, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, 25)
            output.mux(video.encode(frame))
            if sound:
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), kind), form, "mono")
                tone.sample_rate, tone.pts, tone.time_base = rate, 1024 * number, fractions.Fraction(1, rate)
                output.mux(audio.encode(tone))
        output.mux(video.encode(None))


async def publish(port, *, login=("encoder", ""), camera="gate", codec="libx264", sound="aac", pictures=30):
    """Whether FFmpeg was let in and sent all its pictures; killed if the caller gives up."""
    url = f"rtmp://127.0.0.1:{port}/publish/{camera}?user={login[0]}&pass={login[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.rtmp_publisher", url, codec, sound or "", str(pictures),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    _publish(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))

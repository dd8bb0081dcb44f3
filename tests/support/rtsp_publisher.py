"""FFmpeg through PyAV as an encoder that publishes over RTSP, in a process of its own: it holds the GIL.

Usage: rtsp_publisher.py URL CODEC TRANSPORT [SOUND]; ends with its standard input, or when the server does.
"""

import sys
import threading
from fractions import Fraction

import av
import numpy as np

ENCODERS = {"h264": "libx264", "h265": "libx265"}
QUIET = {"h264": {}, "h265": {"x265-params": "log-level=none:pools=1:frame-threads=1"}}


def main(url, codec, transport, sound=None):
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    with av.open(url, "w", format="rtsp", options={"rtsp_transport": transport}) as output:
        video = output.add_stream(ENCODERS[codec], rate=25)
        video.width, video.height, video.pix_fmt, video.gop_size = 320, 240, "yuv420p", 10
        video.options = {"preset": "ultrafast", "tune": "zerolatency"} | QUIET[codec]
        audio = None
        if sound:
            audio = output.add_stream(sound, rate=8000 if sound.startswith("pcm") else 48000)
            audio.layout = "mono"
        number, samples = 0, 0
        while not stop.wait(0.02):
            image = np.full((240, 320, 3), number * 5 % 256, np.uint8)
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = number
            output.mux(video.encode(picture))
            number += 1
            while audio is not None and samples / audio.rate < number / 25:
                tone = silence(audio)
                tone.pts = samples
                output.mux(audio.encode(tone))
                samples += tone.samples


def silence(audio):
    kind = np.float32 if audio.format.name == "fltp" else np.int16
    samples = np.zeros((1, audio.frame_size or 160), kind)
    tone = av.AudioFrame.from_ndarray(samples, format=audio.format.name, layout="mono")
    tone.sample_rate, tone.time_base = audio.rate, Fraction(1, audio.rate)
    return tone


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except av.FFmpegError as error:
        sys.exit(f"{type(error).__name__}: {error.strerror}")

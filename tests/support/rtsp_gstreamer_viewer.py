"""GStreamer as a viewer. Runs under /usr/bin/python3, which has the bindings.

Usage: rtsp_gstreamer_viewer.py PROTOCOL URL; exits with 0 after 20 pictures, 1 without, 3 without GStreamer.
"""

import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst
except (ImportError, ValueError):
    sys.exit(3)

ELEMENTS = ("rtspsrc", "rtph264depay", "h264parse", "fakesink")


def main(protocol, url):
    Gst.init(None)
    if not all(map(Gst.ElementFactory.find, ELEMENTS)):
        sys.exit(3)
    pipeline = Gst.parse_launch(
        f"rtspsrc location={url} protocols={protocol} latency=50 ! rtph264depay ! h264parse "
        "! fakesink num-buffers=20 sync=false"
    )
    pipeline.set_state(Gst.State.PLAYING)
    wanted = Gst.MessageType.EOS | Gst.MessageType.ERROR
    message = pipeline.get_bus().timed_pop_filtered(15 * Gst.SECOND, wanted)
    pipeline.set_state(Gst.State.NULL)
    sys.exit(0 if message is not None and message.type == Gst.MessageType.EOS else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])

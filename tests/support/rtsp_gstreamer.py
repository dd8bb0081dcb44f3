"""Debian's GStreamer RTSP server as a camera. Runs under /usr/bin/python3, which has the bindings.

Usage: rtsp_gstreamer.py USERNAME PASSWORD; serves /h264, /h265 and, with sound, /aac and /pcma with digest,
prints its port, and ends with its standard input. Exits with 3 where GStreamer is not installed.
"""

import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
except (ImportError, ValueError):
    sys.exit(3)

SOURCE = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1,format=I420"
TONE = "audiotestsrc is-live=true ! audio/x-raw,rate=16000,channels=1"
PICTURES = (
    f"{SOURCE} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 threads=1 "
    "! rtph264pay name=pay0 pt=96 config-interval=1"
)
PIPELINES = {
    "/h264": f"( {PICTURES} )",
    "/h265": f"( {SOURCE} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=10 log-level=none "
    "! h265parse ! rtph265pay name=pay0 pt=97 )",
    "/pcma": f"( {PICTURES} {TONE} ! audioresample ! audio/x-raw,rate=8000 "
    "! alawenc ! rtppcmapay name=pay1 pt=8 )",
    "/aac": f"( {PICTURES} {TONE} ! voaacenc ! rtpmp4gpay name=pay1 pt=98 )",
}
ELEMENTS = (
    *("videotestsrc", "x264enc", "rtph264pay", "x265enc", "h265parse", "rtph265pay"),
    *("audiotestsrc", "alawenc", "rtppcmapay", "voaacenc", "rtpmp4gpay", "audioresample"),
)
ROLE = "viewer"


def main(username, password):
    Gst.init(None)
    if not all(map(Gst.ElementFactory.find, ELEMENTS)):
        sys.exit(3)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service("0")
    login = GstRtspServer.RTSPAuth.new()
    login.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken.new()
    token.set_string("media.factory.role", ROLE)
    login.add_digest(username, password, token)
    server.set_auth(login)
    mounts = server.get_mount_points()
    for path, pipeline in PIPELINES.items():
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(pipeline)
        factory.set_shared(True)
        factory.add_role_from_structure(
            Gst.Structure.from_string(f"{ROLE}, media.factory.access=true, media.factory.construct=true")[0]
        )
        mounts.add_factory(path, factory)
    loop = GLib.MainLoop()
    server.attach(None)
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_HUP, lambda *_: loop.quit())
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

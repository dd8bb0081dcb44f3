"""A real Chromium appends fragmented MP4, with sound and without, to a SourceBuffer and plays it."""

import base64

import msgspec
import pytest
from playwright.async_api import Page
from support.browser import open_browser, open_page
from support.units import RecordingReader, encode_clip, encode_sound

from streams.hub import Hub, HubSettings
from streams.media import AudioCodec, AudioUnit, Codec
from streams.mux import CONTAINERS, sample_of

PLAY = """async ([mime, pieces]) => {
  if (!MediaSource.isTypeSupported(mime)) return { supported: false };
  const video = document.createElement("video"), source = new MediaSource();
  video.muted = true;
  video.src = URL.createObjectURL(source);
  await new Promise((done) => source.addEventListener("sourceopen", done, { once: true }));
  const buffer = source.addSourceBuffer(mime);
  for (const piece of pieces) {
    const bytes = Uint8Array.from(atob(piece), (c) => c.charCodeAt(0));
    await new Promise((done, failed) => {
      buffer.onupdateend = done;
      buffer.onerror = () => failed(new Error("append failed"));
      buffer.appendBuffer(bytes);
    });
  }
  const ranges = [...Array(buffer.buffered.length).keys()].map(
    (i) => [buffer.buffered.start(i), buffer.buffered.end(i)]);
  if (!ranges.length) return { supported: true, ranges };
  source.endOfStream();
  video.currentTime = ranges[0][0];
  await video.play();
  await new Promise((done) => video.addEventListener("ended", done, { once: true }));
  return {
    supported: true, ranges, width: video.videoWidth, error: video.error && video.error.message,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    soundBytes: video.webkitAudioDecodedByteCount,
  };
}"""


async def played(page: Page, mime: str, pieces: list[bytes]) -> dict:
    await page.goto("about:blank")
    return await page.evaluate(PLAY, [mime, [base64.b64encode(piece).decode() for piece in pieces]])


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("b_frames", [0, 2])
async def test_chromium_plays_h264_and_aac(b_frames: int) -> None:
    track, units = encode_clip(Codec.H264, 50, b_frames=b_frames)
    sound, sounds = encode_sound(AudioCodec.AAC, 2.0)
    muxer = CONTAINERS["fmp4"](msgspec.structs.replace(track, audio=sound))
    pieces = [muxer.init]
    for unit in sorted((*units, *sounds), key=lambda u: u.received_ns):
        is_sound = isinstance(unit, AudioUnit)
        muxed = muxer.mux_audio(unit) if is_sound else muxer.mux(sample_of(Codec.H264, unit))
        pieces.append(muxed.head + muxed.mark + muxed.tail)
    async with open_browser() as browser, open_page(browser) as page:
        result = await played(page, muxer.mime, pieces)
    assert result["supported"]
    assert result["error"] is None
    assert len(result["ranges"]) == 1
    start, end = result["ranges"][0]
    assert end - start == pytest.approx(2.0, abs=0.15)
    assert result["width"] == track.width
    assert result["frames"] >= 45
    assert result["soundBytes"] > 0


@pytest.mark.browser
@pytest.mark.slow
async def test_chromium_shows_nothing_without_declared_sound_and_the_hub_declares_it_no_more() -> None:
    track, units = encode_clip(Codec.H264, 100)
    sound, _ = encode_sound(AudioCodec.AAC, 2.0)
    stream = Hub(HubSettings(merge_seconds=0)).open("cam")
    stream.configure(msgspec.structs.replace(track, audio=sound))
    reader = RecordingReader()
    stream.subscribe(reader, "fmp4", "unframed")
    for unit in units:
        stream.publish(unit)
    runs: list[tuple[str, list[bytes]]] = []
    muxed = iter(reader.units)
    for name, value in reader.calls:
        if name == "write":
            unit = next(muxed)
            runs[-1][1].append(unit.head + unit.mark + unit.tail)
        else:
            runs.append((value[1], [value[0]]))
    async with open_browser() as browser, open_page(browser) as page:
        results = [await played(page, mime, pieces) for mime, pieces in runs]
    assert [result["ranges"] for result in results] == [[], [[2, 4]]]
    assert results[1]["error"] is None
    assert results[1]["frames"] >= 45

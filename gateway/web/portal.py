"""The portal's built files: read once into memory, so that no path from a request ever reaches the disk."""

import mimetypes
from pathlib import Path

from aiohttp import hdrs, web

from gateway.problems import Problem
from gateway.web.middleware import etag_of

MAX_FILES = 500
_NOT_BUILT = (
    b"The portal is not built: run `make portal`. The API is at /api/v1, its description at /openapi.json.\n"
)


def routes(folder: Path | None) -> list[web.RouteDef]:
    """`/` and everything below the built folder; unknown paths below `/` are 404, the API's are its own."""
    files = _read(folder)

    async def serve(request: web.Request) -> web.Response:
        path = request.match_info.get("path", "") or "index.html"
        if not files and path == "index.html":
            return web.Response(body=_NOT_BUILT, content_type="text/plain")
        found = files.get(path)
        if found is None:
            raise Problem("not_found", request.path[:200])
        content, kind, etag = found
        immutable = path.startswith("assets/")
        headers = {
            hdrs.ETAG: etag,
            hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable" if immutable else "no-cache",
        }
        if request.headers.get(hdrs.IF_NONE_MATCH) == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=kind, headers=headers)

    return [web.get("/", serve), web.get("/{path:(?!api/|media/)[^/].*}", serve)]


def _read(folder: Path | None) -> dict[str, tuple[bytes, str, str]]:
    if folder is None or not (folder / "index.html").is_file():
        return {}
    files = {}
    for path in sorted(folder.rglob("*"))[:MAX_FILES]:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            files[path.relative_to(folder).as_posix()] = (content, kind, etag_of(content))
    return files

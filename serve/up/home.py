"""/ is a page for people: the funnel that is served, or what else is. Files as they come, and pictures of items.

The files say nothing of what is served and are open to all; the page asks for the token and sends it with its requests.
"""

import asyncio
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from serve.display import media_type
from serve.up import funnels
from serve.up.describe import operation
from serve.up.errors import Problem
from serve.up.house import House

SAFE = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
ALONE = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
"""For a picture, opened by itself."""

PLACEHOLDER = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" fill="#8a8f98"/>'
    b'<path d="M12 46l13-16 9 10 6-7 12 13z" fill="#c9ccd1"/><circle cx="43" cy="22" r="6" fill="#c9ccd1"/></svg>'
)
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")

FILES: dict[str, tuple[str | None, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in ("page.js", "show.js", "small.js", "talk.js")},
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": (None, "image/svg+xml"),
}


def routes(house: House) -> APIRouter:
    router = APIRouter(tags=["Page"])
    for path, (name, kind) in FILES.items():
        body = PLACEHOLDER if name is None else (files("serve.up") / "web" / name).read_bytes()
        _serve(router, path, body=body, kind=kind)

    @router.get("/v1/served", **operation("What is served, and how a funnel can be asked", answer="Served"))
    async def served() -> Response:
        serving = house.serving
        funnel = None if serving.funnel is None else funnels.about(serving.funnel)
        return JSONResponse({"name": serving.name, "versions": serving.versions, "funnel": funnel})

    about = operation("Picture of an item; a drawing where it has none", 404, 503, answer="Text", kinds=PICTURES)

    @router.get("/v1/items/{id:path}/image", **about)
    async def image(request: Request) -> Response:
        funnel = house.serving.funnel
        if funnel is None:
            raise Problem(404, "no funnel is served here, and nothing else has pictures")
        id = request.path_params["id"]
        found = await asyncio.to_thread(funnel.showcase.image, id)
        if found is None:
            raise Problem(404, "there is no such item", field="id")
        kind = media_type(found) if found else "image/svg+xml"
        if kind is None:
            raise Problem(404, "what is stored for this item is no PNG, JPEG, GIF or WebP", field="id")
        headers = {"Content-Type": kind, "Cache-Control": "private, max-age=60", **ALONE}
        return Response(found or PLACEHOLDER, headers=headers)

    return router


def _serve(router: APIRouter, path: str, *, body: bytes, kind: str) -> None:
    @router.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(body, headers={"Content-Type": kind, "Cache-Control": "no-cache", **SAFE})

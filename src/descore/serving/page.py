"""The pages for people: their files, under headers that let them load nothing else.

In: a page's name, and values of the server. Out: routes at `/` and below `/page/`. The look is that of the reports:
their style sheet comes first. Imports neither torch nor a model."""

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from types import MappingProxyType

from fastapi import FastAPI
from starlette.responses import Response

from descore.serving.problems import ServiceError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the pages' content: scripts and styles of this server alone, none inside a page."""
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)

_PACKAGE = files("descore")
_STATIC = _PACKAGE / "serving" / "static"
_ASSETS = {
    "house.css": (_PACKAGE / "report" / "templates" / "page.css", "text/css"),
    "page.css": (_STATIC / "page.css", "text/css"),
    "common.js": (_STATIC / "common.js", "text/javascript"),
    "score.js": (_STATIC / "score.js", "text/javascript"),
    "annotate.js": (_STATIC / "annotate.js", "text/javascript"),
}


def add_files(app: FastAPI, *, page: str, values: Mapping[str, object]) -> None:
    """A page at `/`, with values of the server in it, and what it loads below `/page/`. They need no token."""
    content = Template((_STATIC / page).read_text(encoding="utf-8")).substitute(values)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(content, media_type="text/html; charset=utf-8", headers=dict(HEADERS))

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise ServiceError("not_found", "no such file of the page")
        path, kind = _ASSETS[name]
        return Response(path.read_bytes(), media_type=f"{kind}; charset=utf-8", headers=dict(HEADERS))

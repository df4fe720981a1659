"""The control plane: health, metrics, the admin API and the ops page, on FastAPI.

None of it is on the request path. It can be split over two listeners: what load balancers ask beside the data plane,
the rest on a port of its own.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.control import documents
from gateway.control.admin import admin_router
from gateway.control.admin_gate import AdminAccess, AdminGate
from gateway.control.envelope import envelope
from gateway.control.ops_page import OpsPage
from gateway.control.sources import ControlSources
from gateway.errors import RequestError
from gateway.observe.metrics import CONTENT_TYPE

__all__ = ["ControlSources", "create_control_app"]


def create_control_app(sources: ControlSources, *, public: bool = True, admin: bool = True) -> FastAPI:
    """The ASGI app. ``public``: ``/healthz`` and ``/readyz``; ``admin``: ``/admin``, ``/metrics`` and ``/ops``."""
    app = FastAPI(title="failsoft", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misused)
    app.add_exception_handler(RequestError, _mistaken)
    app.add_exception_handler(Exception, _broken)
    if public:
        _add_health(app, sources)
    if admin:
        _add_metrics(app, sources)
        _add_ops_page(app)
        app.include_router(admin_router(sources))
        access = AdminAccess(sources.admin_token, lambda: sources.policies.current)
        app.add_middleware(AdminGate, access=access, changed=sources.audit.record, refused=sources.audit.refused)
    return app


def _add_health(app: FastAPI, sources: ControlSources) -> None:
    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> JSONResponse:
        return JSONResponse({"ok": True})

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> JSONResponse:
        ready, document = documents.readiness(sources)
        return JSONResponse(document, 200 if ready else 503)


def _add_metrics(app: FastAPI, sources: ControlSources) -> None:
    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(sources.registry.render(), headers={"content-type": CONTENT_TYPE})


def _add_ops_page(app: FastAPI) -> None:
    page = OpsPage.load()

    @app.get("/ops")
    async def ops() -> Response:
        return Response(page.html, media_type="text/html; charset=utf-8", headers=page.headers)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    message = error.detail
    if error.status_code == 404:
        message = f"{request.method} {request.url.path} is not served here."
    elif error.status_code == 405:
        message = f"{request.url.path} does not take {request.method}."
    return envelope(error.status_code, message, headers=error.headers)


async def _mistaken(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestError):
        raise error
    return envelope(error.status, error.message, param=error.param, code=error.code)


async def _misused(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"][1:])
    return envelope(400, f"{where}: {found['msg']}", param=where)


async def _broken(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again behind this answer, so that the server logs it.
    return envelope(500, f"An internal error ({type(error).__name__}); the gateway's log says more.")

"""The application: settings, database, what runs beside the requests, and every router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI

import rlhf_cluster
from rlhf_cluster.service import problems, web
from rlhf_cluster.service.api import health, session, tokens
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store.database import Database

PREFIX = "/api/v1"
ROUTERS: tuple[APIRouter, ...] = (session.router, tokens.router)


@dataclass(slots=True)
class Service:
    """What every request finds in `request.app.state.service`."""

    settings: ServiceSettings
    db: Database


def create_app(settings: ServiceSettings) -> FastAPI:
    """Opens and migrates the database. Raises `ConfigError` or `StorageError` where that fails."""
    db = Database(settings.database_url)
    db.migrate()
    service = Service(settings=settings, db=db)
    app = FastAPI(
        title="rlhf_cluster",
        version=rlhf_cluster.__version__,
        description="Submit RLHF jobs to a Ray cluster, watch them, and scale their workers while they run.",
        root_path=settings.root_path,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.service = service
    problems.install(app)
    web.install(app, settings)
    app.include_router(health.router)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    beside: list[asyncio.Task[None]] = []
    try:
        yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        app.state.service.db.close()

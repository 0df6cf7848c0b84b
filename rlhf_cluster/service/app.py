"""The application: settings, database, what runs beside the requests, and every router."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI

import rlhf_cluster
from rlhf_cluster.service import openapi, problems, web
from rlhf_cluster.service.api import (
    attempts,
    audit,
    checkpoints,
    cluster,
    commands,
    events,
    health,
    jobs,
    label_sets,
    labels,
    lifecycle,
    logs,
    metrics,
    page,
    pools,
    recipes,
    relay,
    samples,
    scrape,
    session,
    tokens,
    uploads,
    workers,
)
from rlhf_cluster.service.failures import Failures
from rlhf_cluster.service.hub import Hub
from rlhf_cluster.service.prometheus import Exposition
from rlhf_cluster.service.ray_cluster import ClusterView
from rlhf_cluster.service.ray_jobs import RayJobs
from rlhf_cluster.service.reconcile import Reconciler
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.shared import Shared
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.upkeep import Upkeep

PREFIX = "/api/v1"
log = logging.getLogger(__name__)
ROUTERS: tuple[APIRouter, ...] = (
    session.router,
    tokens.router,
    cluster.router,
    jobs.router,
    lifecycle.router,
    pools.router,
    workers.router,
    metrics.router,
    samples.router,
    events.router,
    logs.router,
    checkpoints.router,
    commands.router,
    attempts.router,
    uploads.router,
    label_sets.router,
    labels.router,
    audit.router,
    recipes.router,
    relay.router,
)


@dataclass(slots=True)
class Service:
    """What every request finds in `request.app.state.service`."""

    settings: ServiceSettings
    db: Database
    cluster: ClusterView
    reconciler: Reconciler
    hub: Hub
    exposition: Exposition
    shared: Shared
    failures: Failures
    upkeep: Upkeep


def create_app(settings: ServiceSettings) -> FastAPI:
    """Opens and migrates the database. Raises `ConfigError` or `StorageError` where that fails."""
    db = Database(settings.database_url)
    db.migrate()
    ray = RayJobs(settings.ray_jobs_url, token=settings.ray_token) if settings.ray_jobs_url else None
    hub = Hub(db, max_streams=settings.max_streams)
    service = Service(
        settings=settings,
        db=db,
        cluster=ClusterView(ray),
        reconciler=Reconciler(db, ray, settings),
        hub=hub,
        exposition=Exposition(db, hub),
        shared=Shared(db),
        failures=Failures(),
        upkeep=Upkeep(db, settings),
    )
    app = FastAPI(
        title="rlhf_cluster",
        version=rlhf_cluster.__version__,
        description="Submit RLHF jobs to a Ray cluster, watch them, and scale their workers while they run.",
        root_path=settings.root_path,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan,
    )
    app.state.service = service
    problems.install(app)
    web.install(app, settings)
    app.include_router(health.router)
    app.include_router(scrape.router)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(page.routes())
    openapi.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    service = app.state.service
    beside = [
        asyncio.create_task(service.reconciler.run(), name="reconciler"),
        asyncio.create_task(service.hub.run(), name="hub"),
        asyncio.create_task(service.upkeep.run(), name="upkeep"),
    ]
    for task in beside:
        task.add_done_callback(_tell_of_its_end)
    try:
        yield
    finally:
        service.hub.close()
        service.upkeep.close()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        service.db.close()


def _tell_of_its_end(task: asyncio.Task[None]) -> None:
    """None of them ends while the service runs, and nobody waits for what they raise."""
    if not task.cancelled() and (error := task.exception()):
        log.critical("the %s has ended, and does its work only after a restart", task.get_name(), exc_info=error)

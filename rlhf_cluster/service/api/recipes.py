"""The recipes that jobs can be started from."""

from __future__ import annotations

import tomllib

from fastapi import APIRouter

from rlhf_cluster.config.load import find, recipe_names
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.jobs import Recipe

router = APIRouter(prefix="/recipes", tags=["recipes"])


@router.get("")
def list_recipes(caller: Reader) -> Page[Recipe]:
    """By name."""
    sources = {name: find(name).read_text(encoding="utf-8") for name in recipe_names()}
    return Page(
        items=[
            Recipe(name=name, description=tomllib.loads(source).get("description", ""), source=source)
            for name, source in sources.items()
        ]
    )

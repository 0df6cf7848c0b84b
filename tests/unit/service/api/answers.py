"""What tests of the API send most and look at in every refusal."""

from __future__ import annotations

from typing import Any

from httpx import Response

JOBS = "/api/v1/jobs"
BODY: dict[str, Any] = {"recipe": "word-world", "overrides": ["train.num_steps=3"]}


def refusal(answer: Response, status: int, code: str) -> str:
    """Its sentence."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem["detail"]

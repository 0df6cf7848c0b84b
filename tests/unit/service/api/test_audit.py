"""Every change that was asked for is kept: who, what, and how it was answered."""

from __future__ import annotations

from .answers import BODY, JOBS, refusal


def test_an_admin_sees_who_asked_for_what_newest_first(api, api_as):
    job_id = api.post(JOBS, json=BODY).json()["job_id"]
    api_as("read").post(f"{JOBS}/{job_id}/kill")
    api.get(JOBS)
    admin = api_as("admin")
    page = admin.get("/api/v1/audit", params={"limit": 1}).json()
    rest = admin.get("/api/v1/audit", params={"cursor": page["next_cursor"]}).json()
    entries = [(each["who"], each["method"], each["path"], each["status"]) for each in page["items"] + rest["items"]]
    assert entries == [("read", "POST", f"{JOBS}/{job_id}/kill", 403), ("submit", "POST", JOBS, 201)]


def test_nobody_else_does(api):
    refusal(api.get("/api/v1/audit"), 403, "forbidden")

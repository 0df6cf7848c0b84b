"""The service's log: one JSON object a line, with the request, job and attempt that a line is about."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, TextIO

FIELDS = ("request_id", "who", "duration_s", "job_id", "attempt")
QUIET = ("httpx", "httpcore", "alembic", "sqlalchemy")
"""They tell of every call that went well."""


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) not in (None, "")}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(stream: TextIO | None = None) -> None:
    """For the whole process; whoever logs needs to know nothing of it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)

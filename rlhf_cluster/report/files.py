"""The two files of a report."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.errors import StorageError
from rlhf_cluster.report.page import page
from rlhf_cluster.report.report import Report, report_data


def write_report(report: Report, html_file: Path) -> None:
    """`html_file`, and beside it the same name with `.json`. Raises `StorageError`."""
    data = json.dumps(report_data(report), indent=2, ensure_ascii=True, allow_nan=False)
    try:
        html_file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(html_file, page(report))
        write_whole(html_file.with_suffix(".json"), f"{data}\n")
    except OSError as error:
        raise StorageError(f"{html_file} cannot be written: {error.strerror}; name another file with --html") from error

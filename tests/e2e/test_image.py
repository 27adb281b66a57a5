"""
The image, where there is no container engine: its first stage's steps run into a folder, and services from it as they
would in a container: as nobody in particular, in an empty folder, with the image's environment and nothing else, and
with a root file system that cannot be written to.
"""

import base64
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import aiohttp
import pytest

from services.cli.brokers.ports import free_ports
from services.cli.main import COMMANDS
from tests.brokers import NO_DOCKER, lacking
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "deploy" / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
LAST_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]
WHERE = "/opt/tenterhook"
SERVICES = ("ingest", "dispatcher", "breaker", "admin")
[USER] = re.findall(r"^USER (\d+):\d+$", LAST_STAGE, re.MULTILINE)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


#: Runs a command where nothing can be written but to /tmp, which is new and has this folder in it, and to the volume,
#: which is /mnt: what `read_only: true` and `readOnlyRootFilesystem` make of a container's root.
READ_ONLY = r"""
set -e
root=$1 user=$2
shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=1777 tmpfs /mnt
mkdir -p "/mnt/${root#/tmp/}"
mount --bind "$root" "/mnt/${root#/tmp/}"
mount -o remount,bind,ro "/mnt/${root#/tmp/}"
mount --move /mnt /tmp
mount -t tmpfs -o mode=0700,uid=$user,gid=$user tmpfs /mnt
mount -o remount,bind,ro /
exec "$@"
"""
VOLUME = "/mnt"


class Image:
    """What the second stage adds to what the first has made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "opt" / "tenterhook"
        #: The image's working directory: nothing is in it, and nobody may write there.
        self.folder = root / "etc"
        self.folder.mkdir(mode=0o755)
        build = ROOT / re.findall(rf"^RUN (\S+build\.sh) {WHERE}$", DOCKERFILE, re.MULTILINE)[0]
        environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": ""}
        subprocess.run((build, self.tree), env=environment, check=True, timeout=240, cwd=root)
        self.environment = {
            name: value.replace(WHERE, str(self.tree))
            for name, value in re.findall(r"^ENV (\w+)=(.*)$", LAST_STAGE, re.MULTILINE)
        }
        self.entry = (str(self.tree / "bin" / "tenterhook"),)

        #: Whether we may choose as whom it runs, and on what.
        self.drops = os.geteuid() == 0 and shutil.which("setpriv") is not None
        self._confines = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(root), USER)
        self.is_read_only = self.drops and self._refuses_writes()

    def _refuses_writes(self) -> bool:
        if shutil.which("unshare") is None or not self.root.is_relative_to("/tmp"):
            return False
        # As root, who may write wherever it can be done.
        tried = f"! [ -w /etc ] && ! [ -w {self.root} ] && [ -w /tmp ] && [ -w {VOLUME} ]"
        return subprocess.run((*self._confines, "sh", "-c", tried), capture_output=True, check=False).returncode == 0

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The command, as the image's user and on a root that is read-only, where we may choose."""
        drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
        confined = self._confines if self.is_read_only else ()
        return (*confined, *(drop if self.drops else ()), *arguments)


@pytest.fixture(scope="module")
def image():
    # Not below pytest's folder, which is its user's alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Image(Path(folder))


def test_it_is_tried_as_it_runs(image):
    """What the other tests here leave out on this machine; in CI they may leave out nothing."""
    [version] = re.findall(r"^ARG PYTHON_IMAGE=python:(\S+)-slim$", DOCKERFILE, re.MULTILINE)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"

    assert f"--python-version {version} " in (ROOT / "Makefile").read_text()
    if not image.drops:
        lacking("the image runs as whoever runs the tests: choosing another wants root and setpriv")
    if not image.is_read_only:
        lacking("the image runs on a root that can be written to: this machine does not let unshare make another")
    if here != version:
        lacking(f"the image is tried with Python {here} and has {version}")


_LIST = "from importlib.metadata import distributions as found; print(*(f'{d.name}=={d.version}' for d in found()))"


def test_it_holds_what_is_locked_and_nothing_to_install_with(image):
    listed = subprocess.run(
        (image.tree / "bin" / "python", "-c", _LIST), capture_output=True, text=True, check=True, cwd=image.folder
    )
    found = dict(each.lower().replace("_", "-").split("==") for each in listed.stdout.split())
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / "main.txt").read_text(), re.MULTILINE))

    assert found.pop("tenterhook")
    assert found.items() <= {name.lower(): version for name, version in locked.items()}.items()
    assert {"pip", "setuptools", "uv", "pytest"}.isdisjoint(found)
    assert not [path for path in image.tree.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


_IMPORT = """
import sys
from importlib import import_module
for each in sys.argv[1:]:
    import_module(each)
"""


def test_every_command_is_there(image):
    """Each is imported when it is called: what one lacks is not missed before."""
    modules = sorted({path.partition(":")[0] for _, path, _, _ in COMMANDS})
    run = subprocess.run(
        image.command(str(image.tree / "bin" / "python"), "-c", _IMPORT, *modules),
        env=image.environment, cwd=image.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (run.returncode, run.stderr) == (0, "")


def test_it_takes_every_package_of_the_project():
    """What a build takes is listed in three places, and every package of the wheel has to be in each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {each.rstrip("*") for each in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))
    kept = {each[1:] for each in (IMAGE / "Dockerfile.dockerignore").read_text().split() if each.startswith("!")}
    [built] = re.findall(r"^for each in (.+); do$", (IMAGE / "build.sh").read_text(), re.MULTILINE)

    assert packages == {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "tests"}
    assert packages <= copied
    assert packages <= kept
    assert packages <= set(built.split())


class Containers:
    """Services out of the image, each on a port of its own."""

    def __init__(self, image: Image, folder: Path, **settings: str) -> None:
        self._image, self._folder = image, folder
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        ports = {f"TENTERHOOK_{service.upper()}__PORT": str(port) for service, port in self.ports.items()}
        self._environment = image.environment | settings | ports
        [health] = re.findall(r'^HEALTHCHECK .* CMD \["python", "(.+)"\]$', LAST_STAGE, re.MULTILINE)
        self._health = str(image.tree / "bin" / "python"), health.replace(WHERE, str(image.tree))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: str) -> None:
        with (self._folder / service).open("wb") as output:
            self.running[service] = subprocess.Popen(
                self._image.command(*self._image.entry, service),
                env=self._environment,
                cwd=self._image.folder,
                stdout=output,
                stderr=output,
            )

    def is_healthy(self, service: str) -> bool:
        """What the image's health check says."""
        command = self._image.command(*self._health, service)
        return subprocess.run(command, env=self._environment, check=False).returncode == 0

    def asked_of(self, service: str) -> list[str] | None:
        """What the health check takes its process for, where nobody names the service."""
        command = Path(f"/proc/{self.running[service].pid}/cmdline").read_text().rstrip("\0").split("\0")
        found: list[str] | None = runpy.run_path(self._health[1])["asked_of"](command)
        return found

    async def is_ready(self, service: str) -> bool:
        assert self.running[service].poll() is None, self.said(service)
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.ports[service]}/health/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    @property
    def users(self) -> set[int]:
        return {Path(f"/proc/{each.pid}").stat().st_uid for each in self.running.values()}

    def said(self, service: str) -> str:
        return (self._folder / service).read_text()

    def stop(self) -> list[int]:
        """SIGTERM to all; their exit codes."""
        for each in self.running.values():
            each.terminate()
        return [each.wait(40) for each in self.running.values()]

    def kill(self) -> None:
        for each in self.running.values():
            each.kill()
            each.wait()


async def test_every_service_runs_from_it_and_its_health_is_seen(image, embedded_connection, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in image.tree.rglob("*")}
    containers = Containers(
        image,
        tmp_path,
        TENTERHOOK_BROKER=embedded_connection.bootstrap,
        TENTERHOOK_TOPIC_PREFIX=embedded_connection.prefix,
        TENTERHOOK_KEK=base64.b64encode(bytes(32)).decode(),
        TENTERHOOK_PARTITIONS__BY_APP="1",
        TENTERHOOK_PARTITIONS__BY_INTEGRATION="1",
        **({"TENTERHOOK_HISTORY__DIRECTORY": f"{VOLUME}/history"} if image.is_read_only else {}),
    )
    try:
        was_healthy = containers.is_healthy("ingest")
        for service in SERVICES:
            containers.start(service)
        for service in SERVICES:
            await eventually(lambda service=service: containers.is_ready(service), 60)
        healthy = [containers.is_healthy(service) for service in SERVICES]
        known = [containers.asked_of(service) for service in SERVICES]
        users = containers.users
        codes = containers.stop()
    finally:
        containers.kill()

    assert (was_healthy, healthy, codes) == (False, [True] * 4, [0] * 4)
    assert known == [[service] for service in SERVICES]
    assert users == ({int(USER)} if image.drops else {os.geteuid()})
    assert {path: path.stat().st_mtime_ns for path in image.tree.rglob("*")} == before
    assert list(image.folder.iterdir()) == []
    assert all(containers.said(service).startswith('{"') for service in SERVICES)  # logs for machines


@pytest.mark.docker
def test_an_engine_builds_it_and_it_runs_without_writing():
    docker = shutil.which("docker")
    if docker is None or subprocess.run((docker, "info"), capture_output=True, check=False, timeout=20).returncode != 0:
        pytest.skip(NO_DOCKER)
    subprocess.run((docker, "build", "-f", IMAGE / "Dockerfile", "-t", "tenterhook-test", ROOT), check=True)
    run = (docker, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "tenterhook-test")
    said = subprocess.run((*run, "--version"), capture_output=True, text=True, check=True)

    assert re.fullmatch(r"\d+\.\d+\.\d+\n", said.stdout)

"""scripts/bootstrap on machines that lack things, and the lock files it installs from.

Each test has a machine of its own: a copy of the script in an empty checkout, and a PATH that holds only the
tools the script may use and the interpreters of the test. Those are small shell scripts that write down what
was asked of them, so nothing is installed and every test takes milliseconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TOOLS = [
    "awk",
    "cat",
    "cp",
    "cut",
    "dirname",
    "du",
    "find",
    "grep",
    "ls",
    "mkdir",
    "mv",
    "ps",
    "rm",
    "sed",
    "sh",
]
TOOLS += ["sha256sum", "shasum", "tail", "tr", "uname"]

# Plays an interpreter: tells its version, makes a venv (with itself as its python), and logs every pip call.
INTERPRETER = """#!/bin/sh
case "$*" in
"-c import venv, ensurepip") exit {ensurepip_exit} ;;
*version_info*) echo {version} ;;
*sys.base_prefix*) echo "{version} {name}" ;;
*'version("torch")'*) echo 9.9.9+chosen ;;
"-m venv "*)
    mkdir -p "$3/bin" "$3/lib/python{version}/site-packages"
    cp "$0" "$3/bin/python"
    : >"$3/pyvenv.cfg"
    echo "venv with {name}" >>"{log}" ;;
"-m pip --version") ;;
"-m pip "*) shift 2; echo "pip $*" >>"{log}"; [ ! -e "{offline}" ] ;;
*) exit 64 ;;
esac
"""
DF = """#!/bin/sh
echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
echo "/dev/a disk 999999999 1 {free_kb} 1% /some place"
"""


@dataclass
class Machine:
    """A checkout with the script in it, a PATH of its own, and a log of what the interpreters were asked."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / "checkout" / ".venv"

    @property
    def log(self) -> list[str]:
        file = self.root / "log"
        return file.read_text().splitlines() if file.exists() else []

    def tool(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def interpreter(self, name: str, version: str, *, ensurepip: bool = True) -> None:
        self.tool(
            name,
            INTERPRETER.format(
                name=name,
                version=version,
                ensurepip_exit=0 if ensurepip else 1,
                log=self.root / "log",
                offline=self.root / "offline",
            ),
        )

    def free_disk(self, *, gb: float) -> None:
        self.tool("df", DF.format(free_kb=int(gb * 2**20)))

    def go_offline(self) -> None:
        (self.root / "offline").touch()

    def go_online(self) -> None:
        (self.root / "offline").unlink()

    def bootstrap(self, group: str = "demo", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "bin" / "sh", self.root / "checkout" / "scripts" / "bootstrap", group],
            env={"PATH": str(self.root / "bin"), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a good python3, much disk and a GPU driver: a test takes away what it is about."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(found)
    scripts = tmp_path / "checkout" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "bootstrap", scripts)
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / "checkout")
    machine = Machine(tmp_path)
    machine.tool("ldconfig", "#!/bin/sh\necho libEGL_mesa.so.0\n")
    machine.interpreter("python3", "3.11")
    machine.free_disk(gb=100)
    return machine


def test_fresh_machine_gets_a_venv_the_lock_and_the_library(machine: Machine) -> None:
    done = machine.bootstrap("demo")
    assert done.returncode == 0, done.stderr
    assert machine.log == [
        "venv with python3",
        f"pip install -q -r {machine.venv.parent}/requirements.lock",
        "pip install -q --no-deps --no-build-isolation -e .",
    ]


def test_second_call_starts_neither_python_nor_pip(machine: Machine) -> None:
    machine.bootstrap("dev")
    before = machine.log
    machine.venv.joinpath("bin", "python").write_text("#!/bin/sh\nexit 99\n")
    for group in ("dev", "demo"):
        again = machine.bootstrap(group)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert machine.log == before


def test_demo_installs_no_test_tools_and_dev_adds_them(machine: Machine) -> None:
    machine.bootstrap("demo")
    assert not any("requirements-dev.lock" in line for line in machine.log)
    machine.bootstrap("dev")
    assert f"pip install -q -r {machine.venv.parent}/requirements-dev.lock" in machine.log
    assert machine.log.count("venv with python3") == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_changed_requirements_are_installed_into_the_same_venv(machine: Machine, name: str) -> None:
    machine.bootstrap()
    with (machine.venv.parent / name).open("a") as file:
        file.write("# changed\n")
    machine.bootstrap()
    assert machine.log.count("venv with python3") == 1
    assert sum("-r" in line.split() for line in machine.log) == 2


def test_no_python_at_all_prints_the_package_of_each_system(machine: Machine) -> None:
    (machine.root / "bin" / "python3").unlink()
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "no Python 3.11, 3.12 or 3.13 was found" in done.stderr
    assert "python3 (not found)" in done.stderr
    for cure in ("apt install python3 python3-venv", "dnf install python3.13", "brew install python@3.13"):
        assert cure in done.stderr
    assert not machine.venv.exists()


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10", "3.14"])
def test_python_of_an_unsupported_version_is_named_and_refused(machine: Machine, version: str) -> None:
    machine.interpreter("python3", version)
    done = machine.bootstrap()
    assert done.returncode == 2
    assert f"python3 ({version})" in done.stderr
    assert "apt install python3.11 python3.11-venv" in done.stderr


def test_a_supported_python_behind_an_old_python3_is_found(machine: Machine) -> None:
    machine.interpreter("python3", "3.9")
    machine.interpreter("python3.12", "3.12")
    assert machine.bootstrap().returncode == 0
    assert machine.log[0] == "venv with python3.12"


def test_python_without_ensurepip_prints_the_exact_venv_package(machine: Machine) -> None:
    machine.interpreter("python3", "3.11", ensurepip=False)
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "sudo apt install python3.11-venv" in done.stderr
    assert machine.log == []


def test_python_without_ensurepip_is_passed_over_for_one_that_has_it(machine: Machine) -> None:
    machine.interpreter("python3", "3.11", ensurepip=False)
    machine.interpreter("python3.13", "3.13")
    assert machine.bootstrap().returncode == 0
    assert machine.log[0] == "venv with python3.13"


def test_a_named_python_is_the_only_one_tried(machine: Machine) -> None:
    done = machine.bootstrap(PYTHON="/nowhere/python3")
    assert done.returncode == 2
    assert "Looked at:       /nowhere/python3 (not found)\n" in done.stderr


def test_naming_another_python_makes_the_venv_anew(machine: Machine) -> None:
    machine.interpreter("python3.12", "3.12")
    machine.bootstrap()
    machine.bootstrap(PYTHON="python3.12")
    machine.bootstrap(PYTHON="python3.12")
    assert [line for line in machine.log if line.startswith("venv")] == [
        "venv with python3",
        "venv with python3.12",
    ]


def test_full_disk_is_refused_before_anything_is_made(machine: Machine) -> None:
    machine.free_disk(gb=3.5)
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "3.5 GB are free and 4.0 GB are needed" in done.stderr
    assert machine.log == []


def test_the_wanted_space_can_be_overridden(machine: Machine) -> None:
    machine.free_disk(gb=3.5)
    assert machine.bootstrap(POLICYSMITH_MIN_DISK_GB="2").returncode == 0
    assert machine.bootstrap("dev", POLICYSMITH_MIN_DISK_GB="20").returncode == 2


def test_a_venv_that_holds_most_already_needs_less_space(machine: Machine) -> None:
    machine.bootstrap("demo")
    machine.tool("du", "#!/bin/sh\necho 3145728 .\n")
    machine.free_disk(gb=1.5)
    assert machine.bootstrap("dev").returncode == 0


def test_an_installation_that_failed_is_taken_up_in_the_same_venv(machine: Machine) -> None:
    machine.go_offline()
    failed = machine.bootstrap()
    assert failed.returncode == 1
    assert "run the same command again" in failed.stderr
    machine.go_online()
    done = machine.bootstrap()
    assert done.returncode == 0
    assert "did not finish" in done.stdout
    assert machine.log.count("venv with python3") == 1
    assert machine.bootstrap().stdout == ""


def test_packages_that_pip_left_half_installed_are_installed_again(machine: Machine) -> None:
    machine.go_offline()
    machine.bootstrap()
    packages = machine.venv / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.0.dist-info", "half-1.0.dist-info", "~umpy"):
        (packages / name).mkdir()
    (packages / "whole-1.0.dist-info" / "INSTALLER").write_text("pip\n")
    machine.go_online()
    machine.bootstrap()
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]


def test_a_venv_whose_making_was_cut_off_is_made_anew(machine: Machine) -> None:
    machine.venv.joinpath("bin").mkdir(parents=True)
    (machine.venv / "pyvenv.cfg").touch()
    (machine.venv / "policysmith.installing").write_text("999999999\n")
    assert machine.bootstrap().returncode == 0
    assert machine.log[0] == "venv with python3"


def test_two_installations_at_once_do_not_mix(machine: Machine) -> None:
    command = ["sh", "-c", "echo started; read -r line", "bootstrap"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"started\n"
        machine.venv.mkdir()
        (machine.venv / "policysmith.installing").write_text(f"{other.pid}\n")
        done = machine.bootstrap()
        other.communicate(b"\n")
    assert done.returncode == 2
    assert f"another installation is at work here (process {other.pid})" in done.stderr
    assert machine.log == []
    assert machine.bootstrap().returncode == 0


def test_a_checkout_that_moved_gets_a_venv_of_its_new_place(machine: Machine) -> None:
    machine.bootstrap()
    elsewhere = machine.root / "elsewhere"
    elsewhere.mkdir()
    shutil.move(machine.root / "checkout", elsewhere / "checkout")
    (machine.root / "checkout").symlink_to(elsewhere / "checkout")
    machine.bootstrap()
    assert machine.log.count("venv with python3") == 2


def test_a_venv_of_somebody_else_is_used_or_left_alone_but_never_emptied(machine: Machine) -> None:
    machine.venv.mkdir()
    (machine.venv / "thesis.txt").write_text("mine")
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "make clean" in done.stderr
    assert (machine.venv / "thesis.txt").read_text() == "mine"
    make_venv = [machine.root / "bin" / "python3", "-m", "venv", machine.venv]
    subprocess.run(make_venv, env={"PATH": str(machine.root / "bin")}, check=True)
    assert machine.bootstrap().returncode == 0
    assert (machine.venv / "thesis.txt").read_text() == "mine"


def test_a_chosen_torch_replaces_the_pin_and_is_remembered(machine: Machine) -> None:
    machine.bootstrap("demo", TORCH="torch==9.9.9", TORCH_INDEX_URL="https://example.org/builds")
    assert machine.log[1] == "pip install --index-url https://example.org/builds torch==9.9.9"
    assert machine.log[2] == f"pip install -q -r {machine.venv}/requirements.lock"
    lock = (machine.venv / "requirements.lock").read_text()
    assert re.findall(r"^torch==.*$", lock, re.MULTILINE) == ["torch==9.9.9+chosen"]
    before = machine.log
    assert machine.bootstrap("demo").returncode == 0
    assert machine.log == before


def test_an_index_alone_takes_the_pinned_torch_from_there(machine: Machine) -> None:
    machine.bootstrap("demo", TORCH_INDEX_URL="https://example.org/cpu")
    pin = str(pins("requirements.lock")["torch"])
    assert machine.log[1] == f"pip install --index-url https://example.org/cpu {pin}"


def test_another_choice_of_torch_takes_the_old_build_out_first(machine: Machine) -> None:
    machine.bootstrap("demo")
    (machine.venv / "lib" / "python3.11" / "site-packages" / "torch-2.0.dist-info").mkdir()
    machine.bootstrap("demo", TORCH_INDEX_URL="https://example.org/cpu")
    assert "pip uninstall -q -y torch" in machine.log
    assert machine.log.count("venv with python3") == 1


def test_missing_rendering_library_is_a_hint_and_not_an_error(machine: Machine) -> None:
    machine.tool("ldconfig", "#!/bin/sh\necho libc.so.6\n")
    machine.tool("uname", "#!/bin/sh\necho Linux\n")
    done = machine.bootstrap()
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "libosmesa6" in line and "hint" in line]


def test_packages_on_pythonpath_are_not_taken_for_installed(machine: Machine) -> None:
    interpreter = (machine.root / "bin" / "python3").read_text()
    log_path = f'echo "PYTHONPATH=${{PYTHONPATH-unset}}" >>"{machine.root}/pythonpath"\n'
    machine.tool("python3", interpreter.replace("#!/bin/sh\n", "#!/bin/sh\n" + log_path))
    machine.bootstrap(PYTHONPATH="/opt/ros/lib")
    assert set((machine.root / "pythonpath").read_text().splitlines()) == {"PYTHONPATH=unset"}


def test_an_unknown_group_says_how_to_call(machine: Machine) -> None:
    done = machine.bootstrap("everything")
    assert done.returncode == 2
    assert "scripts/bootstrap demo | dev" in done.stderr


def pins(*names: str) -> dict[str, Requirement]:
    """The requirements of lock files by canonical name."""
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def requirements_of(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for with these extras, references to the package's own extras resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    flat = []
    for requirement in map(Requirement, lines):
        flat += requirements_of(*requirement.extras) if requirement.name == "policysmith" else [requirement]
    return flat


@pytest.mark.parametrize(
    ("extra", "locks"),
    [("demo", ["requirements.lock"]), ("dev", ["requirements.lock", "requirements-dev.lock"])],
)
def test_every_requirement_of_the_package_is_pinned_to_a_version_it_accepts(
    extra: str, locks: list[str]
) -> None:
    pinned = pins(*locks)
    for requirement in requirements_of(extra):
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version, prereleases=True), requirement


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_pins_exactly_and_names_nothing_twice_or_for_one_platform(lock: str) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and line[0] not in "#-"]
    assert len(pins(lock)) == len(lines)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    assert not [line for line in lines if line.startswith(("nvidia-", "cuda-", "triton", "pip=="))]


def test_the_bootstrap_runs_as_a_program() -> None:
    assert os.access(ROOT / "scripts" / "bootstrap", os.X_OK)

"""Collect everything that a machine without a network needs to install this project.

The folder gets wheels for the Python and platform of that machine: of this project, of all packages
that it needs, and of pip. What is published as source only is built here, and must be the same on
all platforms.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

from engine.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = ("pip", "setuptools>=69,<82", "wheel")
SOURCE_ONLY = ("deepspeed",)  # its ops are compiled where they are used
ANYWHERE = "-none-any.whl"  # how the name of a wheel for all platforms ends
PLATFORM = "manylinux_2_28_x86_64"

EXAMPLES = """\
  skysense wheels --out wheels
  skysense wheels --out wheels --python 3.12 --platform manylinux_2_28_aarch64
  skysense wheels --out wheels --extras s3 slurm"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the wheels")
    parser.add_argument(
        "--python", default=here, metavar="X.Y", help=f"of the other machine ({here})"
    )
    parser.add_argument(
        "--platform", default=PLATFORM, help=f"the newest tag that it can use ({PLATFORM})"
    )
    parser.add_argument(
        "--extras", nargs="*", default=[], metavar="NAME", help="s3, slurm, test of setup.cfg"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PACKAGE", help="these packages instead, with what they need"
    )


def run(options: argparse.Namespace) -> None:
    """Build what is published as source, and download the rest.

    Raises:
        ConfigError: There is no checkout here, or pip cannot find or build something.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = options.only
    if wanted is None:
        wanted = [*requirements(PROJECT / "setup.cfg", options.extras), *TOOLS]
        built = [name for name in wanted if name.split("==")[0] in SOURCE_ONLY]
        for source in (*built, str(PROJECT)):
            build(source, options.out)
    platforms = []
    for platform in older(options.platform):
        platforms += ["--platform", platform]
    _pip(
        "download",
        "--only-binary=:all:",
        f"--python-version={options.python}",
        *platforms,
        f"--find-links={options.out}",
        f"--dest={options.out}",
        *wanted,
    )
    wheels = list(options.out.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels, {size / 2**20:.0f} MiB, in {options.out}", flush=True)


def requirements(file: Path, extras: Sequence[str]) -> list[str]:
    """What setup.cfg lists, with that of some extras.

    Raises:
        ConfigError: There is no such file or extra.
    """
    settings = ConfigParser()
    if not settings.read(file):
        raise ConfigError(
            f"{file}: expected the project's checkout, found none; call it from there"
        )
    lists = [settings["options"]["install_requires"]]
    known = settings["options.extras_require"]
    for extra in extras:
        if extra not in known:
            raise ConfigError(f"--extras: expected some of {', '.join(known)}, found {extra}")
        lists.append(known[extra])
    found = []
    for text in lists:
        found += [line.strip() for line in text.splitlines() if line.strip()]
    return found


def older(platform: str) -> list[str]:
    """The platform tag and all older ones of its kind that the same machine can use.

    ``manylinux_2_28_x86_64`` says that glibc is at least 2.28, so 2.17 is enough for it too.
    """
    if not platform.startswith("manylinux_2_"):
        return [platform]
    minor, _, machine = platform.removeprefix("manylinux_2_").partition("_")
    tags = [f"manylinux_2_{number}_{machine}" for number in range(int(minor), 4, -1)]
    for year, least in ((2014, 17), (2010, 12), (1, 5)):
        if int(minor) >= least:
            tags.append(f"manylinux{year}_{machine}")
    return tags


def build(source: str, folder: Path) -> None:
    """Build the wheel of a package or a folder, in this environment, where torch is.

    Raises:
        ConfigError: It cannot be built, or holds compiled code.
    """
    before = set(folder.glob("*.whl"))
    _pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", source)
    for wheel in set(folder.glob("*.whl")) - before:
        if not wheel.name.endswith(ANYWHERE):
            raise ConfigError(
                f"{wheel}: expected a wheel for all platforms, found one for this machine; "
                "build it with DS_BUILD_OPS=0"
            )


def _pip(*words: str) -> None:
    """Call pip. Raises ConfigError with its last line if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise ConfigError(f"pip {words[0]}: {last}")

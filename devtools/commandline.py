"""The subcommands of `dev.py`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import checks
from .base import make_base
from .chromium import ensure_chromium
from .environment import prepare, prepare_avatars, prepare_pages, remove
from .places import ROOT, Places, find_places
from .problem import Problem, exit_code
from .process import call
from .server import checked_port, cuda_works, free_port, running_server

USUAL_PORT = 8188
"""The port on which people expect ComfyUI."""


def main(arguments: Sequence[str], description: str | None = None) -> int:
    """Run one subcommand and return its exit code."""
    options = parse(arguments, description)
    return exit_code(lambda: _run(options))


def parse(arguments: Sequence[str], description: str | None = None) -> argparse.Namespace:
    """Parse a command line; `--fresh` may be anywhere before `--`."""
    line = argparse.ArgumentParser(
        "dev.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    line.add_argument("--fresh", action="store_true", help="delete the environment and build it again first")
    commands = line.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="run the main job: images and metrics on one page in output/")
    demo.add_argument("--all", action="store_true", help="run every workflow of the bundled model")
    serve = commands.add_parser("serve", help="start ComfyUI in the browser with this pack")
    serve.add_argument("--port", type=int, help=f"default: {USUAL_PORT}, or a free one when that is busy")
    bench = commands.add_parser("bench", help="run the measurements in benchmarks/")
    bench.add_argument("--quick", action="store_true", help="smaller sizes, less exact numbers")
    for name, meaning in (
        ("test", "check lint and types and run the tests; with arguments, pytest alone"),
        ("run", "run a command inside the environment: run -- COMMAND"),
    ):
        # with this prefix, argparse sees no options among the words and passes all on to the other program
        other = commands.add_parser(name, help=meaning, add_help=False, prefix_chars="\0")
        other.add_argument("words", nargs=argparse.REMAINDER)
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    rest = arguments[len(ours) :]
    options = line.parse_args([word for word in ours if word != "--fresh"] + list(rest))
    options.fresh = "--fresh" in ours
    if options.command in ("test", "run") and options.words[:1] == ["--"]:
        options.words = options.words[1:]
    return options


def _run(options: argparse.Namespace) -> int:
    places = find_places()
    if options.command == "serve" and options.port is not None:
        checked_port(options.port)  # report a busy port before a long build, not after it
    if options.command == "run" and not options.words:
        raise Problem(
            "There is no command to run: write it after two dashes, as in dev.py run -- python --version."
        )
    if options.fresh:
        remove(places)
    prepare(places)
    match options.command:
        case "demo":
            return _demo(places, everything=options.all)
        case "test":
            return _test(places, options.words)
        case "serve":
            return _serve(places, options.port)
        case "bench":
            return _bench(places, quick=options.quick)
        case _:
            return _command(places, options.words)


def _demo(places: Places, *, everything: bool) -> int:
    with suppress(Problem):  # without Chromium, the demo leaves out the Explorer and prints why
        ensure_chromium()
    command = [places.python, "-m", "devtools.demo", *["--all"] * everything]
    return call(command, env=places.variables(), cwd=ROOT)


def _test(places: Places, arguments: list[str]) -> int:
    if arguments:
        _prepare_avatars_if_possible(places)
        return checks.pytest(places, arguments)
    prepare_avatars(places)
    prepare_pages(places)
    ensure_chromium()  # here, so that two test workers never install it at the same time
    return checks.everything(places)


def _serve(places: Places, port: int | None) -> int:
    base = make_base(places.base("serve"), clean=False)
    if port is None:
        try:
            port = checked_port(USUAL_PORT)
        except Problem:
            port = free_port()
    print("Starting ComfyUI ...", flush=True)
    cpu = not cuda_works(places.python)
    try:
        with running_server(places.comfyui, base, places.python, port, cpu=cpu) as server:
            print(f"ComfyUI with this pack is at {server.url}; its log is {server.log}.", flush=True)
            print("Ctrl-C stops it.", flush=True)
            code = server.process.wait()
            raise Problem(f"ComfyUI ended by itself with exit code {code}.")
    except KeyboardInterrupt:
        print("\nComfyUI is stopped.")
        return 0


def _bench(places: Places, *, quick: bool) -> int:
    """Run every `benchmarks/bench_*.py`, even after one has failed."""
    _prepare_avatars_if_possible(places)
    files = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    if not files:
        raise Problem(f"There are no measurements: {ROOT / 'benchmarks'} contains no bench_*.py.")
    failed = []
    for file in files:
        print(f"\n{file.stem}", flush=True)
        command = [places.python, "-m", f"benchmarks.{file.stem}", *["--quick"] * quick]
        if call(command, env=places.variables(), cwd=ROOT) != 0:
            failed.append(file.name)
    if failed:
        raise Problem(f"These measurements failed: {', '.join(failed)}.")
    return 0


def _command(places: Places, words: list[str]) -> int:
    _prepare_avatars_if_possible(places)
    variables = places.variables()
    program = shutil.which(words[0], path=variables["PATH"])
    if program is None:
        raise Problem(f"There is no program {words[0]} inside the environment or on the PATH.")
    return call([Path(program), *words[1:]], env=variables)


def _prepare_avatars_if_possible(places: Places) -> None:
    """Install the avatar renderer if npm is there; otherwise, commands that need it report that."""
    if shutil.which("npm") is not None:
        prepare_avatars(places)

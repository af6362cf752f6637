"""`python -m tests.simulation run|beyond|replay|shrink|planted`; also by the Makefile."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from tests.simulation import beyond as beyond_limits
from tests.simulation import beyondplan, planted
from tests.simulation.campaign import RunSeed, campaign, run_beyond, run_usual
from tests.simulation.running import Result
from tests.simulation.schedule import draw
from tests.simulation.shrink import Parts, kind_of, shrink, still_fails, without
from tests.simulation.simulate import simulate

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
console = Console(highlight=False, soft_wrap=True)

EXIT_VIOLATION = 1


def replay_command(seed: int, out: Parts | None = None) -> str:
    """What a person types to see that run again."""
    words = ["python", "-m", "tests.simulation", "replay", str(seed)]
    if out:
        words += ["--without", ",".join(f"{kind}{number}" for kind, number in out)]
    return shlex.join(words)


def replay_beyond_command(seed: int) -> str:
    """The same for a seed of the command `beyond`."""
    return shlex.join(["python", "-m", "tests.simulation", "replay", str(seed), "--beyond"])


def _parts(text: str) -> Parts:
    words = [word.strip() for word in text.split(",") if word.strip()]
    return [(word.rstrip("0123456789"), int(word.lstrip("faultsep"))) for word in words]


Seeds = Annotated[int, typer.Option(help="How many.")]
Start = Annotated[int, typer.Option(help="The first one.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0: one for each core.")]
Failures = Annotated[int, typer.Option(help="Stop after so many violations.")]


@app.command()
def run(seeds: Seeds = 1000, start: Start = 0, jobs: Jobs = 0, failures: Failures = 10) -> None:
    """Run many seeds on all cores; fails when an invariant does not hold."""
    _run(run_usual, replay_command, seeds, start, jobs, failures)


@app.command()
def beyond(seeds: Seeds = 500, start: Start = 0, jobs: Jobs = 0, failures: Failures = 10) -> None:
    """The same with damage to any copy: is exactly that lost which no disk has any more?"""
    _run(run_beyond, replay_beyond_command, seeds, start, jobs, failures)


def _run(
    run_seed: RunSeed,
    command: Callable[[int], str],
    seeds: int,
    start: int,
    jobs: int,
    failures: int,
) -> None:
    violations: list[Result] = []

    def failed(result: Result) -> None:
        violations.append(result)
        console.print(f"seed {result.seed}: {result.violation}", markup=False)
        console.print(f"    {command(result.seed)}", markup=False)

    totals = campaign(run_seed, start, seeds, jobs, failed, failures)
    console.print(
        f"{totals.seeds} seeds, {totals.faults} faults, {totals.virtual_s / 3600:.1f} hours of "
        f"virtual time, {totals.errors} errors seen by applications, {len(violations)} violations"
    )
    if violations:
        raise typer.Exit(EXIT_VIOLATION)


@app.command()
def replay(
    seed: int,
    without_: Annotated[
        str, typer.Option("--without", help="Parts left out, such as fault3,step102.")
    ] = "",
    messages: Annotated[bool, typer.Option(help="Every message of the network, too.")] = False,
    beyond: Annotated[bool, typer.Option("--beyond", help="A seed of that command.")] = False,
) -> None:
    """Run one seed and print all that happens."""
    if beyond:
        plan = beyondplan.draw(seed)
        console.print(f"seed {seed}: {plan}", markup=False)
        result = beyond_limits.simulate(plan, keep_trace=True, messages=messages)
    else:
        schedule = without(draw(seed), _parts(without_))
        console.print(f"seed {seed}: {schedule.shape}, damage on {schedule.victims}", markup=False)
        result = simulate(schedule, keep_trace=True, messages=messages)
    for line in result.trace:
        console.print(line, markup=False)
    console.print(f"trace {result.trace_hash}, {result.virtual_s:.1f} s of virtual time")
    if result.violation:
        console.print(f"VIOLATION {result.violation}", markup=False)
        raise typer.Exit(EXIT_VIOLATION)


@app.command("shrink")
def shrink_(seed: int) -> None:
    """Leave out of a failing seed what is not needed to fail."""
    schedule = draw(seed)
    violation = simulate(schedule).violation
    if not violation:
        console.print(f"seed {seed} does not fail")
        return
    kind = kind_of(violation)
    out = shrink(schedule, lambda smaller: still_fails(smaller, kind))
    left = without(schedule, out)
    console.print(f"{violation}\nstill fails with:", markup=False)
    for fault in left.faults:
        console.print(f"    {fault}", markup=False)
    for client, work in enumerate(left.steps):
        for step in work:
            console.print(f"    client{client} {step}", markup=False)
    console.print(replay_command(seed, out), markup=False)


@app.command("planted")
def planted_(
    only: Annotated[str, typer.Option(help="Only patches with this in their names.")] = "",
    limit: Annotated[int, typer.Option(help="Seeds to try at most.")] = 10_000,
) -> None:
    """Plant each bug into a copy of the sources and look for it."""
    if not planted.hunt_all(only, limit, console):
        raise typer.Exit(EXIT_VIOLATION)


if __name__ == "__main__":
    app()

"""What a seed stands for: a cluster, a swarm of faults with their times, and the work of clients.

Pure data, drawn once from the seed; the nemesis and the workers only carry it out.  So the shrinker
can leave parts out and keep the rest as it was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.simulation.cluster import Shape

INVENTORY_S = (5.0, 25.0)  # how often, in one run or another
SCRUB_S = (12.0, 30.0)
FAULTS_S = 18.0  # all begin within this time
STEPS = 12  # of each client
CALM = 0.15  # of the seeds have faults of which applications must see nothing at all

# Damage: may destroy copies that were durable.  On replicas - 1 machines of a run only.
DAMAGE = (
    "flip",
    "truncate",
    "misdirect",
    "vanish",
    "wipe",
    "read_error",
    "sync_error",
    "rot_unseen",
)
TROUBLE = (
    "kill_chunkd",
    "cut_power",
    "cut_power_of_all",
    "torn",
    "kill_metad",
    "crash_metad",
    "restart_unheard",
    "pause",
    "cut_one_way",
    "isolate",
    "lose_client",
    "swizzle",
    "drop",
    "duplicate",
    "delay",
    "slow_disk",
    "write_error",
    "full_disk",
    "clock_jump",
    "clock_rate",
    "client_death",
    "metad_disk_full",
    "metad_disk_error",
)
OPERATORS = ("fsck_repair", "drain", "rebalance", "compact", "policy", "restore_metad")
KINDS = (*TROUBLE, *OPERATORS, *DAMAGE)

# Of these a client on a hard mount sees nothing, as long as there is no more than one of each pair.
UNSEEN = (
    "duplicate",
    "drop",
    "delay",
    "slow_disk",
    "client_death",
    "kill_metad",
    "crash_metad",
    "fsck_repair",
)
UNSEEN_ALONE = (("kill_chunkd",), ("cut_power",), ("flip", "truncate", "misdirect", "vanish"))

FILES = 2  # that each client owns
NAMES = 3  # that all clients fight for
CELL_BYTES = 1024
CELLS = (0, 1, 2, 3, 4, 63, 64, 65)  # of a file: within a block, at its border, in the next chunk

WRITING = {"put": 6, "remove": 1, "cut": 1, "append": 3, "count": 2}
OTHER = {
    "get": 5,
    "create": 3,
    "unlink": 2,
    "rename": 2,
    "link": 1,
    "look": 3,
    "list": 1,
    "stare": 1,
}


@dataclass(frozen=True)
class Theme:
    """What a seed is about: faults to draw from, and how often what is done; 0 where not named."""

    faults: tuple[str, ...]
    writing: dict[str, int]
    other: dict[str, int]
    most_writing: bool | None = None  # of the steps; None: as it comes
    steps: int = STEPS  # of each client; with most_writing some more


_SESSIONS = (
    "lose_client",
    "lose_client",
    "isolate",
    "cut_one_way",
    "kill_metad",
    "crash_metad",
    "restart_unheard",
    "clock_rate",
    "client_death",
    "drop",
    "delay",
    "duplicate",
)
ANYTHING = Theme(KINDS, WRITING, OTHER)
THEMES = (
    ANYTHING,
    ANYTHING,
    # Names in caches while leases end.
    Theme(
        _SESSIONS,
        {"put": 1},
        {"look": 5, "stare": 2, "create": 3, "unlink": 3, "rename": 2, "list": 1},
        most_writing=False,
    ),
    # Locks, and changes that must happen once.
    Theme(
        _SESSIONS,
        {"count": 5, "append": 5},
        {"look": 1, "create": 2, "unlink": 2},
        most_writing=True,
    ),
    # Copies, and what becomes of them.
    Theme(
        (*DAMAGE, "kill_chunkd", "cut_power", "torn", "kill_metad", "slow_disk"),
        {"put": 6, "remove": 2, "cut": 1},
        {"get": 1},
    ),
    # What operators do, and what may come between.
    Theme(
        (*OPERATORS, *OPERATORS, *DAMAGE, "kill_chunkd", "cut_power", "kill_metad", "slow_disk"),
        {"put": 6, "remove": 1, "cut": 1, "append": 1},
        {"get": 1},
    ),
)

# A file that all write, whose lease goes round.  Its seeds, and those of the attributes, stand
# apart from the themes, so that all others stand for what they did before these came.
BOARD = Theme(
    (*_SESSIONS, "drop", "drop", "kill_chunkd"),
    {"scribble": 6, "shorten": 1, "punch": 2},
    {"peek": 1},
    steps=24,
)
# Attributes that all clients set, and ask for while others write.
MARKS = Theme(
    (*_SESSIONS, "drop", "drop", "kill_chunkd"),
    {"chmod": 3, "resize": 3, "tag": 2, "dab": 4},
    {"glance": 1},
    steps=24,
)
TOKENS_EVERY, TOKENS_AT = 5, 2  # seeds whose chunkds ask for tokens
ABOUT_EVERY = 7
ABOUT: dict[int, tuple[str, Theme]] = {1: ("board", BOARD), 4: ("marks", MARKS)}  # which of these
CHANGING = frozenset({*WRITING, *BOARD.writing, *MARKS.writing})  # kinds of steps


@dataclass(frozen=True)
class Fault:
    """One fault: of a kind, at a time, for a while; `dice` seeds what else it needs to choose."""

    number: int
    at_s: float
    kind: str
    target: int
    for_s: float
    dice: int

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.kind} {self.target} for {self.for_s:.1f} s"


@dataclass(frozen=True)
class Step:
    """One thing that a client does, after a pause."""

    number: int
    kind: str
    pause_s: float
    file: int
    other: int
    cell: int
    cells: int
    sync: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.file} {self.other} {self.cell}+{self.cells}"


@dataclass(frozen=True)
class Schedule:
    """All of it."""

    seed: int
    shape: Shape
    victims: tuple[int, ...]  # machines whose copies may be damaged
    faults: tuple[Fault, ...]
    steps: tuple[tuple[Step, ...], ...]  # of each client
    soft: tuple[bool, ...]  # whether each client's mount gives up after a while
    calm: bool = False  # nobody may see an error
    about: str = ""  # "board": the file that all write; "marks": attributes that all set

    def without(self, faults: set[int], steps: set[int]) -> Schedule:
        """What is left without the faults and steps of these numbers."""
        return replace(
            self,
            faults=tuple(each for each in self.faults if each.number not in faults),
            steps=tuple(
                tuple(step for step in work if step.number not in steps) for work in self.steps
            ),
        )


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(f"schedule {seed}")
    shape = rng.choice([Shape(), Shape(), Shape(clients=3), Shape(4, 2, 2), Shape(4, 3, 2)])
    shape = replace(shape, inventory_s=rng.choice(INVENTORY_S), scrub_s=rng.choice(SCRUB_S))
    victims = tuple(rng.sample(range(shape.servers), shape.replicas - 1))
    times = sorted(rng.uniform(0.5, FAULTS_S) for _ in range(rng.randrange(2, 10)))
    calm, theme = rng.random() < CALM, rng.choice(THEMES)
    about, theme = ABOUT.get(seed % ABOUT_EVERY, ("", theme))
    if calm:
        kinds = [*rng.sample(UNSEEN, rng.randrange(1, 4)), *rng.choice(UNSEEN_ALONE)]
    else:
        kinds = rng.sample(theme.faults, min(rng.randrange(2, 7), len(theme.faults) - 1))
    # Not drawn: all other seeds stay what they were.
    shape = replace(shape, tokens=seed % TOKENS_EVERY == TOKENS_AT)
    return Schedule(
        seed=seed,
        shape=shape,
        victims=victims,
        faults=tuple(
            _fault(rng, number, at_s, rng.choice(kinds), shape, victims, calm)
            for number, at_s in enumerate(times)
        ),
        steps=tuple(_work(rng, client, theme) for client in range(shape.clients)),
        soft=tuple(rng.random() < 0.2 and not calm for _ in range(shape.clients)),
        calm=calm,
        about=about,
    )


def _fault(
    rng: random.Random,
    number: int,
    at_s: float,
    kind: str,
    shape: Shape,
    victims: tuple[int, ...],
    calm: bool,
) -> Fault:
    target = rng.choice(victims) if kind in DAMAGE else rng.randrange(shape.servers)
    for_s = rng.choice([0.1, 1.0, 3.0, 8.0, 15.0]) * rng.uniform(0.5, 1.2)
    if calm:  # one machine, so that the other copies can be had; metad before leases end
        target = victims[0]
        for_s = min(for_s, 3.0) if kind == "kill_metad" else for_s
    return Fault(number, round(at_s, 2), kind, target, round(for_s, 2), rng.getrandbits(32))


def _work(rng: random.Random, client: int, theme: Theme) -> tuple[Step, ...]:
    """Steps of two kinds, which go on side by side: of the one writer, and all others."""
    writing, steps = rng.randrange(2, theme.steps - 1), theme.steps
    if theme.most_writing is not None:
        writing, steps = (STEPS, STEPS + 4) if theme.most_writing else (2, STEPS + 8)
    return (
        *_steps(rng, client * 100, theme.writing, writing),
        *_steps(rng, client * 100 + 50, theme.other, steps - writing),
    )


def _steps(rng: random.Random, first: int, work: dict[str, int], count: int) -> tuple[Step, ...]:
    weights = [weight * rng.choice([0, 1, 1, 4]) + 0.01 for weight in work.values()]
    kinds = rng.choices(list(work), weights, k=count)
    mean_s = rng.uniform(0.3, 1.0) * FAULTS_S / count
    return tuple(
        Step(
            number=first + number,
            kind=kind,
            pause_s=rng.uniform(0.0, 2.0) * mean_s,
            file=rng.randrange(12),
            other=rng.randrange(12),
            cell=rng.randrange(len(CELLS)),
            cells=rng.randrange(1, 4),
            sync=rng.random() < 0.8,
        )
        for number, kind in enumerate(kinds)
    )

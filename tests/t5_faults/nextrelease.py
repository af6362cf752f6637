"""The next release: a copy of our packages with what a release may add without another protocol.

There is one release so far, so tests make its neighbour.  `build` copies the packages and edits
them; it fails loudly when the source no longer has what is edited.  Processes that are started with
`words(tree)` in their environment run that code, and say so by their version.  What it adds: a
field in every message, in every operation and in the files of a chunkd; a header; a call of each
service, made once to every daemon that it speaks to; an order; a bit of invalidations.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dfswire.daemon import software_version

PACKAGES = ("dfswire", "metad", "chunkd", "dfsmount")
SOURCE = Path(__file__).parents[2]
VERSION = software_version() + ".post1"
ADDED = "said_by_the_next_release"
FIELD = f'\n    {ADDED}: str = msgspec.field(default_factory=lambda: "yes")  # always sent\n'
UNKNOWN_CALL = "does not know the call"
UNKNOWN_ORDER = "this chunkd knows no order to greet"


@dataclass(frozen=True)
class Edit:
    """In `file` the text `before`, which is there once, becomes `after`."""

    file: str
    before: str
    after: str

    def apply(self, tree: Path) -> None:
        path = tree / self.file
        text = path.read_text()
        count = text.count(self.before)
        assert count == 1, f"{self.file} has {count} times: {self.before}"
        path.write_text(text.replace(self.before, self.after))


def _field_after(file: str, before: str) -> Edit:
    return Edit(file, before, before + FIELD)


def _call(service: str) -> str:
    words = f'"{service}.greet", "{service}", "POST", "/v1/greet", Empty, Empty, ("client",)'
    return f"    Call({words}),\n"


EDITS = (
    _field_after("dfswire/messages.py", '    """What all requests and replies are."""\n'),
    _field_after("dfswire/operations.py", 'the field `op` on the wire names the class."""\n'),
    _field_after("chunkd/identity.py", "    disk: str\n    incarnation: int\n"),
    # calls: whoever calls a daemon for the first time greets it first
    Edit(
        "dfswire/calls.py",
        "    *CLIENT_CALLS,\n",
        "    *CLIENT_CALLS,\n" + _call("metad") + _call("chunkd"),
    ),
    Edit(
        "metad/service.py",
        '            "metad.hello": self._hello,\n',
        '            "metad.hello": self._hello,\n            "metad.greet": self._greet,\n',
    ),
    Edit(
        "metad/service.py",
        "    async def _hello(self,",
        "    async def _greet(self, request: Empty) -> Empty:\n        return Empty()\n\n"
        "    async def _hello(self,",
    ),
    Edit(
        "chunkd/service.py",
        '            "chunkd.hello": self.hello,\n',
        '            "chunkd.hello": self.hello,\n            "chunkd.greet": self.greet,\n',
    ),
    Edit(
        "chunkd/service.py",
        "    async def read(self,",
        "    async def greet(self, request: Empty, body: BodySource) -> Empty:\n"
        "        return Empty()\n\n"
        "    async def read(self,",
    ),
    Edit(
        "dfswire/client.py",
        "                return await self._try(outgoing, tries)\n",
        "                await self._greet(call.service, address)\n"
        "                return await self._try(outgoing, tries)\n",
    ),
    Edit(
        "dfswire/client.py",
        "    async def _try(self,",
        """    async def _greet(self, service: str, address: str) -> None:
        if (service, address) in self._greeted:
            return
        self._greeted.add((service, address))
        try:
            await self.call(f"{service}.greet", address, Empty())
        except Unavailable:
            self._greeted.discard((service, address))
        except ProtocolError as problem:
            if "no such call: POST /v1/greet" not in str(problem):
                raise
            logging.getLogger(__name__).warning("%s """
        + UNKNOWN_CALL
        + """ %s.greet", address, service)

    async def _try(self,""",
    ),
    Edit(
        "dfswire/client.py",
        "        self._ids = itertools.count(1)\n",
        "        self._ids = itertools.count(1)\n"
        "        self._greeted: set[tuple[str, str]] = set()\n",
    ),
    Edit("dfswire/client.py", "import itertools\n", "import itertools\nimport logging\n"),
    Edit("dfswire/client.py", "PROTOCOL_VERSION, Fault\n", "PROTOCOL_VERSION, Empty, Fault\n"),
    Edit(
        "dfswire/client.py",
        '            (b"Host", url.netloc),\n',
        '            (b"Host", url.netloc),\n            (b"DFS-Greeting", b"hello"),\n',
    ),
    # metad: each disk gets an order that this release does not know
    Edit(
        "metad/hosts/orders.py",
        "        taken = []\n        for disk in disks:\n",
        """        disks = list(disks)
        greeted = self.__dict__.setdefault("greeted", set())
        taken = [
            Order(order_id=number, kind="greet", chunk=bytes(16), disk=disk)
            for number, disk in enumerate(disks)
            if disk not in greeted
        ]
        greeted.update(disks)
        for disk in disks:
""",
    ),
    Edit(
        "metad/sessions/events.py",
        "Invalidation(inode=inode, what=what, name=name)\n",
        "Invalidation(inode=inode, what=what | 1 << 20, name=name)\n",
    ),
)


def build(directory: Path) -> Path:
    """The tree of the next release, in `directory`."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE / package, directory / package, ignore=ignored)
    for edit in EDITS:
        edit.apply(directory)
    about = directory / f"dfsmount-{VERSION}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dfsmount\nVersion: {VERSION}\n")
    return directory


def words(tree: Path) -> dict[str, str]:
    """What the environment of a process has that runs the code in `tree`."""
    return {"PYTHONPATH": str(tree)}

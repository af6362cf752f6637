"""`dfs ca`: the authority of a cluster, the certificates that it signs, and who is let in.

`init`, `issue` and `show` work on files of this host and ask no daemon; credentialfiles.py says
which files.  `invite`, `join` and `revoke` ask metad, where its settings name the authority.  What
needs the library behind certificates is imported by the verbs: loading it takes a tenth of the time
of the commands that do without.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsmount.cli.cluster import (
    AsJson,
    Directory,
    Url,
    address_of,
    ask,
    find_metad,
    talk,
    tls_directory,
)
from dfsmount.cli.output import say, show_json
from dfswire.admission import Revoke
from dfswire.credentials import ENVIRONMENT, credentials_at
from dfswire.daemon import is_loopback
from dfswire.errors import UsageError
from dfswire.identity import MEMBERS, Identity

if TYPE_CHECKING:
    from dfswire.certificates import Described, DescribedAuthority

DAY_S = 86_400.0
DAYS_MAX = 36_500
INVITED_ROLES = ("chunkd", "client", "operator")

ca_app = typer.Typer(
    help="The authority of a cluster, and certificates.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AuthorityDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Where the authority's two files are.")
]


@ca_app.command()
def init(
    directory: AuthorityDirectory,
    cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help="Its cluster.")],
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="Valid so long.")] = 3650,
    as_json: AsJson = False,
) -> None:
    """Make the authority of a cluster.  Keep its directory safe: who has it can be anybody."""
    from dfswire.certificates import describe_authority
    from dfswire.credentialfiles import AUTHORITY_CERTIFICATE, make_authority

    authority = make_authority(directory, cluster, days * DAY_S)
    _show(
        directory / AUTHORITY_CERTIFICATE,
        describe_authority(authority.certificate_pem),
        as_json=as_json,
    )


@ca_app.command()
def issue(
    directory: AuthorityDirectory,
    role: Annotated[str, typer.Argument(metavar="ROLE", help=f"One of {', '.join(MEMBERS)}.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as the name of the host.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to put them.")],
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="Valid so long.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Make key and certificate for one party; or renew the certificate, for the same key."""
    from dfswire.credentialfiles import NODE_CERTIFICATE, issue_credentials, load_authority

    identity = Identity(load_authority(directory).cluster, role, name)
    issued = issue_credentials(directory, identity, out, days * DAY_S)
    _show(out / NODE_CERTIFICATE, issued, as_json=as_json)


@ca_app.command()
def invite(
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help=f"One of {', '.join(INVITED_ROLES)}.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as the name of the host.")],
    minutes: Annotated[float, typer.Option(min=0.1, max=15, help="Good for so long.")] = 15,
    told: Annotated[
        str,
        typer.Option(
            "--metad",
            metavar="HOST:PORT",
            help="Where who is invited reaches metad, if that differs from --url.",
        ),
    ] = "",
    url: Url = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Print an invitation, for 'dfs ca join' on another host.  It is a secret, good once."""
    from dfsmount.cli.invitations import invite

    metad = find_metad(url, directory)
    own = credentials_at(tls_directory())
    if own is None:
        raise UsageError(f"who invites needs credentials: name an operator's in {ENVIRONMENT}")
    party = Identity(own.identity.cluster, role, name)
    where = address_of(told) if told else metad
    if is_loopback(where):
        say(f"other hosts don't reach metad at {where}: give its address with --metad")
    text = talk(metad, lambda client: invite(client, metad, party, minutes * 60, where))
    if as_json:
        show_json({"invitation": text, "metad": where, "role": role, "name": name})
    else:
        typer.echo(text)


@ca_app.command()
def join(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to put credentials.")],
    told: Annotated[
        str,
        typer.Option("--metad", metavar="HOST:PORT", help="Not where the invitation says."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Read an invitation from standard input, make a key here and have its certificate signed."""
    from dfsmount.cli.invitations import TEXT_MAX_BYTES, Invitation, join
    from dfswire.credentialfiles import NODE_CERTIFICATE

    invitation = Invitation.parse(sys.stdin.read(TEXT_MAX_BYTES))
    joined = join(invitation, address_of(told or invitation.metad), out)
    _show(out / NODE_CERTIFICATE, joined, as_json=as_json)


@ca_app.command()
def revoke(
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help=f"One of {', '.join(INVITED_ROLES)}.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in its certificate.")],
    url: Url = "",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Let metad refuse a party from now on, until it is invited again."""
    ask(find_metad(url, directory), "admission.revoke", Revoke(role=role, name=name))
    if as_json:
        show_json({"role": role, "name": name, "revoked": True})
    else:
        typer.echo(f"{role} {name} is refused by metad, and its certificate is not renewed")


@ca_app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate.")],
    as_json: AsJson = False,
) -> None:
    """Show what a certificate says.  Ends with 1 when it is not valid now."""
    from dfswire.certificates import describe, describe_authority, is_authority
    from dfswire.credentialfiles import about

    pem = file.read_bytes()
    with about(file):
        found = describe_authority(pem) if is_authority(pem) else describe(pem)
    _show(file, found, as_json=as_json)
    now = time.time()
    if not found.begins_s <= now <= found.ends_s:
        say(f"{file}: {'no longer' if now > found.ends_s else 'not yet'} valid")
        raise typer.Exit(1)


def _show(file: Path, found: Described | DescribedAuthority, *, as_json: bool) -> None:
    """For people or as JSON.  Serial numbers are longer than JSON's, and hexadecimal everywhere."""
    from dfswire.certificates import Described

    if isinstance(found, Described):
        who = {"cluster": found.identity.cluster, "role": found.identity.role}
        who["name"] = found.identity.name
        title = found.identity.uri
    else:
        who = {"cluster": found.cluster, "role": "authority", "name": ""}
        title = f"authority of {found.cluster}"
    if as_json:
        times = {"begins_s": found.begins_s, "ends_s": found.ends_s}
        show_json({"file": str(file), **who, **times, "serial": f"{found.serial:x}"})
        return
    typer.echo(f"file      {file}")
    typer.echo(f"identity  {title}")
    typer.echo(f"valid     {_moment(found.begins_s)} to {_moment(found.ends_s)}")
    typer.echo(f"serial    {found.serial:x}")


def _moment(unix_s: float) -> str:
    return f"{datetime.datetime.fromtimestamp(unix_s, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"

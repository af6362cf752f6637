"""The table of layers: who may import whom, what is pure, which libraries are for whom.

It is the architecture's section on layers; tests/test_layers.py reads the real imports and
compares.  A new module must be placed here, which is the moment to think about where it belongs.
"""

from __future__ import annotations


def words(text: str) -> set[str]:
    """The words of a text."""
    return set(text.split())


# Our packages, and which of the others each may use.
PACKAGES = {
    "dfswire": set(),
    "metad": {"dfswire"},
    "chunkd": {"dfswire"},
    "dfsmount": {"dfswire"},
}

# Within a package: a module imports modules of its own line and of the lines below it.  A line that
# names a package means all of it; its own table orders what is inside.  What no line of the outer
# table names (dfsmount.cli) stands apart: neither imports the other.
LAYERS = {
    "dfswire": """
        renewal
        server client
        dispatch transport
        requests
        securesockets
        sockets credentials
        credentialfiles
        bodies
        metrics logs
        looplag watchdog
        journalfile
        calls codec heads
        daemon
        clientcalls operatorcalls
        call
        lockranges
        admin admission
        attrchanges batches heartbeats info status
        fsck hosts inventories jobs moving observe orders policies
        chunks journal locks metadata operations
        verify health
        certificates tokens
        identity
        messages errors
    """,
    "metad": """
        __main__ tool
        service
        metrics
        operators
        upkeep
        clients
        admission
        state
        checks
        names jobs
        hosts sessions recovery observe
        copies
        storage
        journal
        config leases locks
    """,
    "metad.operators": """
        clustercalls
        drains policycalls moving
        status fsckcalls journalcalls moves
        totals leavers
    """,
    "metad.upkeep": """
        reports
        inventories
        repair trim salvage compactor deepcheck reclaim
        serverevents
        repairplan
        rates transfers
    """,
    "metad.clients": """
        mutations reads leasecalls locking
        executions
        sessioncalls batches
        recalls room touched
    """,
    "metad.checks": """
        fsck mend
        invariants
        checknames checkchunks mendnames mendchunks
        rescue queries
    """,
    "metad.names": """
        attributes namespace chunkmap ranges rename
        dentries extents inheritance xattrs
        rows
        orphans
        effects acl
        protection
    """,
    "metad.admission": """
        calls
        rows signer
    """,
    "metad.jobs": """
        runner
        leaving convergence rebalance
        rows
    """,
    "metad.hosts": """
        machines
        servers
        identities owners tokenkeys
        orders server
        doubles grayness
        traffic
    """,
    "metad.sessions": """
        rows
        events
    """,
    "metad.recovery": """
        snapshots restore listing
        gathering epoch
        fence
    """,
    "metad.observe": """
        eventlog
        eventrate
    """,
    "metad.copies": """
        misplaced contents
        policies redundancy
        replicas
        damage
        surplus
        placement recent verified
        losses compaction
    """,
    "metad.storage": """
        verification
        opening
        database group_commit
        pagesums schema statements
        schema_admin schema_admission schema_chunks schema_files schema_hosts upgrades
        sumsfile
        columns connections failure writeaheadlog
        causes durable
    """,
    "metad.journal": """
        recording replay followers
        lineage stream window
    """,
    "metad.leases": """
        table
        sharing
        changes exclusive knowledge turns
    """,
    "metad.locks": """
        ledger
        table
        waits
        space
    """,
    "chunkd": """
        __main__
        assembly
        heartbeat metrics follower
        service orders journalcalls
        guard
        store journal groupsync inventory emptying scrub assemble rebuild
        replicate newchunks
        chunknames
        quarantine
        durability openchunk identity timedfiles snapshotwriter
        ballast
        filesystem layout pagecache buffers storage chain tally figures config diskerrors scrubnote
        diskhealth chunkfile remains peers retention
    """,
    "dfsmount": """
        __main__
        metrics
        adapter client lowlevel.operations
        vfs
        ranges
        names
        leases locks
        files
        remote
        lowlevel.requests
        ports runtime config lowlevel.library lowlevel operationwatch
    """,
    "dfsmount.adapter": """
        fuse mountoptions
        kernelcaches conversions
        nested
    """,
    "dfsmount.names": """
        namespace
        attributes
        mutations
        accesstimes directories
    """,
    "dfsmount.leases": """
        coherence
        exclusive
        returns
        held
        idle lategrants
        attrcache
        kernel questions
        justanswered
    """,
    "dfsmount.locks": """
        hostlocks requests holdings
    """,
    "dfsmount.files": """
        openfiles datapath
        reader writer
        commits
        writeback
        uploader packs durability writeerrors dirtyattributes
        layouts blockcache readahead
        extents
    """,
    "dfsmount.remote": """
        grants
        metaclient chunkclient
        batches
        retries
        session hedging serverhealth badreplicas
        eventstream
        experience followed leaseclock
    """,
    "dfsmount.cli": """
        __main__
        app
        top
        up status nodes events admin policy rebalance metadata info fsck repair mount helper ca
        views jobs
        health
        cluster lifecycle lost invitations
        localcluster launch
        mounts processes output
    """,
}

# Modules that neither wait, nor look at a clock, nor touch a network, a disk or a database.
PURE = words(
    """
    chunkd.chunkfile chunkd.diskhealth chunkd.peers chunkd.remains chunkd.retention
    dfsmount.files.dirtyattributes dfsmount.files.extents dfsmount.files.writeerrors
    dfsmount.files.readahead dfsmount.leases.attrcache dfsmount.leases.justanswered
    dfsmount.leases.lategrants dfsmount.leases.questions
    dfsmount.locks.holdings dfsmount.remote.experience dfsmount.remote.followed
    dfswire.admin dfswire.admission dfswire.attrchanges dfswire.batches dfswire.call dfswire.calls
    dfswire.chunks dfswire.clientcalls dfswire.codec dfswire.errors dfswire.fsck dfswire.health
    dfswire.heartbeats dfswire.hosts dfswire.identity dfswire.info dfswire.inventories dfswire.jobs
    dfswire.journal dfswire.lockranges dfswire.locks dfswire.messages dfswire.metadata
    dfswire.moving dfswire.observe dfswire.operations dfswire.operatorcalls dfswire.orders
    dfswire.policies dfswire.status dfswire.tokens dfswire.verify
    metad.copies.compaction metad.copies.losses
    metad.copies.placement metad.copies.recent metad.copies.surplus metad.copies.verified
    metad.hosts.doubles metad.hosts.grayness metad.hosts.identities metad.hosts.orders
    metad.hosts.server metad.hosts.servers
    metad.journal.lineage metad.journal.window
    metad.leases.changes metad.leases.exclusive metad.leases.knowledge metad.leases.sharing
    metad.leases.table metad.leases.turns
    metad.locks.ledger metad.locks.space metad.locks.table metad.locks.waits metad.names.acl
    metad.names.effects metad.names.orphans metad.names.protection metad.observe.eventrate
    metad.upkeep.rates metad.upkeep.repairplan metad.upkeep.transfers
    """
)
IMPURE_LIBRARIES = words(
    """
    trio httpx h11 peewee pyfuse3 psutil socket select selectors asyncio subprocess threading
    sqlite3 time datetime os pathlib tempfile
    """
)

# Libraries (and one module of ours) that only the modules named here may import.
RESERVED = {
    "pyfuse3": {"dfsmount.adapter.fuse", "dfsmount.adapter.conversions", "dfsmount.__main__"},
    "ctypes": {"dfsmount.lowlevel.library"},
    "dfswire.server": {"metad.__main__", "chunkd.__main__", "dfsmount.__main__"},
    "httpx": {"dfswire.client", "dfswire.transport", "dfswire.bodies"},
    "h11": {"dfswire.heads"},
    "peewee": {
        "metad.storage.schema",
        "metad.storage.schema_admin",
        "metad.storage.schema_admission",
        "metad.storage.schema_chunks",
        "metad.storage.schema_files",
        "metad.storage.schema_hosts",
        "metad.storage.columns",
        "metad.storage.connections",
        "metad.storage.opening",
    },
    "socket": {
        "dfswire.daemon",
        "dfswire.sockets",
        "dfswire.securesockets",
        "dfswire.transport",
        "chunkd.figures",  # the host's name
        "dfsmount.__main__",  # the host's name
        "dfsmount.cli.localcluster",
        "dfsmount.cli.launch",
    },
    "rich": {"dfsmount.cli"},
    "prometheus_client": {"dfswire.metrics"},
    "cryptography": {"dfswire.certificates"},
}

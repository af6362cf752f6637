"""What makes the tables of one schema version those of the next; used by schema.py only.

The statements of a version that was released never change.
"""

from __future__ import annotations

# Replaced by what the settings state as soon as a metad starts on the database.
FIRST_POLICY = "INSERT INTO policy VALUES (0, 2, 4194304, 'host', '')"

# By the version that a database has.
UPGRADES = {
    1: (
        'ALTER TABLE inode ADD COLUMN "flags" INTEGER NOT NULL DEFAULT 0',
        'ALTER TABLE orphan ADD COLUMN "linkable" INTEGER NOT NULL DEFAULT 0',
    ),
    2: (
        'CREATE TABLE "event" ("number" INTEGER NOT NULL PRIMARY KEY, "time_ns" INTEGER NOT NULL, '
        '"kind" TEXT NOT NULL, "severity" TEXT NOT NULL, "subject" TEXT NOT NULL, '
        '"message" TEXT NOT NULL, "times" INTEGER NOT NULL)',
        'ALTER TABLE chunk ADD COLUMN "policy" INTEGER NOT NULL DEFAULT 0',
        "DROP INDEX chunk_live",
        'CREATE INDEX "chunk_live" ON "chunk" ("policy", "good", "length") '
        "WHERE \"state\" = 'live'",
        "ALTER TABLE server ADD COLUMN \"admin\" TEXT NOT NULL DEFAULT 'enabled'",
        "ALTER TABLE disk ADD COLUMN \"admin\" TEXT NOT NULL DEFAULT 'enabled'",
        # It had the root's policy only, which the settings state again when metad starts.
        "DROP TABLE policy",
        'CREATE TABLE "policy" ("key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, '
        '"replicas" INTEGER NOT NULL, "chunk_size_bytes" INTEGER NOT NULL, '
        '"domain" TEXT NOT NULL, "label" TEXT NOT NULL)',
        FIRST_POLICY,
        'CREATE TABLE "directory_policy" ("inode" INTEGER NOT NULL PRIMARY KEY, '
        '"policy" INTEGER NOT NULL)',
        'CREATE TABLE "converging" ("inode" INTEGER NOT NULL PRIMARY KEY, '
        '"position" INTEGER NOT NULL)',
        'CREATE TABLE "job" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, '
        '"name" TEXT NOT NULL, "kind" TEXT NOT NULL, "argument" TEXT NOT NULL, '
        '"state" TEXT NOT NULL, "cursor" TEXT NOT NULL, "done" INTEGER NOT NULL, '
        '"total" INTEGER NOT NULL, "unit" TEXT NOT NULL, "errors" INTEGER NOT NULL, '
        '"message" TEXT NOT NULL, "started_ns" INTEGER NOT NULL, "ended_ns" INTEGER NOT NULL)',
        'CREATE UNIQUE INDEX "jobrow_name" ON "job" ("name")',
        'CREATE INDEX "replica_excess" ON "replica" ("disk", "chunk") WHERE "state" = \'excess\'',
        'CREATE TABLE "journal" ("id" INTEGER NOT NULL PRIMARY KEY, "term" INTEGER NOT NULL, '
        '"number" INTEGER NOT NULL, "time_ns" INTEGER NOT NULL, "digest" BLOB NOT NULL)',
        "INSERT INTO journal VALUES (1, 0, 0, 0, zeroblob(16))",
        "INSERT INTO setting VALUES ('epoch', '1')",
        'CREATE TABLE "damage" ("chunk" BLOB NOT NULL, "offset" INTEGER NOT NULL, '
        '"length" INTEGER NOT NULL, "since_ns" INTEGER NOT NULL, PRIMARY KEY ("chunk", "offset")) '
        "WITHOUT ROWID",
    ),
    3: (
        "ALTER TABLE server ADD COLUMN \"party\" TEXT NOT NULL DEFAULT ''",
        'CREATE TABLE "invitation" ("id" TEXT NOT NULL PRIMARY KEY, "role" TEXT NOT NULL, '
        '"name" TEXT NOT NULL, "inviter" TEXT NOT NULL, "ends_ns" INTEGER NOT NULL, '
        '"key" BLOB NOT NULL) WITHOUT ROWID',
        'CREATE TABLE "revocation" ("role" TEXT NOT NULL, "name" TEXT NOT NULL, '
        '"since_s" INTEGER NOT NULL, PRIMARY KEY ("role", "name")) WITHOUT ROWID',
    ),
}

"""The tables of the file system itself: inodes, names, attributes, and where bytes are.

Part of metad/storage/schema.py, whose rules hold here.
"""

from __future__ import annotations

from peewee import (
    AutoField,
    BigIntegerField,
    BlobField,
    IntegerField,
    Model,
)

from metad.storage.columns import NEVER_REUSED, ZERO, optional


# inode: every file, directory, symlink, device, fifo and socket.
#   inode            the number, never reused: kernels and NFS clients may remember a dead one.
#   generation       creation time in seconds, 32 bits: tells apart two lives of one number when an
#                    older database was restored.
#   mode             file type and permission bits, as in stat(2); the type never changes.
#   nlink            dentries that name it; for a directory 2 + its subdirectories.  0: no name is
#                    left and the inode is in `orphan`.
#   size             of a symlink the length of its target; of a directory 0.
#   allocated_bytes  the sum of the lengths of its extents, always exact.
#   parent           of a directory the directory that names it (the root names itself), for "..";
#                    of anything else 0, for it may have several names.  Of a removed directory
#                    the last one, which may be gone.
#   target           of a symlink its target; else empty.
#   flags            of regular files and directories what chattr has set, of operations.FS_KEPT.
class InodeRow(Model):
    inode = AutoField(constraints=NEVER_REUSED)
    generation = BigIntegerField()
    mode = IntegerField()
    uid = IntegerField()
    gid = IntegerField()
    rdev = BigIntegerField()
    nlink = IntegerField()
    size = BigIntegerField()
    allocated_bytes = BigIntegerField()
    atime_ns = BigIntegerField()
    mtime_ns = BigIntegerField()
    ctime_ns = BigIntegerField()
    parent = BigIntegerField()
    target = BlobField()
    flags = BigIntegerField(constraints=[ZERO])

    class Meta:
        table_name = "inode"


# dentry: a name in a directory.
#   cookie  the readdir position, from FIRST_COOKIE, never reused, grows; it stays with the name
#           when rename replaces the inode behind it, and goes along when the name is changed, so
#           a program that renames what it lists does not meet its own work.
#   parent  the directory's inode;  name  1 to 255 bytes, no "/" or NUL;  inode  what it names.
# (parent, name) is unique.  The index on parent yields cookie order, as cookie is the rowid.
class Dentry(Model):
    cookie = AutoField(constraints=NEVER_REUSED)
    parent = BigIntegerField(index=True)
    name = BlobField()
    inode = BigIntegerField(index=True)

    class Meta:
        table_name = "dentry"
        indexes = ((("parent", "name"), True),)


# xattr: extended attributes; (inode, name) is unique.
class XattrRow(Model):
    inode = BigIntegerField()
    name = BlobField()
    value = BlobField()

    class Meta:
        table_name = "xattr"
        indexes = ((("inode", "name"), True),)


# extent: which bytes of a file are where; what no extent covers, below the size, is a hole.
#   inode, offset, length   the range of the file; length >= 1; extents of an inode never overlap
#                           and end at or before its size.
#   chunk, chunk_offset     the live chunk that has the bytes and where they start in it; or
#   data                    the bytes themselves, exactly `length` of them.
# Exactly one of chunk and data is not NULL; chunk_offset is 0 for data.
class ExtentRow(Model):
    inode = BigIntegerField()
    offset = BigIntegerField()
    length = BigIntegerField()
    chunk = BlobField(null=True)
    chunk_offset = BigIntegerField()
    data = BlobField(null=True)

    class Meta:
        table_name = "extent"
        indexes = ((("inode", "offset"), True),)


ExtentRow.add_index(ExtentRow.chunk, where=optional(ExtentRow.chunk), name="extent_chunk")


# orphan: inodes without a name that some client may have open; purged when none has.
#   linkable  1: made without a name (O_TMPFILE), so a link may still give it its first one; 0.
class OrphanRow(Model):
    inode = BigIntegerField(primary_key=True)
    since_ns = BigIntegerField()
    linkable = IntegerField(constraints=[ZERO])

    class Meta:
        table_name = "orphan"


TABLES: list[type[Model]] = [InodeRow, Dentry, XattrRow, ExtentRow, OrphanRow]

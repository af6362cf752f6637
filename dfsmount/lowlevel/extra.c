/*
 * What pyfuse3 leaves out, put between it and libfuse.
 *
 * pyfuse3 registers neither locks nor lseek, fallocate, copy_file_range, ioctl and O_TMPFILE, does
 * not tell Python all that the kernel says with flush, release and setxattr, and ignores the kernel
 * when it says that a request's caller was hit by a signal.  This library is loaded before pyfuse3,
 * with its symbols visible to it, and has three functions named as those of libfuse that pyfuse3
 * calls: the dynamic linker finds these first, and they pass on to the real ones.
 *
 *   fuse_session_new            extends pyfuse3's table of operations
 *   fuse_session_process_buf    looks at the head of each request, and takes interrupts out
 *   fuse_reply_err              does not answer what is answered already (see answer_early)
 *
 * Everything here runs in the one thread that pyfuse3's loop runs in, and nothing here waits.
 * library.py is the other side; the structs below are laid out there as well, and a test compares
 * their sizes.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 35
#include <dlfcn.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* --- what Python sees ------------------------------------------------------------------------ */

/* The request that is being dispatched.  pyfuse3 starts the handler's coroutine before its loop
 * looks at the device again, so what the handler reads here in its first step is its own. */
struct dfs_request {
	uint64_t unique; /* the kernel's number for it, never used twice in the life of a mount */
	uint64_t owner;	 /* flush, release: who holds locks through this open file */
	uint32_t opcode;
	uint32_t pid;	/* the thread that waits; 0 when it is in a pid namespace not seen here */
	int32_t flags;	/* setxattr: XATTR_CREATE, XATTR_REPLACE; release: whether flock is to end */
};

enum kind { GETLK, SETLK, FLOCK, LSEEK, FALLOCATE, COPY_FILE_RANGE, IOCTL, TMPFILE };

/* An operation that pyfuse3 does not know; a field without meaning for it is 0. */
struct dfs_call {
	fuse_req_t request; /* to be answered once, by a function of libfuse */
	uint64_t unique;
	uint64_t inode;
	uint64_t handle;
	uint64_t owner; /* of a lock */
	int64_t offset; /* of a lock too */
	int64_t length; /* of a lock: 0 is to the end */
	uint64_t inode_out;
	uint64_t handle_out;
	int64_t offset_out;
	uint32_t kind;
	int32_t argument; /* SETLK: whether to wait; FLOCK: operation; LSEEK: whence; FALLOCATE: mode */
	uint32_t command; /* IOCTL */
	int32_t lock_type;
	int32_t lock_pid;
	uint32_t pid;
	uint32_t uid;
	uint32_t gid;
	uint32_t data_bytes;	   /* IOCTL: what came with it */
	uint32_t reply_room_bytes; /* IOCTL: the most that may be answered */
	uint8_t data[64];	   /* the largest known is struct fsxattr, 28 */
};

typedef void (*on_call)(const struct dfs_call *call);
typedef void (*on_interrupt)(uint64_t unique);

/* Beyond all errno: pyfuse3's answer to a request that was answered early. */
#define ANSWERED 999

EXPORT struct dfs_request dfs_current;

/* --- state ------------------------------------------------------------------------------------ */

static uint32_t wanted_kinds; /* bits by enum kind */
static on_call call_python;
static on_interrupt interrupt_python;
static struct fuse_lowlevel_ops pyfuse; /* as pyfuse3 filled it */
static int device = -1;

/* Called once, before pyfuse3.init. */
EXPORT void dfs_attach(uint32_t kinds, on_call call, on_interrupt interrupt)
{
	wanted_kinds = kinds;
	call_python = call;
	interrupt_python = interrupt;
}

EXPORT void dfs_sizes(size_t *request, size_t *call)
{
	*request = sizeof(struct dfs_request);
	*call = sizeof(struct dfs_call);
}

static int is_wanted(enum kind kind)
{
	return wanted_kinds >> kind & 1;
}

/* The real function behind one of ours. */
static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

/* --- operations that pyfuse3 does not register -------------------------------------------------- */

static struct dfs_call begin(enum kind kind, fuse_req_t request, fuse_ino_t inode,
			     const struct fuse_file_info *file)
{
	const struct fuse_ctx *context = fuse_req_ctx(request);
	struct dfs_call call = {
		.request = request,
		.unique = dfs_current.unique,
		.kind = kind,
		.inode = inode,
		.handle = file ? file->fh : 0,
		.owner = file ? file->lock_owner : 0,
		.pid = (uint32_t)context->pid,
		.uid = context->uid,
		.gid = context->gid,
	};
	return call;
}

static struct dfs_call begin_lock(enum kind kind, fuse_req_t request, fuse_ino_t inode,
				  const struct fuse_file_info *file, const struct flock *lock)
{
	struct dfs_call call = begin(kind, request, inode, file);

	call.lock_type = lock->l_type;
	call.lock_pid = lock->l_pid;
	call.offset = lock->l_start;
	call.length = lock->l_len;
	return call;
}

static void op_getlk(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
		     struct flock *lock)
{
	struct dfs_call call = begin_lock(GETLK, request, inode, file, lock);

	call_python(&call);
}

static void op_setlk(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
		     struct flock *lock, int sleep)
{
	struct dfs_call call = begin_lock(SETLK, request, inode, file, lock);

	call.argument = sleep;
	call_python(&call);
}

static void op_flock(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
		     int operation)
{
	struct dfs_call call = begin(FLOCK, request, inode, file);

	call.argument = operation;
	call_python(&call);
}

static void op_lseek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence,
		     struct fuse_file_info *file)
{
	struct dfs_call call = begin(LSEEK, request, inode, file);

	call.offset = offset;
	call.argument = whence;
	call_python(&call);
}

static void op_fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
			 struct fuse_file_info *file)
{
	struct dfs_call call = begin(FALLOCATE, request, inode, file);

	call.argument = mode;
	call.offset = offset;
	call.length = length;
	call_python(&call);
}

static void op_copy_file_range(fuse_req_t request, fuse_ino_t inode, off_t offset,
			       struct fuse_file_info *file, fuse_ino_t inode_out, off_t offset_out,
			       struct fuse_file_info *file_out, size_t length, int flags)
{
	struct dfs_call call = begin(COPY_FILE_RANGE, request, inode, file);

	(void)flags; /* none exist */
	call.offset = offset;
	call.inode_out = inode_out;
	call.handle_out = file_out->fh;
	call.offset_out = offset_out;
	call.length = (int64_t)length;
	call_python(&call);
}

static void op_ioctl(fuse_req_t request, fuse_ino_t inode, unsigned int command, void *argument,
		     struct fuse_file_info *file, unsigned flags, const void *data,
		     size_t data_bytes, size_t reply_room_bytes)
{
	struct dfs_call call = begin(IOCTL, request, inode, file);

	(void)argument; /* an address in the caller, out of reach */
	(void)flags;
	if (data_bytes > sizeof(call.data)) {
		fuse_reply_err(request, ENOTTY); /* none that is known here */
		return;
	}
	if (data_bytes)
		memcpy(call.data, data, data_bytes);
	call.command = command;
	call.data_bytes = (uint32_t)data_bytes;
	call.reply_room_bytes = (uint32_t)reply_room_bytes;
	call_python(&call);
}

/* --- operations of which pyfuse3 passes on only a part ------------------------------------------ */

static void op_init(void *data, struct fuse_conn_info *connection)
{
	pyfuse.init(data, connection);
	/* With splice a large write stays in a pipe, and its head is not to be seen. */
	connection->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
	/* The umask is ours to apply: a default ACL takes its place, and metad knows whether. */
	connection->want |= connection->capable & FUSE_CAP_DONT_MASK;
}

static void op_flush(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
	dfs_current.owner = file->lock_owner;
	pyfuse.flush(request, inode, file);
}

static void op_release(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
	dfs_current.owner = file->lock_owner;
	dfs_current.flags = file->flock_release;
	pyfuse.release(request, inode, file);
}

/* pyfuse3 asks for the attribute first where flags are given, so two clients could both find that
 * it does not exist.  Without flags it does nothing of that; the handler finds them here. */
static void op_setxattr(fuse_req_t request, fuse_ino_t inode, const char *name, const char *value,
			size_t size, int flags)
{
	dfs_current.flags = flags;
	pyfuse.setxattr(request, inode, name, value, size, 0);
}

/* --- between pyfuse3 and libfuse ---------------------------------------------------------------- */

/* pyfuse3's table with ours laid over.  It may be longer than we know, when pyfuse3 was built with
 * a newer libfuse. */
static const struct fuse_lowlevel_ops *extended(const struct fuse_lowlevel_ops *table, size_t *bytes)
{
	static union {
		struct fuse_lowlevel_ops ops;
		char room[4096];
	} both;
	struct fuse_lowlevel_ops *ops = &both.ops;

	if (!call_python || *bytes > sizeof(both))
		return table;
	memset(&both, 0, sizeof(both));
	memcpy(&both, table, *bytes);
	pyfuse = *ops;
	if (*bytes < sizeof(*ops))
		*bytes = sizeof(*ops);
	ops->init = op_init;
	ops->flush = op_flush;
	ops->release = op_release;
	ops->setxattr = op_setxattr;
	if (is_wanted(GETLK) && is_wanted(SETLK)) { /* one alone is of no use to the kernel */
		ops->getlk = op_getlk;
		ops->setlk = op_setlk;
	}
	if (is_wanted(FLOCK))
		ops->flock = op_flock;
	if (is_wanted(LSEEK))
		ops->lseek = op_lseek;
	if (is_wanted(FALLOCATE))
		ops->fallocate = op_fallocate;
	if (is_wanted(COPY_FILE_RANGE))
		ops->copy_file_range = op_copy_file_range;
	if (is_wanted(IOCTL))
		ops->ioctl = op_ioctl;
	return ops;
}

/* In libfuse 3.17 the name became a macro for fuse_session_new_versioned; which of the two pyfuse3
 * calls depends on the headers that it was built with.  Names of our own, because the headers
 * declare theirs differently. */
EXPORT struct fuse_session *dfs_session_new(struct fuse_args *args,
					    const struct fuse_lowlevel_ops *table, size_t bytes,
					    void *data) __asm__("fuse_session_new");
EXPORT struct fuse_session *
dfs_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *table,
			  size_t bytes, void *version,
			  void *data) __asm__("fuse_session_new_versioned");

struct fuse_session *dfs_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *table,
				     size_t bytes, void *data)
{
	struct fuse_session *(*session_new)(struct fuse_args *, const struct fuse_lowlevel_ops *,
					    size_t, void *) = real("fuse_session_new");

	table = extended(table, &bytes);
	return session_new(args, table, bytes, data);
}

struct fuse_session *dfs_session_new_versioned(struct fuse_args *args,
					       const struct fuse_lowlevel_ops *table, size_t bytes,
					       void *version, void *data)
{
	struct fuse_session *(*session_new)(struct fuse_args *, const struct fuse_lowlevel_ops *,
					    size_t, void *,
					    void *) = real("fuse_session_new_versioned");

	table = extended(table, &bytes);
	return session_new(args, table, bytes, version, data);
}

/* The kernel's protocol (linux/fuse.h), as far as it is needed here; older headers lack parts. */
enum { OP_CREATE = 35, OP_INTERRUPT = 36, OP_TMPFILE = 51 };

struct in_header {
	uint32_t length, opcode;
	uint64_t unique, inode;
	uint32_t uid, gid, pid, padding;
};

struct interrupt_in {
	struct in_header header;
	uint64_t unique; /* of the request that is interrupted */
};

struct out_header {
	uint32_t length;
	int32_t error;
	uint64_t unique;
};

EXPORT void fuse_session_process_buf(struct fuse_session *session, const struct fuse_buf *buffer)
{
	static void (*process)(struct fuse_session *, const struct fuse_buf *);
	struct in_header *head = buffer->mem;

	if (!process)
		process = real("fuse_session_process_buf");
	memset(&dfs_current, 0, sizeof(dfs_current));
	if (interrupt_python && !(buffer->flags & FUSE_BUF_IS_FD) &&
	    buffer->size >= sizeof(*head)) {
		device = fuse_session_fd(session);
		dfs_current.unique = head->unique;
		dfs_current.opcode = head->opcode;
		dfs_current.pid = head->pid;
		if (head->opcode == OP_INTERRUPT) {
			/* It has no answer.  libfuse would keep those of requests that are over. */
			interrupt_python(((struct interrupt_in *)head)->unique);
			return;
		}
		/* The same body and the same answer; the name is "/", which no other CREATE has.
		 * libfuse knows TMPFILE since 3.15, pyfuse3 does not. */
		if (head->opcode == OP_TMPFILE && is_wanted(TMPFILE))
			head->opcode = OP_CREATE;
	}
	process(session, buffer);
}

/* Answer a request while its handler goes on: its caller is being killed and waits for nothing but
 * this.  libfuse's request lives on until the handler ends, with the error ANSWERED. */
EXPORT int dfs_answer_early(uint64_t unique, int error)
{
	struct out_header answer = {
		.length = sizeof(answer),
		.error = -error,
		.unique = unique,
	};

	return write(device, &answer, sizeof(answer)) == (ssize_t)sizeof(answer) ? 0 : errno;
}

EXPORT int fuse_reply_err(fuse_req_t request, int error)
{
	static int (*reply)(fuse_req_t, int);

	if (!reply)
		reply = real("fuse_reply_err");
	if (error != ANSWERED)
		return reply(request, error);
	fuse_reply_none(request); /* frees it, and says nothing */
	return 0;
}

EXPORT int dfs_reply_lock(fuse_req_t request, int type, int64_t start, int64_t length, int32_t pid)
{
	struct flock lock = {
		.l_type = (short)type,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = length,
		.l_pid = pid,
	};

	return fuse_reply_lock(request, &lock);
}

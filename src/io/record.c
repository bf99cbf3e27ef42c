/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending writes one line at the known end of the file and syncs it. What follows the last
 * whole line can only be a line that a crash has torn, or that a failed append could not take
 * back: it was never reported as written, so it is cut off.
 *
 * Beginning and compacting write a new file beside the old one, sync it, and rename it over; so a
 * file with the record's name always has a whole head.
 *
 * Invariants:
 * 1. `size` is the end of the last whole line; nothing behind it counts.
 * 2. The entries in the file are first, first+1, …, next-1, without a gap.
 * 3. The entry `wanted` begins at the offset `wanted_at`, or is yet to be appended there; first
 *    <= wanted <= next.
 */
#include "io/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/hash.h"
#include "io/json.h"

#define FORMAT     "sosie-record"
#define VERSION    1
#define SEAL_SIZE  18 /* ,"crc":"01234567"} */
#define READ_BLOCK (64U << 10)
/* Of a record's name, so that ".new" fits behind it. */
#define RECORD_NAME_MAX 64

struct record {
	int directory, fd;
	char name[RECORD_NAME_MAX];
	uint64_t first, next, wanted;
	off_t size, wanted_at;
};

void record_free(struct record *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		(void)close(r->fd);
	if (r->directory >= 0)
		(void)close(r->directory);
	free(r);
}

uint64_t record_first(const struct record *r)
{
	return r->first;
}

uint64_t record_next(const struct record *r)
{
	return r->next;
}

uint64_t record_bytes(const struct record *r)
{
	return (uint64_t)r->size;
}

/* Appends the object to the buffer as a sealed line. */
static int seal(struct buf *line, const json_t *object)
{
	CLEANUP_FREE char *text = json_dumps(object, JSON_COMPACT);
	size_t n;

	if (!text)
		return -ENOMEM;
	n = strlen(text) - 1; /* without the brace that ends it */
	(void)buf_append(line, text, n);
	(void)buf_printf(line, ",\"crc\":\"%08" PRIx32 "\"}\n", crc32c(0, text, n));
	return buf_error(line);
}

/* The object in a line of n bytes without its end. -EBADMSG when it fails its checks. */
static int unseal(const char *line, size_t n, json_t **ret)
{
	char expected[SEAL_SIZE + 1];

	if (n <= SEAL_SIZE)
		return -EBADMSG;
	(void)snprintf(expected, sizeof(expected), ",\"crc\":\"%08" PRIx32 "\"}",
		crc32c(0, line, n - SEAL_SIZE));
	if (memcmp(line + n - SEAL_SIZE, expected, SEAL_SIZE) != 0)
		return -EBADMSG;
	return json_parse(line, n, NULL, ret, NULL) < 0 ? -EBADMSG : 0;
}

static int write_all(int fd, const char *bytes, size_t n, off_t at)
{
	while (n > 0) {
		ssize_t done = pwrite(fd, bytes, n, at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		bytes += done;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

/* Lines of a file from an offset on, one after the other. */
struct lines_reader {
	int fd;
	off_t at;    /* of the line that line_next() gives next */
	size_t used; /* of the buffer: lines given already */
	struct buf buffer;
};

#define LINES_READER(file, offset)                                        \
	(struct lines_reader)                                             \
	{                                                                 \
		.fd = (file), .at = (offset),                             \
		.buffer = BUF_INIT(RECORD_LINE_MAX + 1U + 2 * READ_BLOCK) \
	}

/*
 * 1: *line and *n are the next line, without its end, until the next call; 0: there is no whole
 * line left.
 */
static int line_next(struct lines_reader *l, const char **line, size_t *n)
{
	for (;;) {
		const char *from = buf_text(&l->buffer) + l->used;
		size_t left = l->buffer.size - l->used;
		const char *end = memchr(from, '\n', left);
		char block[READ_BLOCK];
		ssize_t got;
		int r;

		if (end) {
			*line = from;
			*n = (size_t)(end - from);
			l->used += *n + 1;
			l->at += (off_t)*n + 1;
			return 1;
		}
		if (left > RECORD_LINE_MAX)
			return 0;
		buf_consume(&l->buffer, l->used);
		l->used = 0;
		got = pread(l->fd, block, sizeof(block), l->at + (off_t)left);
		if (got < 0 && errno != EINTR)
			return -errno;
		if (got == 0)
			return 0;
		r = buf_append(&l->buffer, block, got > 0 ? (size_t)got : 0);
		if (r < 0)
			return r;
	}
}

static void lines_reader_done(struct lines_reader *l)
{
	buf_free(&l->buffer);
}

static int read_head(struct record *r, struct lines_reader *l, struct err *e)
{
	CLEANUP_JSON json_t *head = NULL;
	const char *line, *format;
	int64_t version, first;
	size_t n;
	int got = line_next(l, &line, &n);

	if (got < 0)
		return err_errno(e, got, "read %s", r->name);
	if (got == 0 || unseal(line, n, &head) < 0 ||
		json_get_string(head, "format", 64, &format, NULL) < 0 ||
		strcmp(format, FORMAT) != 0 ||
		json_get_integer(head, "version", 0, INT64_MAX, &version, NULL) < 0 ||
		json_get_integer(head, "first", 1, INT64_MAX - 1, &first, NULL) < 0)
		return err_set(e, ERR_CORRUPT, "%s does not begin as a record", r->name);
	if (version != VERSION)
		return err_set(e, ERR_VERSION, "%s is of version %" PRId64 ", not %d", r->name,
			version, VERSION);
	r->first = r->next = r->wanted = (uint64_t)first;
	return 0;
}

/* Whether a whole, valid entry follows. */
static bool more_follows(struct lines_reader *l)
{
	const char *line;
	size_t n;

	while (line_next(l, &line, &n) > 0) {
		CLEANUP_JSON json_t *entry = NULL;

		if (unseal(line, n, &entry) == 0)
			return true;
	}
	return false;
}

static int scan(struct record *r, struct lines_reader *l, struct err *e)
{
	int got = read_head(r, l, e);

	if (got < 0)
		return got;
	r->size = r->wanted_at = l->at;
	for (;;) {
		CLEANUP_JSON json_t *entry = NULL;
		const char *line;
		int64_t sequence;
		size_t n;

		got = line_next(l, &line, &n);
		if (got < 0)
			return err_errno(e, got, "read %s", r->name);
		if (got == 0)
			return 0;
		if (unseal(line, n, &entry) < 0)
			break;
		if (json_get_integer(entry, "sequence", 1, INT64_MAX - 1, &sequence, NULL) < 0 ||
			(uint64_t)sequence != r->next)
			return err_set(e, ERR_CORRUPT, "%s lacks entry %" PRIu64, r->name, r->next);
		r->next++;
		r->size = l->at;
	}
	if (more_follows(l))
		return err_set(e, ERR_CORRUPT, "entry %" PRIu64 " of %s fails its checksum",
			r->next, r->name);
	return 0;
}

/*
 * Writes a new file with a head and what the present one (if any) holds from the offset on, and
 * puts it in place. *ret_fd is the new file, locked; *ret_head the length of its head.
 */
static int rewrite(struct record *r, uint64_t first, off_t from, int *ret_fd, off_t *ret_head)
{
	CLEANUP_JSON json_t *head = json_pack("{s:s, s:i, s:I}", "format", FORMAT, "version",
		VERSION, "first", (json_int_t)first);
	CLEANUP_BUF struct buf line = BUF_INIT(4096);
	char temporary[RECORD_NAME_MAX + 4], block[READ_BLOCK];
	CLEANUP_CLOSE int fd = -1;
	off_t at;
	int result;

	if (!head)
		return -ENOMEM;
	result = seal(&line, head);
	if (result < 0)
		return result;
	(void)snprintf(temporary, sizeof(temporary), "%s.new", r->name);
	fd = openat(
		r->directory, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	result = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : write_all(fd, line.data, line.size, 0);
	at = (off_t)line.size;
	while (result == 0 && from < r->size) {
		size_t want = (size_t)MIN((off_t)sizeof(block), r->size - from);
		ssize_t n = pread(r->fd, block, want, from);

		if (n <= 0) {
			result = n < 0 ? -errno : -EIO;
			break;
		}
		result = write_all(fd, block, (size_t)n, at);
		from += n;
		at += n;
	}
	if (result == 0 &&
		(fsync(fd) < 0 || renameat(r->directory, temporary, r->directory, r->name) < 0))
		result = -errno;
	if (result < 0) {
		(void)unlinkat(r->directory, temporary, 0);
		return result;
	}
	/* Should this fail, a crash may bring the old file back, which is as good. */
	(void)fsync(r->directory);
	*ret_head = (off_t)line.size;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int begin(struct record *r, struct err *e)
{
	int result;

	r->first = r->next = r->wanted = 1;
	result = rewrite(r, r->first, 0, &r->fd, &r->size);
	if (result < 0)
		return err_errno(e, result, "begin %s", r->name);
	r->wanted_at = r->size;
	return 0;
}

static int reopen(struct record *r, struct err *e)
{
	struct lines_reader l = LINES_READER(r->fd, 0);
	int result;

	if (flock(r->fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_errno(e, -errno, "lock %s", r->name);
		return err_set(e, ERR_CONFLICT, "%s is in use by another process", r->name);
	}
	result = scan(r, &l, e);
	lines_reader_done(&l);
	if (result < 0)
		return result;
	if (ftruncate(r->fd, r->size) < 0)
		return err_errno(e, -errno, "cut the torn end off %s", r->name);
	return 0;
}

int record_open(int directory, const char *name, struct record **ret, struct err *e)
{
	CLEANUP_RECORD struct record *r = calloc(1, sizeof(*r));
	int result;

	if (!r)
		return err_errno(e, -ENOMEM, "open %s", name);
	r->fd = -1;
	r->directory = fcntl(directory, F_DUPFD_CLOEXEC, 3);
	if (r->directory < 0)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freed by its cleanup */
		return err_errno(e, -errno, "open %s", name);
	if ((size_t)snprintf(r->name, sizeof(r->name), "%s", name) >= sizeof(r->name))
		return err_errno(e, -ENAMETOOLONG, "open %s", name);
	r->fd = openat(directory, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (r->fd >= 0)
		result = reopen(r, e);
	else if (errno == ENOENT)
		result = begin(r, e);
	else
		result = err_errno(e, -errno, "open %s", name);
	if (result < 0)
		return result;
	*ret = TAKE_PTR(r);
	return 0;
}

int record_append(struct record *r, json_t *entry, uint64_t *ret_sequence)
{
	CLEANUP_JSON json_t *own = entry, *object = NULL;
	CLEANUP_BUF struct buf line = BUF_INIT(RECORD_LINE_MAX);
	int result;

	object = json_pack("{s:I}", "sequence", (json_int_t)r->next);
	if (!own || !object || json_object_update(object, own) < 0)
		return -ENOMEM;
	result = seal(&line, object);
	if (result < 0)
		return result;
	result = write_all(r->fd, line.data, line.size, r->size);
	if (result == 0 && fdatasync(r->fd) < 0)
		result = -errno;
	if (result < 0) {
		/* Not needed for what is read later; it gives the space back. */
		(void)!ftruncate(r->fd, r->size);
		return result;
	}
	r->size += (off_t)line.size;
	if (ret_sequence)
		*ret_sequence = r->next;
	r->next++;
	return 0;
}

/* Calls back from the entry `wanted` on for those not below `from`. *ret_at: of the last one. */
static int walk(struct record *r, uint64_t from, record_fn fn, void *userdata, off_t *ret_at)
{
	struct lines_reader l = LINES_READER(r->fd, from >= r->wanted ? r->wanted_at : 0);
	uint64_t sequence = from >= r->wanted ? r->wanted : r->first;
	const char *line = NULL;
	int result = 0;
	size_t n = 0;

	if (from < r->wanted)
		result = MIN(line_next(&l, &line, &n), 0); /* the head */
	while (result == 0 && sequence < r->next) {
		CLEANUP_JSON json_t *entry = NULL;
		off_t at = l.at;

		result = line_next(&l, &line, &n);
		if (result <= 0) {
			result = result < 0 ? result : -EBADMSG;
			break;
		}
		result = sequence < from ? 0 : unseal(line, n, &entry);
		if (result == 0 && sequence >= from) {
			if (ret_at)
				*ret_at = at;
			result = fn(sequence, entry, userdata);
		}
		sequence++;
	}
	lines_reader_done(&l);
	return result;
}

int record_each(struct record *r, uint64_t from, record_fn fn, void *userdata)
{
	return walk(r, MAX(from, r->first), fn, userdata, NULL);
}

static int stop_here(uint64_t sequence, const json_t *entry, void *userdata)
{
	(void)sequence;
	(void)entry;
	(void)userdata;
	return 1;
}

int record_forget(struct record *r, uint64_t before)
{
	off_t at = r->size, head = 0;
	int fd = -1, result;

	before = MIN(before, r->next);
	if (before <= r->wanted)
		return 0;
	result = walk(r, before, stop_here, NULL, &at);
	if (result < 0)
		return result;
	r->wanted = before;
	r->wanted_at = at;
	if (at < (off_t)RECORD_SLACK || at < r->size - at)
		return 0;
	result = rewrite(r, before, at, &fd, &head);
	if (result < 0)
		return result;
	(void)close(r->fd);
	r->fd = fd;
	r->first = before;
	r->size = head + r->size - at;
	r->wanted_at = head;
	return 0;
}

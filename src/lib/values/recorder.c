/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/values/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/source.h"
#include "core/values/lane.h"

/* How often the members' processes are looked at, in looks. */
#define LIVENESS_EVERY 10
/* A journal larger than this is not read into memory at once. */
#define JOURNAL_LOAD_MAX (1ULL << 32)
#define SETTLE_TRIES     200
#define FRAMES_MAX       (64U << 20)

static uint64_t now(void)
{
	return source_system.clock_ns(NULL, CLOCK_REALTIME);
}

static int group_file(const struct group *g, const char *name, char *out, struct err *e)
{
	int r = path_join(out, PATH_MAX, g->directory, name);

	return r < 0 ? err_errno(e, r, "open %s of group %s", name, g->name) : 0;
}

static int write_all(int fd, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	while (n > 0) {
		ssize_t done = write(fd, at, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

int recorder_load(const struct group *g, uint8_t **ret, size_t *ret_size, struct err *e)
{
	CLEANUP_FREE uint8_t *bytes = NULL;
	CLEANUP_CLOSE int fd = -1;
	char path[PATH_MAX];
	size_t size = 0;
	struct stat st;
	int r = group_file(g, "journal", path, e);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return err_errno(e, -errno, "open %s", path);
	if (fd >= 0 && fstat(fd, &st) < 0)
		return err_errno(e, -errno, "read %s", path);
	if (fd < 0 || st.st_size == 0) {
		*ret = NULL;
		*ret_size = 0;
		return 0;
	}
	if ((uint64_t)st.st_size > JOURNAL_LOAD_MAX)
		return err_set(e, ERR_TOO_LARGE, "%s is larger than 4 GiB", path);
	bytes = malloc((size_t)st.st_size);
	if (!bytes)
		return err_errno(e, -ENOMEM, "read %s", path);
	while (size < (size_t)st.st_size) {
		ssize_t n = read(fd, bytes + size, (size_t)st.st_size - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, -errno, "read %s", path);
		if (n == 0)
			break;
		size += (size_t)n;
	}
	r = journal_check(bytes, size, segment_header(&g->segment)->group_id, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(bytes);
	*ret_size = size;
	return 0;
}

/* Opens the journal for appending behind its last whole frame. */
static int open_journal(struct recorder *rec, struct err *e)
{
	const struct group *g = rec->group;
	CLEANUP_BUF struct buf header = BUF_INIT(JOURNAL_HEADER);
	CLEANUP_FREE uint8_t *bytes = NULL;
	size_t size = 0, whole = 0;
	char path[PATH_MAX];
	int r = group_file(g, "journal", path, e);

	if (r == 0)
		r = recorder_load(g, &bytes, &size, e);
	if (r < 0)
		return r;
	rec->journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (rec->journal < 0)
		return err_errno(e, -errno, "open %s", path);
	if (size > 0) {
		(void)journal_read(bytes + JOURNAL_HEADER, size - JOURNAL_HEADER, NULL, &whole);
		if (JOURNAL_HEADER + whole < size &&
			ftruncate(rec->journal, (off_t)(JOURNAL_HEADER + whole)) < 0)
			return err_errno(e, -errno, "cut off the torn end of %s", path);
		return 0;
	}
	journal_put_header(&header, segment_header(&g->segment)->group_id);
	r = buf_error(&header);
	if (r == 0)
		r = write_all(rec->journal, header.data, header.size);
	return r < 0 ? err_errno(e, r, "write %s", path) : 0;
}

int recorder_open(struct group *g, struct recorder *rec, struct err *e)
{
	char path[PATH_MAX];
	int r = group_file(g, "recorder.lock", path, e);

	*rec = (struct recorder){.group = g, .lock = -1, .journal = -1};
	if (r < 0)
		return r;
	rec->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (rec->lock < 0)
		return err_errno(e, -errno, "open %s", path);
	if (flock(rec->lock, LOCK_EX | LOCK_NB) < 0)
		r = errno == EWOULDBLOCK
			    ? err_set(e, ERR_CONFLICT, "group %s has a recorder", g->name)
			    : err_errno(e, -errno, "lock %s", path);
	if (r == 0)
		r = open_journal(rec, e);
	if (r < 0)
		recorder_close(rec);
	return r;
}

void recorder_close(struct recorder *rec)
{
	if (rec->journal >= 0)
		(void)close(rec->journal);
	if (rec->lock >= 0)
		(void)close(rec->lock);
	rec->journal = rec->lock = -1;
}

/* What one look has found and not yet written. */
struct look {
	struct buf frames;
	uint64_t time_ns, uncertainty_ns;
	struct journal_range ranges[JOURNAL_BATCH_MAX];
	struct cursor *cursors[JOURNAL_BATCH_MAX];
	size_t count;
};

static int flush(struct recorder *rec, struct look *look)
{
	int r;

	if (look->count > 0)
		journal_put_batch(&look->frames, look->time_ns, look->uncertainty_ns, look->ranges,
			look->count);
	r = buf_error(&look->frames);
	if (r == 0 && look->frames.size > 0)
		r = write_all(rec->journal, look->frames.data, look->frames.size);
	/* After the write: a crash in between records a range twice, never not at all. */
	for (size_t i = 0; r == 0 && i < look->count; i++)
		atomic_store(&look->cursors[i]->recorded, look->ranges[i].to);
	look->count = 0;
	buf_reset(&look->frames);
	return r;
}

static void describe(
	const struct segment *s, const struct member *m, const struct cursor *c, struct look *look)
{
	const struct lineage *l = lineage_at(s, c->lineage);
	struct journal_cursor jc = {
		.id = segment_offset(s, c),
		.member = m->number,
		.kind = c->kind,
		.lineage = c->lineage,
	};

	(void)snprintf(jc.member_name, sizeof(jc.member_name), "%s", m->name);
	if (l) {
		memcpy(jc.lineage_key, l->entry.key, sizeof(jc.lineage_key));
		(void)lineage_format(s, l, jc.lane, sizeof(jc.lane));
	}
	journal_put_cursor(&look->frames, &jc);
}

static int look_at(struct recorder *rec, struct member *m, struct look *look)
{
	const struct segment *s = &rec->group->segment;
	struct walk w = walk_cursors(s, m);
	struct cursor *c;
	int r;

	while ((c = cursor_next(s, &w))) {
		uint64_t to = atomic_load_explicit(&c->position, memory_order_acquire);
		uint64_t from = atomic_load_explicit(&c->recorded, memory_order_relaxed);

		if (to <= from)
			continue;
		if (from == 0)
			describe(s, m, c, look);
		look->ranges[look->count] = (struct journal_range){
			.cursor = segment_offset(s, c), .from = from, .to = to};
		look->cursors[look->count++] = c;
		if (look->count == JOURNAL_BATCH_MAX || look->frames.size > JOURNAL_FRAME_MAX) {
			r = flush(rec, look);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static void commit_ahead(const struct segment *s)
{
	struct segment_header *h = segment_header(s);
	uint64_t committed = atomic_load(&h->committed);
	uint64_t want = MIN(atomic_load(&h->heap_next) + RECORDER_AHEAD, s->size);

	want = MIN(round_up_u64(want, SEGMENT_STEP), s->size);
	/* Failing is no matter yet: the member that needs the room finds out for itself. */
	if (want <= committed || s->extend(s->context, want) < 0)
		return;
	while (committed < want && !atomic_compare_exchange_weak(&h->committed, &committed, want))
		continue;
}

/* Forgets the ended processes, so that a member with many children is cheap to look at. */
static void mark_ended(const struct segment *s, const struct member *m)
{
	struct walk w = walk_processes(s, m);
	struct process *p;

	while ((p = process_next(s, &w)))
		if (!atomic_load(&p->ended) && kill((pid_t)p->pid, 0) < 0 && errno == ESRCH)
			atomic_store(&p->ended, 1);
}

static int look_once(struct recorder *rec, bool liveness, unsigned int *ret_running, struct err *e)
{
	static struct look look; /* large; a process has one recorder */
	const struct segment *s = &rec->group->segment;
	struct walk w = walk_members(s);
	unsigned int running = 0;
	struct member *m;
	int r = 0;

	look.frames = BUF_INIT(FRAMES_MAX);
	look.time_ns = now();
	look.uncertainty_ns = rec->last_ns ? look.time_ns - MIN(rec->last_ns, look.time_ns) : 0;
	while (r == 0 && (m = member_next(s, &w))) {
		bool ended;

		if (atomic_load(&m->state) == MEMBER_ENDED)
			continue;
		/* Nobody has recorded since: it may have been at any time since it began. */
		if (rec->last_ns == 0)
			look.uncertainty_ns = MAX(look.uncertainty_ns,
				look.time_ns - MIN(m->started_ns, look.time_ns));
		/* Before the positions are read, so that the last of them are not missed. */
		ended = liveness && !member_alive(s, m);
		if (liveness && !ended && m->place == MEMBER_HERE)
			mark_ended(s, m);
		r = look_at(rec, m, &look);
		if (r == 0 && ended)
			r = flush(rec, &look);
		if (r == 0 && ended)
			atomic_store(&m->state, MEMBER_ENDED);
		else
			running++;
	}
	if (r == 0)
		r = flush(rec, &look);
	rec->last_ns = look.time_ns;
	buf_free(&look.frames);
	commit_ahead(s);
	*ret_running = running;
	return r < 0 ? err_errno(e, r, "write the journal of group %s", rec->group->name) : 0;
}

int recorder_look(struct recorder *rec, unsigned int *ret_running, struct err *e)
{
	return look_once(rec, true, ret_running, e);
}

static int record_while_running(struct recorder *rec, struct err *e)
{
	const struct timespec period = {.tv_nsec = RECORDER_PERIOD_NS};
	unsigned int running = 1;
	int r = 0;

	for (unsigned int n = 0; r == 0 && running > 0; n++) {
		r = look_once(rec, n % LIVENESS_EVERY == 0, &running, e);
		if (r == 0 && running > 0)
			(void)nanosleep(&period, NULL);
	}
	return r;
}

static bool anybody_running(const struct group *g)
{
	struct walk w = walk_members(&g->segment);
	const struct member *m;

	while ((m = member_next(&g->segment, &w)))
		if (atomic_load(&m->state) != MEMBER_ENDED)
			return true;
	return false;
}

int recorder_run(struct group *g, struct err *e)
{
	int r;

	/* Whoever joined while we were letting go of the lock found it taken: look once more. */
	do {
		struct recorder rec;

		r = recorder_open(g, &rec, e);
		if (r < 0)
			return r;
		r = record_while_running(&rec, e);
		recorder_close(&rec);
	} while (r == 0 && anybody_running(g));
	return r;
}

/* In the new process: nothing of the starter's is held open. */
static void become_recorder(struct group *g)
{
	int null;

	(void)setsid();
	(void)chdir("/") /* keep no folder busy */;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(null, STDOUT_FILENO);
		(void)dup2(null, STDERR_FILENO);
	}
	if (g->fd > 3) {
		(void)close_range(3, (unsigned int)g->fd - 1, 0);
	}
	(void)close_range((unsigned int)g->fd + 1, ~0U, 0);
	(void)prctl(PR_SET_NAME, "sosie-recorder");
	(void)recorder_run(g, NULL);
}

int recorder_start(struct group *g, struct err *e)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return err_errno(e, -errno, "start the recorder of group %s", g->name);
	if (child == 0) {
		/* Once more, so that it is nobody's child to wait for. */
		pid_t again = fork();

		if (again == 0)
			become_recorder(g);
		_exit(again < 0);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	return 0;
}

static bool all_recorded(const struct group *g)
{
	const struct segment *s = &g->segment;
	struct walk members = walk_members(s);
	const struct member *m;

	while ((m = member_next(s, &members))) {
		struct walk cursors = walk_cursors(s, m);
		const struct cursor *c;

		if (atomic_load(&m->state) == MEMBER_ENDED)
			continue;
		while ((c = cursor_next(s, &cursors)))
			if (atomic_load(&c->recorded) < atomic_load(&c->position))
				return false;
	}
	return true;
}

int recorder_settle(struct group *g, struct err *e)
{
	const struct timespec pause = {.tv_nsec = RECORDER_PERIOD_NS / 2};
	unsigned int running;
	struct recorder rec;
	int r;

	/*
	 * While somebody else records, two of its looks are enough even when the members go on
	 * consuming, so this is a bound and not a race.
	 */
	for (int i = 0; i < SETTLE_TRIES; i++) {
		r = recorder_open(g, &rec, e);
		if (r == 0) {
			r = recorder_look(&rec, &running, e);
			recorder_close(&rec);
			return r;
		}
		if (r != -EEXIST || all_recorded(g) || i >= 6)
			return r == -EEXIST ? 0 : r;
		(void)nanosleep(&pause, NULL);
	}
	return 0;
}

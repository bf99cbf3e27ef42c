/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining a group, and following the process through its threads, children and programs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/values/client.h"
#include "lib/values/internal.h"

struct process_state values_process;
_Thread_local struct thread_state values_self;
_Thread_local struct thread_state *values_current;
static _Thread_local bool joining_here;

/*
 * System calls are made directly: the libc functions may be the very ones that are interposed,
 * may be cancellation points, and set errno.
 */
static int raw_clock(clockid_t id, struct timespec *ts)
{
	return raw_syscall(SYS_clock_gettime, id, (long)ts, 0, 0) < 0 ? -1 : 0;
}

int (*values_real_clock)(clockid_t id, struct timespec *ts) = raw_clock;

uint64_t values_now(clockid_t id)
{
	struct timespec ts = {0};

	(void)values_real_clock(id, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Opened anew each time: a program may close any descriptor, and every one of ours is in its way.
 */
static int extend(void *context, uint64_t upto)
{
	const struct process_state *p = context;
	struct stat st = {0};
	long fd, r;

	fd = raw_syscall(SYS_openat, AT_FDCWD, (long)p->path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return (int)fd;
	r = raw_syscall(SYS_fstat, fd, (long)&st, 0, 0);
	if (r == 0 && (uint64_t)st.st_size != p->segment.size)
		r = -ESTALE;
	if (r == 0)
		r = raw_syscall(SYS_fallocate, fd, 0, 0, (long)upto);
	(void)raw_syscall(SYS_close, fd, 0, 0, 0);
	return (int)r;
}

static int map_segment(struct process_state *p, struct err *e)
{
	struct stat st = {0};
	long fd, address, r;

	fd = raw_syscall(SYS_openat, AT_FDCWD, (long)p->path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, (int)fd, "open %s", p->path);
	r = raw_syscall(SYS_fstat, fd, (long)&st, 0, 0);
	if (r < 0 || st.st_size < SEGMENT_HEAP) {
		(void)raw_syscall(SYS_close, fd, 0, 0, 0);
		return err_set(e, ERR_CORRUPT, "%s is truncated", p->path);
	}
	address = raw_syscall6(
		SYS_mmap, 0, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	(void)raw_syscall(SYS_close, fd, 0, 0, 0);
	if (address < 0 && address > -4096)
		return err_errno(e, (int)address, "map %s", p->path);
	p->segment =
		(struct segment){.base = (uint8_t *)address, // NOLINT(performance-no-int-to-ptr)
			.size = (uint64_t)st.st_size,
			.extend = extend,
			.context = p};
	return segment_check(
		p->segment.base, SEGMENT_HEADER, (uint64_t)st.st_size, &p->segment.size, e);
}

static const char *find_variable(char *const environment[])
{
	static const char prefix[] = RUN_VARIABLE "=";

	for (; environment && *environment; environment++)
		if (!strncmp(*environment, prefix, sizeof(prefix) - 1))
			return *environment + sizeof(prefix) - 1;
	return NULL;
}

/* Sixteen digits and a colon. */
static int parse_offset(const char **text, uint64_t *ret)
{
	uint64_t v = 0;

	for (int i = 0; i < 16; i++) {
		char c = (*text)[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return -EINVAL;
	}
	if ((*text)[16] != ':')
		return -EINVAL;
	*text += 17;
	*ret = v;
	return 0;
}

static void put_offset(char **at, uint64_t v)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		*(*at)++ = "0123456789abcdef"[v >> shift & 15];
	*(*at)++ = ':';
}

/* The process id that every copy sees: the one that the first of them had. */
static uint32_t shared_pid(const struct lineage *of, uint32_t real, bool consume)
{
	struct process_state *p = &values_process;
	struct lane_owner owner = {&p->segment, p->member, (struct lineage *)of};
	struct request *mine = NULL;
	struct lane lane = {0};
	_Atomic uint64_t *slot;
	uint64_t word;
	bool won;
	int r;

	if (!consume)
		lane.cursor = &(struct cursor){0}; /* looked at, not consumed: nothing published */
	slot = lane_slot(&lane, &owner, KIND_PID, &r);
	if (!slot)
		return real;
	word = atomic_load_explicit(slot, memory_order_acquire);
	won = false;
	if (!word)
		word = values_propose(&owner, &mine, &lane, KIND_PID, slot, real, &won);
	if (!word)
		return real;
	lane_consume(&lane, won);
	return (uint32_t)word;
}

/*
 * Takes possession of the lineage named in the environment. When the process that it was meant
 * for has it already, this one was made behind our back (by a raw system call, or inside libc):
 * it becomes a stray of that process.
 */
static int claim(struct process_state *p, bool fresh, const char *program)
{
	bool made = false;

	for (int tries = 0; tries < 64; tries++) {
		struct process *there;
		uint32_t stray;

		p->process = process_claim(&p->segment, p->member, p->lineage, p->pid, 0,
			values_now(CLOCK_REALTIME), &made);
		if (!p->process)
			return -ENOSPC;
		if (made)
			break;
		there = p->process;
		stray = atomic_fetch_add(&there->strays, 1) + 1;
		p->lineage = lineage_get(&p->segment, p->lineage, STEP_STRAY, stray, program);
		if (!p->lineage)
			return -ENOSPC;
		/* The same process that ran another program before keeps its process id. */
		if (there->pid != p->pid) {
			p->pid_lineage = p->lineage;
			fresh = true;
		}
	}
	if (!made)
		return -EBUSY;
	p->virtual_pid = shared_pid(p->pid_lineage, p->pid, fresh);
	p->process->virtual_pid = p->virtual_pid;
	return pid_note(&p->segment, p->member, p->pid, p->virtual_pid);
}

struct auxv_context {
	const uint8_t *bytes;
};

static ssize_t own_auxv(void *context, void *out, size_t size)
{
	const struct auxv_context *c = context;

	memcpy(out, c->bytes, MIN(size, 16U));
	return 16;
}

/*
 * The kernel's 16 random bytes lie on the stack for everybody to read; runtimes seed themselves
 * from them. What ld.so took from them before (the stack protector's canary) stays as it was.
 */
static void share_auxv_random(void)
{
	uint8_t *bytes = (uint8_t *)getauxval(AT_RANDOM); // NOLINT(performance-no-int-to-ptr)
	struct auxv_context context = {bytes};
	uint8_t shared[16];

	if (bytes && values_cell(KIND_AUXV_RANDOM, 16, own_auxv, &context, shared,
			     sizeof(shared)) == sizeof(shared))
		memcpy(bytes, shared, sizeof(shared));
}

static const char *program_name(void)
{
	const char *path = (const char *)getauxval(AT_EXECFN); // NOLINT(performance-no-int-to-ptr)
	const char *slash = path ? strrchr(path, '/') : NULL;

	return slash ? slash + 1 : path ? path : "?";
}

static int join(char *const environment[], struct err *e)
{
	struct process_state *p = &values_process;
	const char *text = find_variable(environment);
	uint64_t member, lineage, pid_lineage;
	const struct segment_header *h;
	char version;
	int r;

	if (!text || getauxval(AT_SECURE))
		return -ENOTCONN;
	version = text[0];
	if ((version != RUN_FRESH && version != RUN_EXEC) || text[1] != ':')
		return err_set(e, ERR_VERSION, "%s is of another version", RUN_VARIABLE);
	text += 2;
	if (parse_offset(&text, &member) < 0 || parse_offset(&text, &lineage) < 0 ||
		parse_offset(&text, &pid_lineage) < 0 || strlen(text) >= sizeof(p->path))
		return err_set(e, ERR_INVALID, "%s is damaged", RUN_VARIABLE);
	memcpy(p->path, text, strlen(text) + 1);
	r = map_segment(p, e);
	if (r < 0)
		return r;
	p->member = member_at(&p->segment, member);
	p->lineage = lineage_at(&p->segment, lineage);
	p->pid_lineage = lineage_at(&p->segment, pid_lineage);
	if (!p->member || !p->lineage || !p->pid_lineage)
		return err_set(e, ERR_CORRUPT, "%s names nothing in %s", RUN_VARIABLE, p->path);
	h = segment_header(&p->segment);
	p->audit_full = h->audit_full != 0;
	p->full_policy = (enum full_policy)h->full_policy;
	p->pid = (uint32_t)raw_syscall(SYS_getpid, 0, 0, 0, 0);
	r = claim(p, version == RUN_FRESH, program_name());
	if (r < 0)
		return err_set(e, ERR_NO_CAPACITY, "no room left in %s", p->path);
	return 0;
}

void values_begin(struct thread_state *t, struct lineage *lineage)
{
	t->owner.segment = &values_process.segment;
	t->owner.member = values_process.member;
	t->owner.lineage = lineage;
}

static void begin_self(struct lineage *lineage)
{
	values_begin(&values_self, lineage);
	values_current = &values_self;
}

int values_join(char *const environment[], struct err *e)
{
	struct process_state *p = &values_process;
	uint32_t phase = PHASE_UNKNOWN;
	int r;

	if (!atomic_compare_exchange_strong(&p->phase, &phase, PHASE_JOINING))
		return phase == PHASE_MEMBER ? 0 : -ENOTCONN;
	joining_here = true;
	r = join(environment, e);
	if (r == 0)
		begin_self(p->lineage);
	atomic_store(&p->phase, r == 0 ? PHASE_MEMBER : PHASE_OUTSIDE);
	joining_here = false;
	if (r == 0)
		share_auxv_random();
	return r;
}

/* A thread that nobody announced: made inside libc or by a raw system call. */
static bool begin_stray_thread(void)
{
	struct process_state *p = &values_process;
	uint32_t n = atomic_fetch_add(&p->process->strays, 1) + 1;
	struct lineage *l = lineage_get(&p->segment, p->lineage, STEP_STRAY, n, NULL);

	if (l)
		begin_self(l);
	return l != NULL;
}

void *values_map(size_t n)
{
	long address = raw_syscall6(
		SYS_mmap, 0, (long)n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (address < 0 && address > -4096)
		return NULL;
	return (void *)address; // NOLINT(performance-no-int-to-ptr)
}

/* The state below t for a handler that interrupted a request in it. */
static struct thread_state *nest(struct thread_state *t)
{
	struct thread_state *nested = t->nested;
	struct lineage *l;

	if (nested)
		return nested;
	l = lineage_get(t->owner.segment, t->owner.lineage, STEP_SIGNAL, t->depth + 1, NULL);
	nested = l ? values_map(sizeof(*nested)) : NULL;
	if (!nested)
		return NULL;
	nested->depth = t->depth + 1;
	values_begin(nested, l);
	t->nested = nested;
	return nested;
}

struct thread_state *values_enter_slowly(void)
{
	struct thread_state *t;
	uint32_t phase = atomic_load(&values_process.phase);

	if (phase == PHASE_UNKNOWN) {
		(void)values_join(environ, NULL);
		phase = atomic_load(&values_process.phase);
	}
	/* Another thread cannot be joining: the loader runs one. Our own requests on the way: no.
	 */
	if (phase != PHASE_MEMBER || joining_here)
		return NULL;
	if (!values_current && !begin_stray_thread())
		return NULL;
	t = values_current;
	while (t && t->busy)
		t = nest(t);
	if (!t)
		return NULL;
	t->busy = true;
	atomic_signal_fence(memory_order_seq_cst);
	return t;
}

int values_give_up(const struct thread_state *t, unsigned int kind, int error)
{
	struct process_state *p = &values_process;

	(void)member_diverge(&p->segment, p->member,
		error == -EBADMSG ? DIVERGED_DAMAGED : DIVERGED_FULL, t->owner.lineage, kind,
		lane_ordinal(&t->lanes[kind]));
	if (p->full_policy == FULL_KILL)
		(void)raw_syscall(SYS_kill, (long)p->pid, SIGKILL, 0, 0);
	atomic_store(&p->phase, PHASE_OUTSIDE);
	return -ENOTCONN;
}

uint64_t values_thread_new(void)
{
	struct thread_state *t = values_enter();
	struct lineage *l;

	if (!t)
		return 0;
	l = lineage_get(t->owner.segment, t->owner.lineage, STEP_THREAD, ++t->threads, NULL);
	values_leave(t);
	return l ? segment_offset(&values_process.segment, l) : 0;
}

void values_thread_begin(uint64_t lineage)
{
	struct lineage *l = lineage ? lineage_at(&values_process.segment, lineage) : NULL;

	if (l)
		begin_self(l);
}

void values_thread_end(void)
{
	struct thread_state *t = values_self.nested;

	values_self.nested = NULL;
	while (t) {
		struct thread_state *next = t->nested;

		(void)raw_syscall(SYS_munmap, (long)t, sizeof(*t), 0, 0);
		t = next;
	}
}

uint64_t values_fork_prepare(void)
{
	struct thread_state *t = values_enter();
	struct lineage *l;

	if (!t)
		return 0;
	l = lineage_get(t->owner.segment, t->owner.lineage, STEP_PROCESS, ++t->processes, NULL);
	if (!l)
		(void)values_give_up(t, KIND_PID, -ENOSPC);
	values_leave(t);
	return l ? segment_offset(t->owner.segment, l) : 0;
}

void values_fork_child(uint64_t lineage)
{
	struct process_state *p = &values_process;
	struct lineage *l = lineage ? lineage_at(&p->segment, lineage) : NULL;

	if (!l || atomic_load(&p->phase) != PHASE_MEMBER)
		return;
	values_thread_end();
	values_self = (struct thread_state){0};
	p->pid = (uint32_t)raw_syscall(SYS_getpid, 0, 0, 0, 0);
	p->lineage = p->pid_lineage = l;
	begin_self(l);
	values_devices_forked();
	values_named_forked();
	if (claim(p, true, NULL) < 0)
		(void)values_give_up(&values_self, KIND_PID, -ENOSPC);
}

pid_t values_fork_parent(uint64_t lineage, pid_t child)
{
	struct process_state *p = &values_process;
	const struct lineage *l = lineage ? lineage_at(&p->segment, lineage) : NULL;
	uint32_t shared;

	if (!l || child <= 0 || atomic_load(&p->phase) != PHASE_MEMBER)
		return child;
	shared = shared_pid(l, (uint32_t)child, false);
	/* Both sides note it: whichever runs first may already ask for the other. */
	(void)pid_note(&p->segment, p->member, (uint32_t)child, shared);
	return (pid_t)shared;
}

pid_t values_virtual_pid(pid_t real)
{
	struct process_state *p = &values_process;

	if (real <= 0 || atomic_load(&p->phase) != PHASE_MEMBER)
		return real;
	if ((uint32_t)real == p->pid)
		return (pid_t)p->virtual_pid;
	return (pid_t)pid_lookup(&p->segment, p->member, PID_TO_VIRTUAL, (uint32_t)real);
}

pid_t values_real_pid(pid_t virtual_pid)
{
	struct process_state *p = &values_process;

	if (virtual_pid <= 0 || atomic_load(&p->phase) != PHASE_MEMBER)
		return virtual_pid;
	if ((uint32_t)virtual_pid == p->virtual_pid)
		return (pid_t)p->pid;
	return (pid_t)pid_lookup(&p->segment, p->member, PID_TO_REAL, (uint32_t)virtual_pid);
}

void values_note_pid(pid_t real, pid_t virtual_pid)
{
	struct process_state *p = &values_process;

	/* Without the note a signal would go to whoever has that id here. */
	if (real > 0 && real != virtual_pid && atomic_load(&p->phase) == PHASE_MEMBER)
		(void)pid_note(&p->segment, p->member, (uint32_t)real, (uint32_t)virtual_pid);
}

int values_run_value(const char *program, uint64_t child, char out[RUN_VALUE_MAX])
{
	struct process_state *p = &values_process;
	const char *slash = strrchr(program, '/');
	struct thread_state *t = values_enter();
	const struct lineage *from, *to, *pid;
	char *at = out;

	if (!t)
		return -ENOTCONN;
	from = child ? lineage_at(&p->segment, child) : t->owner.lineage;
	pid = child ? from : p->pid_lineage;
	/* A child that shares our memory (vfork) runs in our thread's state, but is another
	 * process. */
	if (!child && (uint32_t)raw_syscall(SYS_getpid, 0, 0, 0, 0) != p->pid) {
		from = pid = lineage_get(&p->segment, from, STEP_PROCESS, ++t->processes, NULL);
		child = 1;
	}
	to = from ? lineage_get(&p->segment, from, STEP_EXEC, 0, slash ? slash + 1 : program)
		  : NULL;
	values_leave(t);
	if (!to)
		return -ENOTCONN;
	*at++ = child ? RUN_FRESH : RUN_EXEC;
	*at++ = ':';
	put_offset(&at, segment_offset(&p->segment, p->member));
	put_offset(&at, segment_offset(&p->segment, to));
	put_offset(&at, segment_offset(&p->segment, pid));
	memcpy(at, p->path, strlen(p->path) + 1);
	return 0;
}

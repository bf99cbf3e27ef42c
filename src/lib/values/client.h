/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process as a member of a group: what libsosie and the preload library are made of.
 *
 * Theory of operation
 *
 * A member process finds in its environment (RUN_VARIABLE) which segment, which member and which
 * lineage it is, maps the segment and from then on answers every request itself: no daemon, no
 * lock, no system call. Per thread there is one struct thread_state in thread-local storage.
 *
 * A request enters a thread's state with values_enter() and leaves it with values_leave(). A
 * signal handler that interrupts a request and makes one itself finds the state busy and is given
 * another, whose lineage is STEP_SIGNAL below the thread's: no value is ever handed out twice.
 *
 * On a follower's host an empty slot is not filled but asked for: the request goes through the
 * host's agent to the source, and its answer is the slot's being filled (values_propose()). That
 * is the only wait there is.
 *
 * When the segment is full or damaged the process leaves the group (or is ended, by the group's
 * policy): every function here then answers -ENOTCONN and its caller asks the system itself. The
 * member's record says so.
 *
 * Nothing here logs, allocates from malloc, or changes errno; everything may be called in signal
 * handlers, before libc is initialised, and in a fork's child.
 */
#ifndef SOSIE_LIB_VALUES_CLIENT_H
#define SOSIE_LIB_VALUES_CLIENT_H

#include <sys/types.h>
#include <time.h>

#include "core/values/lane.h"
#include "core/values/stream.h"

/*
 * RUN_VARIABLE=V:MEMBER:LINEAGE:PID:PATH; V is RUN_FRESH for a new process or RUN_EXEC for a
 * program that replaces one, the next three are offsets into the segment in 16 hexadecimal digits
 * (PID: of the lineage whose process id this process has). The same length in every copy, so that
 * their stacks lie alike.
 */
#define RUN_VARIABLE     "SOSIE_RUN"
#define RUN_FRESH        '1'
#define RUN_EXEC         '2'
#define RUN_VALUE_MAX    (2 + 3 * 17 + RUN_PATH_MAX)
#define RUN_PATH_MAX     1024
#define PRELOAD_VARIABLE "LD_PRELOAD"

/* The clocks that run together: a deadline on one may come from a reading of another. */
enum clock_family {
	FAMILY_NONE, /* processor time, and clocks that drift from all others */
	FAMILY_REALTIME,
	FAMILY_MONOTONIC,
	FAMILY_BOOTTIME,
	CLOCK_FAMILIES,
};

/* What a thread knows of the group's clock against its own host's. */
struct clock_view {
	uint64_t last;  /* the newest reading that this thread was given, ns */
	uint64_t floor; /* the newest reading that another member made: ours are never below */
	int64_t ahead;  /* our clock less what we last proposed: below 0 when the floor held it */
	int64_t lag;    /* how far behind the group this thread is, ns; valid when known */
	bool seen;      /* there was a reading */
	bool known;     /* lag fits `last`; a reading made by another member makes it unknown */
	bool settled;   /* lag was measured at least once */
};

struct thread_state {
	struct lane_owner owner;
	bool busy;
	struct request *request;     /* to the source, on a follower; made when needed */
	struct thread_state *nested; /* for handlers that interrupt a request; mapped when needed */
	uint32_t depth;              /* 0, or how deeply nested this state is */
	struct lane lanes[KINDS];
	struct clock_view clocks[CLOCK_FAMILIES];
	struct stream random;
	/* Order of requests over all kinds, see values_order(). */
	uint32_t order_kind;
	uint32_t order_switches;
	uint64_t order_digest;
	/* How many of each this thread has made. */
	uint32_t threads, processes, devices;
};

/* A digest of the order is compared with the other copies' each time the kind has changed so often.
 */
#define ORDER_EVERY 64

enum process_phase {
	PHASE_UNKNOWN, /* nobody has looked at the environment yet */
	PHASE_JOINING,
	PHASE_MEMBER,
	PHASE_OUTSIDE, /* no member, or one that left */
};

struct process_state {
	_Atomic uint32_t phase;
	struct segment segment;
	struct member *member;
	struct process *process;
	struct lineage *lineage;     /* of the first thread */
	struct lineage *pid_lineage; /* whose process id it is */
	uint32_t pid, virtual_pid;
	bool audit_full;
	enum full_policy full_policy;
	_Atomic int64_t lag[CLOCK_FAMILIES]; /* as some thread last measured it */
	char path[RUN_PATH_MAX];             /* of the segment */
};

extern struct process_state values_process;
extern _Thread_local struct thread_state values_self;
/* What the thread's requests are accounted to: its own state, a named one, or NULL: not joined. */
extern _Thread_local struct thread_state *values_current;

/* The real clock. Set once by whoever knows a faster way than the system call. */
extern int (*values_real_clock)(clockid_t id, struct timespec *ts);

/*
 * Joins when the environment says so. environment: the process's own. Called by the first request
 * anyway; calling it early makes the order of lineages independent of when that is.
 * 0, -ENOTCONN when the process is no member, or what went wrong, which is also described in e.
 */
int values_join(char *const environment[], struct err *e);

struct thread_state *values_enter_slowly(void);

/* The state to use, or NULL when the process is no member. */
static inline struct thread_state *values_enter(void)
{
	struct thread_state *t = values_current;

	if (unlikely(!t || t->busy ||
		     atomic_load_explicit(&values_process.phase, memory_order_relaxed) !=
			     PHASE_MEMBER))
		return values_enter_slowly();
	t->busy = true;
	atomic_signal_fence(memory_order_seq_cst);
	return t;
}

static inline void values_leave(struct thread_state *t)
{
	atomic_signal_fence(memory_order_seq_cst);
	t->busy = false;
}

/* Requests. Each 0, or -ENOTCONN when the caller must ask the system itself. */

/* n bytes of the thread's random lane. */
int values_random(void *out, size_t n);
/* A reading of a POSIX clock in ns. -EINVAL for a clock that the system does not have. */
int values_clock(int clock_id, uint64_t *ret_ns);
/* A word (63 bits) that make() produces when this is the first asker. */
int values_word(
	enum value_kind kind, uint64_t (*make)(void *context), void *context, uint64_t *ret);
/*
 * A value of bytes. make() fills up to `size` bytes of out and returns how many, or a negative
 * errno, which is returned and leaves the identity unused. parameters: what was asked for, which
 * an equivalent request states too. Returns the number of bytes, -ENOTCONN, or -EMSGSIZE when the
 * group's value does not fit.
 */
ssize_t values_cell(enum value_kind kind, uint64_t parameters,
	ssize_t (*make)(void *context, void *out, size_t size), void *context, void *out,
	size_t size);
/*
 * From now on the calling thread's requests belong to the lanes with this name, wherever it or
 * another thread left off in them; NULL: to its own again. -EBUSY while another thread is in
 * them, -EMFILE when the process has NAMED_LANES_MAX names.
 */
#define NAMED_LANES_MAX 1024
int values_named_lane(const char *name);

/* The deadline on the thread's own host's clock for a deadline that was computed from readings. */
void values_deadline(int clock_id, struct timespec *deadline);

/* Random devices. A handle >= 0 for a new opening, -ENOTCONN, -EMFILE when too many are open. */
#define DEVICES_MAX 64
int values_device_open(void);
int values_device_read(int handle, void *out, size_t n);
void values_device_close(int handle);

/* Threads: the parent calls thread_new() and hands the result to the child's thread_begin(). */
uint64_t values_thread_new(void);
void values_thread_begin(uint64_t lineage);
/* A nested state's memory. */
void values_thread_end(void);

/*
 * Processes. fork: prepare() in the parent before, child() in the child or parent() in the parent
 * after it, with what prepare() returned; parent() returns what the caller is to see as the
 * child's process id.
 */
uint64_t values_fork_prepare(void);
void values_fork_child(uint64_t lineage);
pid_t values_fork_parent(uint64_t lineage, pid_t child);
/* Process ids as the copies see them, and as the kernel does. */
pid_t values_virtual_pid(pid_t real);
pid_t values_real_pid(pid_t virtual_pid);
/* Notes that the copies know the process `real` as `virtual_pid`. */
void values_note_pid(pid_t real, pid_t virtual_pid);
/*
 * Text for RUN_VARIABLE of a program that replaces the calling process (child 0), or that the
 * child process made with values_fork_prepare() will become. 0 or -ENOTCONN.
 */
int values_run_value(const char *program, uint64_t child, char out[RUN_VALUE_MAX]);

#endif

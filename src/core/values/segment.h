/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The value segment: the memory, shared by all members of a group on one host, in which first
 * askers leave values and later askers find them. The segment is the log.
 *
 * Theory of operation
 *
 *   header | directory of buckets | heap of records, allocated by one fetch-and-add
 *
 * A *lineage* names a thread by how it came to be: which program, which thread of which parent,
 * the how-manieth child, which program it became. Copies of an unmodified program make the same
 * lineages, however their threads race, and so meet in the same records. A lineage has one *lane*
 * per kind of value; a lane is a chain of chunks of 8-byte *slots*; a value's identity is
 * (group, lane, ordinal), where the ordinal is the slot's place in the chain.
 *
 * Invariants
 *
 *   I1  A slot changes once, from 0 to its final word, by compare-and-swap. So does every link
 *       (bucket chain, chunk chain, lane head). Nothing is ever unlinked or rewritten.
 *   I2  A record is filled in completely before the compare-and-swap that makes it reachable.
 *   I3  Nothing is claimed or locked between two processes: whoever stops or dies at any
 *       instruction leaves at most a record that nobody can reach.
 *   I4  Heap bytes below `committed` are backed by storage: touching them cannot fail.
 *   I5  Whoever reads an offset checks it against the segment's size before following it: the
 *       memory may be written by a guest.
 *
 * A slot's word has its top bit set when filled; the other 63 bits are the value (a clock in
 * nanoseconds lasts until the year 2262), or the offset of a cell or seed.
 *
 * All functions are safe to call from any number of threads and processes at once, in signal
 * handlers, and before libc is initialised: they only touch the memory given.
 */
#ifndef SOSIE_CORE_VALUES_SEGMENT_H
#define SOSIE_CORE_VALUES_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "core/values/kinds.h"

#define SEGMENT_MAGIC    "SOSIEVAL"
#define SEGMENT_VERSION  1
#define SEGMENT_HEADER   4096
#define SEGMENT_BUCKETS  16384
#define SEGMENT_HEAP     (SEGMENT_HEADER + SEGMENT_BUCKETS * 8)
#define SEGMENT_SIZE_MIN (1ULL << 20)
#define SEGMENT_SIZE_MAX (1ULL << 40)
#define SEGMENT_ALIGN    64
/* Storage is committed in steps of this many bytes. */
#define SEGMENT_STEP      (1ULL << 20)
#define SLOT_FILLED       (1ULL << 63)
#define CELL_MAX          (1U << 20) /* bytes in one cell */
#define SEGMENT_REQUESTS  256        /* requests that can be posted at once */
#define CHUNK_BYTES_FIRST 64
#define CHUNK_BYTES_MAX   32768
/* A bucket chain longer than this is taken for a loop that a hostile writer made. */
#define CHAIN_MAX 100000

/* What happens to a member when the segment is full. */
enum full_policy {
	FULL_LEAVE, /* the member leaves the group, is marked so, and goes on with its own values */
	FULL_KILL,  /* the asking process is ended */
};

/*
 * The moment on some host to which the group's clocks go back. A host's own clocks are compared
 * with it when a member joins; what they are ahead is the member's shift.
 */
struct clock_frame {
	uint64_t real_ns, mono_ns, boot_ns;     /* CLOCK_REALTIME, _MONOTONIC, _BOOTTIME then */
	int64_t timens_mono_ns, timens_boot_ns; /* that process's time namespace's offsets */
	uint8_t boot_id[16];                    /* that host's kernel */
};
static_assert(sizeof(struct clock_frame) == 56, "layout of version 1");

enum segment_role {
	ROLE_SOURCE,   /* empty slots are filled here */
	ROLE_FOLLOWER, /* empty slots are filled by the source; a member that is ahead asks it */
};

struct segment_header {
	/* Fixed at creation, covered by crc. */
	char magic[8];
	uint32_t version;
	uint32_t header_size;
	uint64_t size; /* of the whole segment, bytes */
	uint8_t group_id[16];
	char group[NAME_MAX_LENGTH + 1];
	struct clock_frame created; /* when and where */
	uint32_t full_policy;
	uint32_t audit_full; /* 1: the exact time of every consumption is kept */
	uint32_t reserved;
	uint32_t crc; /* CRC-32C of all the bytes before it */

	/* Changing. Apart by whole cache lines from what is only read. */
	uint64_t apart[2];
	_Atomic uint64_t heap_next; /* first byte not allocated; may exceed size */
	_Atomic uint64_t committed; /* I4; only grows */
	_Atomic uint64_t members;   /* newest member record */
	_Atomic uint64_t member_count;
	_Atomic uint64_t seed;    /* current seed record */
	_Atomic uint64_t refused; /* allocations that found the segment full */

	/* Between hosts, see replica.h. */
	uint64_t apart_too[2];
	_Atomic uint32_t role; /* enum segment_role */
	uint32_t reserved_role;
	_Atomic uint32_t arrived;      /* counts batches applied: a follower's askers wait on it */
	_Atomic uint32_t posted;       /* counts requests: the follower's agent waits on it */
	_Atomic uint32_t request_next; /* where the next asker looks for a free place */
	uint32_t reserved_too;
	_Atomic uint64_t frame; /* clock frame of the first source; 0: nobody has said yet */
	_Atomic uint64_t requests[SEGMENT_REQUESTS]; /* offsets of posted request records, or 0 */
};
static_assert(offsetof(struct segment_header, crc) == 172, "layout of version 1");
static_assert(offsetof(struct segment_header, heap_next) == 192, "layout of version 1");
static_assert(sizeof(struct segment_header) <= SEGMENT_HEADER, "the header fits");

/* How a lineage came from its parent. Part of the format: append, never renumber. */
enum lineage_step {
	STEP_PROGRAM = 1, /* the root: program `name`, started as the n-th of that name */
	STEP_THREAD,      /* the n-th thread that the parent thread started */
	STEP_PROCESS,     /* the n-th child process */
	STEP_EXEC,        /* the parent became program `name` */
	STEP_DEVICE,      /* the n-th opening of a random device */
	STEP_SIGNAL,      /* requests of a signal handler that interrupted a request, depth n */
	STEP_NAMED,       /* named by the program itself */
	STEP_STRAY,       /* a thread or process whose making was not seen, n-th of its process */
};

/* What every directory entry begins with. */
struct entry {
	uint8_t key[16];
	uint64_t next; /* in its bucket; set before the entry is reachable */
	uint32_t type; /* enum entry_type */
	uint32_t number;
};

enum entry_type {
	ENTRY_LINEAGE = 1,
	ENTRY_PROCESS,
	ENTRY_PID,
};

#define LINEAGE_NAME 23 /* characters of a program's name that are kept */

struct lineage {
	struct entry entry; /* number: n of its step */
	uint64_t parent;    /* offset of the parent lineage, 0 for a root */
	uint32_t step;
	char name[LINEAGE_NAME + 1];
	uint32_t depth; /* ancestors */
	uint64_t reserved[3];
	_Atomic uint64_t lanes[KIND_LANES]; /* first chunk of each kind's lane, or 0 */
};
static_assert(sizeof(struct lineage) == 288, "layout of version 1");
static_assert(offsetof(struct lineage, lanes) == 96, "layout of version 1");

struct chunk {
	_Atomic uint64_t next;
	uint64_t base;  /* ordinal of the first slot */
	uint32_t count; /* slots */
	uint32_t reserved;
	_Atomic uint64_t slots[];
};
static_assert(sizeof(struct chunk) == 24, "layout of version 1");

struct cell {
	uint32_t size; /* bytes of value */
	uint32_t reserved;
	uint64_t parameters; /* hash of what was asked for: a later asker's must be equal */
	uint8_t bytes[];
};

struct seed {
	uint64_t previous; /* offset of the seed before it, or 0 */
	uint64_t created_ns;
	uint8_t bytes[32];
};

/*
 *   RUNNING ──► ENDED            the recorder found its processes gone
 *      └──► LEFT ──► ENDED       whoever started it says so: the recorder cannot see a guest's
 */
enum member_state {
	MEMBER_RUNNING = 1,
	MEMBER_ENDED, /* and everything it consumed is in the journal */
	MEMBER_LEFT,
};

/* Where a member's processes are. */
enum member_place {
	MEMBER_HERE,     /* under the recorder's own kernel */
	MEMBER_IN_GUEST, /* in a virtual machine: its process ids mean nothing here */
};

/* Why a member is no longer a copy like the others. */
enum divergence {
	DIVERGED_NOT = 0,
	DIVERGED_ORDER,      /* it asks in another order or for other things */
	DIVERGED_PARAMETERS, /* it asked for the same identity with other parameters */
	DIVERGED_FULL,       /* the segment was full; it left the group */
	DIVERGED_DAMAGED,    /* the segment did not hold together; it left the group */
};

struct member {
	uint64_t next;   /* the member record pushed before it, or 0 */
	uint64_t number; /* 1, 2, 3 … in order of joining */
	char name[NAME_MAX_LENGTH + 1];
	uint64_t started_ns;
	int64_t shift_mono_ns; /* what its host's CLOCK_MONOTONIC is ahead of the group's */
	int64_t shift_boot_ns;
	uint64_t root;  /* lineage of its first program */
	uint32_t pid;   /* of its first program */
	uint32_t place; /* enum member_place */
	_Atomic uint32_t state;
	_Atomic uint32_t diverged;
	_Atomic uint64_t diverged_lineage;
	_Atomic uint64_t diverged_ordinal;
	_Atomic uint32_t diverged_kind;
	uint32_t reserved2;
	_Atomic uint64_t cursors;   /* newest cursor record */
	_Atomic uint64_t processes; /* newest process record */
};

/* How far one member has come in one lane. Written by one thread only. */
struct cursor {
	uint64_t next;
	uint64_t lineage;
	uint32_t kind;
	uint32_t reserved;
	_Atomic uint64_t position; /* slots consumed; bytes for a stream */
	_Atomic uint64_t made;     /* of these, first asked by this member */
	_Atomic uint64_t times;    /* audit in full: a chain of chunks, see lane_note_time() */
	_Atomic uint64_t noted;    /* audit in full: words in times */
	_Atomic uint64_t recorded; /* positions below it are in the journal; the recorder's */
};
static_assert(sizeof(struct cursor) == 64, "one cache line: two threads never share one");

/*
 * What a member on a follower asks the source for: to propose this word for that slot. The answer
 * is the slot's being filled. An asker uses its record again once it has withdrawn it; one that
 * is found taken (by an agent that may have died so) is left to itself.
 */
struct request {
	uint64_t lineage;
	uint32_t kind;
	_Atomic uint32_t state; /* enum request_state */
	uint64_t ordinal;
	uint64_t word; /* the value, or the offset of a cell or seed, without SLOT_FILLED */
};

enum request_state {
	REQUEST_IDLE,   /* the asker's to write */
	REQUEST_POSTED, /* whole; whoever moves it on owns it: the agent, or the asker withdrawing
			   it */
	REQUEST_TAKEN,  /* the agent is reading it */
};

/* A process of a member: claims its lineage, so that a second process finds it taken. */
struct process {
	struct entry entry;
	uint64_t next; /* the member's process record pushed before it, or 0 */
	uint64_t lineage;
	uint32_t pid;         /* in the member's own pid namespace */
	uint32_t virtual_pid; /* what getpid() answers in every copy */
	uint64_t started_ns;  /* CLOCK_REALTIME when it joined */
	_Atomic uint32_t strays;
	_Atomic uint32_t ended;
};

/* A number that is looked up: a process id in one direction or the other. */
struct pid_entry {
	struct entry entry;
	_Atomic uint64_t value;
};

/* A mapped segment. Plain value; the memory belongs to whoever mapped it. */
struct segment {
	uint8_t *base;
	uint64_t size;
	/*
	 * Backs the bytes up to `upto` with storage (I4). 0, or a negative errno: full. NULL when
	 * everything is backed already. Called without any lock, possibly by several at once.
	 */
	int (*extend)(void *context, uint64_t upto);
	void *context;
};

/* What the creator of a segment decides. */
struct segment_options {
	const char *group;
	uint64_t size; /* multiple of 4096, SEGMENT_SIZE_MIN to SEGMENT_SIZE_MAX */
	enum full_policy full_policy;
	bool audit_full;
	uint8_t group_id[16];
	struct clock_frame created;
	uint8_t seed[32];
	uint64_t committed; /* bytes already backed, at least SEGMENT_HEAP + SEGMENT_STEP */
};

/* Makes a segment in zeroed memory of options->size bytes. */
void segment_format(struct segment *s, const struct segment_options *options);

/*
 * Whether `n` bytes of a file of `file_size` bytes begin a segment that this version understands.
 * The bytes need no alignment. 0 with the size that the header states, or an error that says what
 * is wrong: ERR_CORRUPT, ERR_VERSION.
 */
int segment_check(
	const void *bytes, size_t n, uint64_t file_size, uint64_t *ret_size, struct err *e);

static inline struct segment_header *segment_header(const struct segment *s)
{
	return (struct segment_header *)s->base;
}

/* The n bytes at offset, or NULL when they are not wholly inside the heap (I5). */
static inline void *segment_at(const struct segment *s, uint64_t offset, uint64_t n)
{
	if (unlikely(offset < SEGMENT_HEAP || offset % 8 != 0 || n > s->size ||
		     offset > s->size - n))
		return NULL;
	return s->base + offset;
}

static inline uint64_t segment_offset(const struct segment *s, const void *record)
{
	return (uint64_t)((const uint8_t *)record - s->base);
}

/* n zeroed bytes, or NULL when the segment is full (counted in header->refused). */
void *segment_alloc(const struct segment *s, uint64_t n);

/* The entry with that key, or NULL. size: of the whole record. */
struct entry *segment_find(
	const struct segment *s, const uint8_t key[16], uint32_t type, uint64_t size);
/*
 * Makes the prepared entry reachable unless there is one with its key and type already. Returns
 * the one that is reachable now, NULL when the directory is damaged.
 */
struct entry *segment_publish(const struct segment *s, struct entry *entry, uint64_t size);

/*
 * The lineage that comes from parent (NULL: a root) by this step; made when it does not exist.
 * name may be NULL; what is beyond LINEAGE_NAME characters counts for the key all the same.
 * NULL when the segment is full or damaged.
 */
struct lineage *lineage_get(const struct segment *s, const struct lineage *parent,
	enum lineage_step step, uint32_t number, const char *name);
/* The same from another segment's record: its key is taken as it is, since names are cut off. */
struct lineage *lineage_put(const struct segment *s, const uint8_t key[16],
	const struct lineage *parent, enum lineage_step step, uint32_t number, const char *name);
struct lineage *lineage_at(const struct segment *s, uint64_t offset);
/* Generations below the root that a lineage may have; what would be deeper cannot be made. */
#define LINEAGE_DEPTH_MAX 1024
/*
 * The lineage as people read it: "redis-server", "sh/p1/date", "python3/t2/d1". Returns the
 * length that the whole has, as snprintf() does.
 */
size_t lineage_format(const struct segment *s, const struct lineage *l, char *out, size_t size);

/* A walk over all entries of the directory that have the type; begin with zeros. */
struct entry_walk {
	uint32_t bucket;
	uint32_t steps;
	uint64_t next;
};
struct entry *entry_next(
	const struct segment *s, struct entry_walk *w, uint32_t type, uint64_t size);

/*
 * The group's clock frame: the first source's, once it is known, and until then the creator's.
 * NULL on a follower that has not heard of its source's, or when damaged.
 */
const struct clock_frame *segment_frame(const struct segment *s);
/* Sets the frame of the first source, unless there is one. 0 or -ENOSPC. */
int segment_set_frame(const struct segment *s, const struct clock_frame *frame);

/* Adds a member record. NULL when full. The name must be valid. */
struct member *member_add(const struct segment *s, const char *name);
struct member *member_at(const struct segment *s, uint64_t offset);
/* Notes the first divergence of a member; later ones are ignored. Returns whether it was first. */
bool member_diverge(const struct segment *s, struct member *m, enum divergence why,
	const struct lineage *lineage, unsigned int kind, uint64_t ordinal);
const char *divergence_name(unsigned int why);

/* A new cursor of the member in that lane. NULL when full. */
struct cursor *cursor_add(
	const struct segment *s, struct member *m, const struct lineage *l, unsigned int kind);

/*
 * The member's process that lives in this lineage: made when there is none yet. *made tells
 * which. NULL when full or damaged.
 */
struct process *process_claim(const struct segment *s, struct member *m, const struct lineage *l,
	uint32_t pid, uint32_t virtual_pid, uint64_t started_ns, bool *made);

/*
 * A walk over one of the lists, newest record first; it sees what was there when it began. Each
 * *_next() returns NULL at the end, which a list that a hostile writer closed to a ring has too.
 */
struct walk {
	uint64_t next;
	uint64_t left; /* records that the segment has room for */
};
struct walk walk_members(const struct segment *s);
struct member *member_next(const struct segment *s, struct walk *w);
struct walk walk_cursors(const struct segment *s, const struct member *m);
struct cursor *cursor_next(const struct segment *s, struct walk *w);
struct walk walk_processes(const struct segment *s, const struct member *m);
struct process *process_next(const struct segment *s, struct walk *w);

/* Directions of the pid tables of a member. */
enum pid_direction {
	PID_TO_REAL = 1, /* virtual -> real */
	PID_TO_VIRTUAL,  /* real -> virtual */
};
/* What pid stands for, or pid itself when nothing is noted. */
uint32_t pid_lookup(const struct segment *s, const struct member *m, enum pid_direction direction,
	uint32_t pid);
/* Notes both directions. 0 or -ENOSPC. Nothing is stored for a pid that stands for itself. */
int pid_note(const struct segment *s, const struct member *m, uint32_t real, uint32_t virtual_pid);

/* Makes `bytes` the current seed; lanes take it when they next change seeds. 0 or -ENOSPC. */
int segment_reseed(const struct segment *s, const uint8_t bytes[32], uint64_t now_ns);
const struct seed *seed_at(const struct segment *s, uint64_t offset);

/* Takes a posted request back so that its record can be written again. false: the agent has it. */
bool request_withdraw(struct request *r);
/* Posts a request, its fields filled. false when all places are taken: try again. */
bool request_post(const struct segment *s, struct request *r);
/* The agent's side: copies a posted request. false when there is none. */
bool request_take(const struct segment *s, struct request *ret);

/* A cell with these bytes, reachable once its offset is proposed. NULL when full or too large. */
struct cell *cell_make(const struct segment *s, const void *bytes, uint32_t n, uint64_t parameters);
/* The cell that a slot's word names, checked; NULL when damaged. */
const struct cell *cell_at(const struct segment *s, uint64_t offset);

#endif

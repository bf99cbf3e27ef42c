/* SPDX-License-Identifier: Apache-2.0 */
#include "core/values/segment.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/reader.h"

void segment_format(struct segment *s, const struct segment_options *o)
{
	struct segment_header *h = segment_header(s);

	assert(o->size >= SEGMENT_SIZE_MIN && o->size <= SEGMENT_SIZE_MAX && o->size % 4096 == 0);
	assert(o->committed >= SEGMENT_HEAP && o->committed <= o->size);
	memcpy(h->magic, SEGMENT_MAGIC, sizeof(h->magic));
	h->version = SEGMENT_VERSION;
	h->header_size = SEGMENT_HEADER;
	h->size = o->size;
	memcpy(h->group_id, o->group_id, sizeof(h->group_id));
	(void)snprintf(h->group, sizeof(h->group), "%s", o->group);
	h->created = o->created;
	h->full_policy = o->full_policy;
	h->audit_full = o->audit_full;
	h->crc = crc32c(0, h, offsetof(struct segment_header, crc));
	atomic_store(&h->heap_next, SEGMENT_HEAP);
	atomic_store(&h->committed, o->committed);
	/* The first seed always fits: SEGMENT_SIZE_MIN sees to it. */
	(void)segment_reseed(s, o->seed, o->created.real_ns);
}

int segment_check(
	const void *bytes, size_t n, uint64_t file_size, uint64_t *ret_size, struct err *e)
{
	static const size_t fixed = offsetof(struct segment_header, crc) + sizeof(uint32_t);
	struct segment_header h;

	if (n < fixed)
		return err_set(e, ERR_CORRUPT, "the segment is truncated to %zu bytes", n);
	memcpy(&h, bytes, fixed);
	if (memcmp(h.magic, SEGMENT_MAGIC, sizeof(h.magic)) != 0)
		return err_set(e, ERR_CORRUPT, "not a value segment");
	if (h.version != SEGMENT_VERSION) {
		(void)err_set(e, ERR_VERSION, "the segment has format version %u, this program %d",
			h.version, SEGMENT_VERSION);
		return err_hint(e, "use the version of sosie that made it, or another group");
	}
	if (h.crc != crc32c(0, &h, offsetof(struct segment_header, crc)) ||
		h.header_size != SEGMENT_HEADER || h.size < SEGMENT_SIZE_MIN ||
		h.size > SEGMENT_SIZE_MAX || h.size % 4096 != 0 ||
		memchr(h.group, '\0', sizeof(h.group)) == NULL)
		return err_set(e, ERR_CORRUPT, "the segment's header fails its checksum");
	if (file_size < h.size)
		return err_set(e, ERR_CORRUPT,
			"the segment is truncated: %llu bytes of %llu are there",
			(unsigned long long)file_size, (unsigned long long)h.size);
	*ret_size = h.size;
	return 0;
}

/* Makes sure that storage backs everything below `end`. */
static int commit(const struct segment *s, uint64_t end)
{
	struct segment_header *h = segment_header(s);
	uint64_t committed = atomic_load(&h->committed);
	uint64_t upto = MIN(round_up_u64(end, SEGMENT_STEP), s->size);
	int r;

	if (end <= committed || !s->extend)
		return 0;
	r = s->extend(s->context, upto);
	if (r < 0)
		return r;
	while (committed < upto && !atomic_compare_exchange_weak(&h->committed, &committed, upto))
		continue;
	return 0;
}

void *segment_alloc(const struct segment *s, uint64_t n)
{
	struct segment_header *h = segment_header(s);
	uint64_t bytes = round_up_u64(n, SEGMENT_ALIGN);
	uint64_t at = atomic_load(&h->heap_next);

	/* The bound is checked before the swap, so that no number of refusals can wrap it. */
	do {
		if (at < SEGMENT_HEAP || at % 8 != 0 || at > s->size || bytes > s->size - at ||
			commit(s, at + bytes) < 0) {
			atomic_fetch_add(&h->refused, 1);
			return NULL;
		}
	} while (!atomic_compare_exchange_weak(&h->heap_next, &at, at + bytes));
	return s->base + at;
}

static _Atomic uint64_t *bucket_of(const struct segment *s, const uint8_t key[16])
{
	_Atomic uint64_t *buckets = (_Atomic uint64_t *)(s->base + SEGMENT_HEADER);
	struct reader r = reader_init(key, 16);

	return &buckets[reader_u64(&r) % SEGMENT_BUCKETS];
}

/*
 * Looks from `offset` on until `end` (not included). NULL with *damaged false: it is not there.
 */
static struct entry *chain_find(const struct segment *s, uint64_t offset, uint64_t end,
	const uint8_t key[16], uint32_t type, uint64_t size, bool *damaged)
{
	for (unsigned int steps = 0; offset != end; steps++) {
		struct entry *entry = segment_at(s, offset, sizeof(*entry));

		if (!entry || steps > CHAIN_MAX) {
			*damaged = true;
			return NULL;
		}
		if (entry->type == type && !memcmp(entry->key, key, sizeof(entry->key))) {
			*damaged = segment_at(s, offset, size) == NULL;
			return *damaged ? NULL : entry;
		}
		offset = entry->next;
	}
	return NULL;
}

struct entry *segment_find(
	const struct segment *s, const uint8_t key[16], uint32_t type, uint64_t size)
{
	uint64_t head = atomic_load_explicit(bucket_of(s, key), memory_order_acquire);
	bool damaged = false;

	return chain_find(s, head, 0, key, type, size, &damaged);
}

struct entry *segment_publish(const struct segment *s, struct entry *entry, uint64_t size)
{
	_Atomic uint64_t *bucket = bucket_of(s, entry->key);
	uint64_t head = atomic_load_explicit(bucket, memory_order_acquire), seen = 0;
	bool damaged = false;

	do {
		/* Only what came since the last look can be new. */
		struct entry *there =
			chain_find(s, head, seen, entry->key, entry->type, size, &damaged);

		if (there || damaged)
			return there;
		seen = head;
		entry->next = head;
	} while (!atomic_compare_exchange_weak_explicit(bucket, &head, segment_offset(s, entry),
		memory_order_acq_rel, memory_order_acquire));
	return entry;
}

/* What a key is made of; hashed as bytes, so no padding is allowed. */
struct key_input {
	uint8_t parent[16];
	uint32_t role; /* enum lineage_step, or a KEY_ below */
	uint32_t number;
	uint8_t name[16];
};
static_assert(sizeof(struct key_input) == 40, "no padding");

enum {
	KEY_PROCESS = 0x100,
	KEY_PID_TO_REAL,
	KEY_PID_TO_VIRTUAL,
};

static const uint8_t naming_key[16] = "sosie lineage v1";

static void make_key(
	const uint8_t parent[16], uint32_t role, uint32_t number, const char *name, uint8_t key[16])
{
	struct key_input input = {.role = role, .number = number};

	if (parent)
		memcpy(input.parent, parent, sizeof(input.parent));
	if (name)
		siphash128(naming_key, name, strlen(name), input.name);
	siphash128(naming_key, &input, sizeof(input), key);
}

struct lineage *lineage_put(const struct segment *s, const uint8_t key[16],
	const struct lineage *parent, enum lineage_step step, uint32_t number, const char *name)
{
	struct entry *there = segment_find(s, key, ENTRY_LINEAGE, sizeof(struct lineage));
	struct lineage *l;

	if (there)
		return (struct lineage *)there;
	if (parent && parent->depth >= LINEAGE_DEPTH_MAX - 1)
		return NULL;
	l = segment_alloc(s, sizeof(*l));
	if (!l)
		return NULL;
	l->depth = parent ? parent->depth + 1 : 0;
	memcpy(l->entry.key, key, sizeof(l->entry.key));
	l->entry.type = ENTRY_LINEAGE;
	l->entry.number = number;
	l->parent = parent ? segment_offset(s, parent) : 0;
	l->step = step;
	if (name)
		memcpy(l->name, name, strnlen(name, LINEAGE_NAME));
	return (struct lineage *)segment_publish(s, &l->entry, sizeof(*l));
}

struct lineage *lineage_get(const struct segment *s, const struct lineage *parent,
	enum lineage_step step, uint32_t number, const char *name)
{
	uint8_t key[16];

	make_key(parent ? parent->entry.key : NULL, step, number, name, key);
	return lineage_put(s, key, parent, step, number, name);
}

struct lineage *lineage_at(const struct segment *s, uint64_t offset)
{
	struct lineage *l = segment_at(s, offset, sizeof(*l));

	return l && l->entry.type == ENTRY_LINEAGE ? l : NULL;
}

/* Depth to which a name is spelled out; what is above is shown as "…". */
#define LINEAGE_DEPTH 32

size_t lineage_format(const struct segment *s, const struct lineage *l, char *out, size_t size)
{
	static const char letters[] = {[STEP_THREAD] = 't',
		[STEP_PROCESS] = 'p',
		[STEP_DEVICE] = 'd',
		[STEP_SIGNAL] = 's',
		[STEP_STRAY] = 'x'};
	const struct lineage *path[LINEAGE_DEPTH] = {NULL};
	size_t depth = 0, used = 0;

	for (; l && depth < LINEAGE_DEPTH; l = lineage_at(s, l->parent))
		path[depth++] = l;
	if (size > 0)
		out[0] = '\0';
	if (l)
		used += (size_t)snprintf(out, size, "...");
	while (depth-- > 0) {
		const struct lineage *at = path[depth];
		char *end = out + MIN(used, size);
		size_t room = size - MIN(used, size);
		const char *slash = used > 0 ? "/" : "";
		char letter = at->step < sizeof(letters) ? letters[at->step] : '\0';
		int n;

		if (letter)
			n = snprintf(end, room, "%s%c%u", slash, letter, at->entry.number);
		else if (at->step == STEP_NAMED)
			n = snprintf(end, room, "%s@%.*s", slash, LINEAGE_NAME, at->name);
		else if (at->step == STEP_PROGRAM && at->entry.number > 0)
			n = snprintf(end, room, "%s%.*s#%u", slash, LINEAGE_NAME, at->name,
				at->entry.number);
		else
			n = snprintf(end, room, "%s%.*s", slash, LINEAGE_NAME, at->name);
		used += n > 0 ? (size_t)n : 0;
	}
	return used;
}

struct entry *entry_next(
	const struct segment *s, struct entry_walk *w, uint32_t type, uint64_t size)
{
	const _Atomic uint64_t *buckets = (const _Atomic uint64_t *)(s->base + SEGMENT_HEADER);

	while (w->bucket < SEGMENT_BUCKETS) {
		struct entry *entry;

		if (w->steps == 0)
			w->next = atomic_load_explicit(&buckets[w->bucket], memory_order_acquire);
		entry = w->steps++ < CHAIN_MAX ? segment_at(s, w->next, size) : NULL;
		if (!entry) {
			w->bucket++;
			w->steps = 0;
			continue;
		}
		w->next = entry->next;
		if (entry->type == type)
			return entry;
	}
	return NULL;
}

/* Pushes a record on a list. */
static void push(const struct segment *s, _Atomic uint64_t *head, uint64_t *link, void *record)
{
	uint64_t old = atomic_load(head);

	do {
		*link = old;
	} while (!atomic_compare_exchange_weak(head, &old, segment_offset(s, record)));
}

const struct clock_frame *segment_frame(const struct segment *s)
{
	const struct segment_header *h = segment_header(s);
	uint64_t offset = atomic_load_explicit(&h->frame, memory_order_acquire);

	if (offset != 0)
		return segment_at(s, offset, sizeof(struct clock_frame));
	return atomic_load(&h->role) == ROLE_SOURCE ? &h->created : NULL;
}

int segment_set_frame(const struct segment *s, const struct clock_frame *frame)
{
	struct segment_header *h = segment_header(s);
	struct clock_frame *copy;
	uint64_t nothing = 0;

	if (atomic_load(&h->frame) != 0)
		return 0;
	copy = segment_alloc(s, sizeof(*copy));
	if (!copy)
		return -ENOSPC;
	*copy = *frame;
	(void)atomic_compare_exchange_strong(&h->frame, &nothing, segment_offset(s, copy));
	return 0;
}

struct member *member_add(const struct segment *s, const char *name)
{
	struct segment_header *h = segment_header(s);
	struct member *m = segment_alloc(s, sizeof(*m));

	if (!m)
		return NULL;
	/* A link between hosts is no member that joined. */
	if (!name || name[0] != '@')
		m->number = atomic_fetch_add(&h->member_count, 1) + 1;
	if (name)
		(void)snprintf(m->name, sizeof(m->name), "%s", name);
	else
		(void)snprintf(m->name, sizeof(m->name), "m%llu", (unsigned long long)m->number);
	atomic_store(&m->state, MEMBER_RUNNING);
	push(s, &h->members, &m->next, m);
	return m;
}

struct member *member_at(const struct segment *s, uint64_t offset)
{
	return segment_at(s, offset, sizeof(struct member));
}

bool member_diverge(const struct segment *s, struct member *m, enum divergence why,
	const struct lineage *lineage, unsigned int kind, uint64_t ordinal)
{
	uint32_t not_yet = DIVERGED_NOT;

	if (!atomic_compare_exchange_strong(&m->diverged, &not_yet, why))
		return false;
	atomic_store(&m->diverged_lineage, lineage ? segment_offset(s, lineage) : 0);
	atomic_store(&m->diverged_kind, kind);
	atomic_store(&m->diverged_ordinal, ordinal);
	return true;
}

const char *divergence_name(unsigned int why)
{
	static const char *const names[] = {
		[DIVERGED_NOT] = "no",
		[DIVERGED_ORDER] = "order",
		[DIVERGED_PARAMETERS] = "parameters",
		[DIVERGED_FULL] = "segment-full",
		[DIVERGED_DAMAGED] = "segment-damaged",
	};

	return why < ARRAY_SIZE(names) ? names[why] : "?";
}

struct cursor *cursor_add(
	const struct segment *s, struct member *m, const struct lineage *l, unsigned int kind)
{
	struct cursor *c = segment_alloc(s, sizeof(*c));

	if (!c)
		return NULL;
	c->lineage = segment_offset(s, l);
	c->kind = kind;
	push(s, &m->cursors, &c->next, c);
	return c;
}

struct process *process_claim(const struct segment *s, struct member *m, const struct lineage *l,
	uint32_t pid, uint32_t virtual_pid, uint64_t started_ns, bool *made)
{
	uint8_t key[16];
	struct process *p;
	struct entry *there;

	make_key(l->entry.key, KEY_PROCESS, (uint32_t)m->number, NULL, key);
	*made = false;
	there = segment_find(s, key, ENTRY_PROCESS, sizeof(*p));
	if (there)
		return (struct process *)there;
	p = segment_alloc(s, sizeof(*p));
	if (!p)
		return NULL;
	memcpy(p->entry.key, key, sizeof(key));
	p->entry.type = ENTRY_PROCESS;
	p->lineage = segment_offset(s, l);
	p->pid = pid;
	p->virtual_pid = virtual_pid;
	p->started_ns = started_ns;
	there = segment_publish(s, &p->entry, sizeof(*p));
	if (there != &p->entry)
		return (struct process *)there;
	push(s, &m->processes, &p->next, p);
	*made = true;
	return p;
}

static struct walk walk_from(const struct segment *s, const _Atomic uint64_t *head)
{
	return (struct walk){.next = atomic_load(head), .left = s->size / SEGMENT_ALIGN};
}

/* Every list's records begin with their link, or have it at link_at. */
static void *walk_next(const struct segment *s, struct walk *w, uint64_t size, size_t link_at)
{
	uint8_t *record = w->left > 0 ? segment_at(s, w->next, size) : NULL;

	if (!record)
		return NULL;
	w->left--;
	memcpy(&w->next, record + link_at, sizeof(w->next));
	return record;
}

struct walk walk_members(const struct segment *s)
{
	return walk_from(s, &segment_header(s)->members);
}

struct member *member_next(const struct segment *s, struct walk *w)
{
	return walk_next(s, w, sizeof(struct member), offsetof(struct member, next));
}

struct walk walk_cursors(const struct segment *s, const struct member *m)
{
	return walk_from(s, &m->cursors);
}

struct cursor *cursor_next(const struct segment *s, struct walk *w)
{
	return walk_next(s, w, sizeof(struct cursor), offsetof(struct cursor, next));
}

struct walk walk_processes(const struct segment *s, const struct member *m)
{
	return walk_from(s, &m->processes);
}

struct process *process_next(const struct segment *s, struct walk *w)
{
	return walk_next(s, w, sizeof(struct process), offsetof(struct process, next));
}

static void pid_key(
	const struct member *m, enum pid_direction direction, uint32_t pid, uint8_t key[16])
{
	uint8_t owner[16] = {0};

	put_u64(owner, m->number);
	make_key(owner, direction == PID_TO_REAL ? KEY_PID_TO_REAL : KEY_PID_TO_VIRTUAL, pid, NULL,
		key);
}

uint32_t pid_lookup(
	const struct segment *s, const struct member *m, enum pid_direction direction, uint32_t pid)
{
	uint8_t key[16];
	struct pid_entry *p;

	pid_key(m, direction, pid, key);
	p = (struct pid_entry *)segment_find(s, key, ENTRY_PID, sizeof(*p));
	return p ? (uint32_t)atomic_load(&p->value) : pid;
}

static int note(const struct segment *s, const struct member *m, enum pid_direction direction,
	uint32_t from, uint32_t to)
{
	uint8_t key[16];
	struct pid_entry *p;

	pid_key(m, direction, from, key);
	p = (struct pid_entry *)segment_find(s, key, ENTRY_PID, sizeof(*p));
	if (!p && from == to)
		return 0;
	if (!p) {
		p = segment_alloc(s, sizeof(*p));
		if (!p)
			return -ENOSPC;
		memcpy(p->entry.key, key, sizeof(key));
		p->entry.type = ENTRY_PID;
		atomic_store(&p->value, to);
		p = (struct pid_entry *)segment_publish(s, &p->entry, sizeof(*p));
		if (!p)
			return -ENOSPC;
	}
	/* A process id comes round again: the newest owner counts. */
	atomic_store(&p->value, to);
	return 0;
}

int pid_note(const struct segment *s, const struct member *m, uint32_t real, uint32_t virtual_pid)
{
	int r = note(s, m, PID_TO_REAL, virtual_pid, real);

	return r < 0 ? r : note(s, m, PID_TO_VIRTUAL, real, virtual_pid);
}

int segment_reseed(const struct segment *s, const uint8_t bytes[32], uint64_t now_ns)
{
	struct seed *seed = segment_alloc(s, sizeof(*seed));

	if (!seed)
		return -ENOSPC;
	memcpy(seed->bytes, bytes, sizeof(seed->bytes));
	seed->created_ns = now_ns;
	push(s, &segment_header(s)->seed, &seed->previous, seed);
	return 0;
}

const struct seed *seed_at(const struct segment *s, uint64_t offset)
{
	return segment_at(s, offset, sizeof(struct seed));
}

bool request_withdraw(struct request *r)
{
	uint32_t state = REQUEST_POSTED;

	return atomic_compare_exchange_strong(&r->state, &state, REQUEST_IDLE) ||
	       state == REQUEST_IDLE;
}

bool request_post(const struct segment *s, struct request *r)
{
	struct segment_header *h = segment_header(s);
	uint32_t first = atomic_fetch_add(&h->request_next, 1);

	atomic_store(&r->state, REQUEST_POSTED);
	for (uint32_t i = 0; i < SEGMENT_REQUESTS; i++) {
		uint64_t nothing = 0;

		if (atomic_compare_exchange_strong(&h->requests[(first + i) % SEGMENT_REQUESTS],
			    &nothing, segment_offset(s, r))) {
			atomic_fetch_add(&h->posted, 1);
			return true;
		}
	}
	return false;
}

bool request_take(const struct segment *s, struct request *ret)
{
	struct segment_header *h = segment_header(s);

	for (uint32_t i = 0; i < SEGMENT_REQUESTS; i++) {
		uint32_t posted = REQUEST_POSTED;
		struct request *r;
		uint64_t offset = atomic_load_explicit(&h->requests[i], memory_order_relaxed);

		if (offset == 0)
			continue;
		offset = atomic_exchange(&h->requests[i], 0);
		r = segment_at(s, offset, sizeof(*r));
		/* One that was withdrawn, or posted twice and taken already. */
		if (!r || !atomic_compare_exchange_strong(&r->state, &posted, REQUEST_TAKEN))
			continue;
		ret->lineage = r->lineage;
		ret->kind = r->kind;
		ret->ordinal = r->ordinal;
		ret->word = r->word;
		atomic_store(&r->state, REQUEST_IDLE);
		return true;
	}
	return false;
}

struct cell *cell_make(const struct segment *s, const void *bytes, uint32_t n, uint64_t parameters)
{
	struct cell *c;

	if (n > CELL_MAX)
		return NULL;
	c = segment_alloc(s, sizeof(*c) + n);
	if (!c)
		return NULL;
	c->size = n;
	c->parameters = parameters;
	if (n > 0)
		memcpy(c->bytes, bytes, n);
	return c;
}

const struct cell *cell_at(const struct segment *s, uint64_t offset)
{
	const struct cell *c = segment_at(s, offset, sizeof(*c));

	if (!c || c->size > CELL_MAX || !segment_at(s, offset, sizeof(*c) + c->size))
		return NULL;
	return c;
}

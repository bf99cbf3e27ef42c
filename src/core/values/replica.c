/* SPDX-License-Identifier: Apache-2.0 */
#include "core/values/replica.h"

#include <errno.h>
#include <string.h>

#include "base/reader.h"
#include "core/values/stream.h"

enum {
	ENTRY_SENT_LINEAGE = 1,
	ENTRY_SENT_SEED,
	ENTRY_SENT_SLOTS,
	ENTRY_SENT_HAVE,
	ENTRY_SENT_PROPOSAL,
	ENTRY_SENT_PATH,
	ENTRY_SENT_FRAME,
};

static void append_varint(struct buf *b, uint64_t v)
{
	uint8_t bytes[VARINT_MAX];

	(void)buf_append(b, bytes, put_varint(bytes, v));
}

/* A lane's key in a map: lineages lie 64 bytes apart and have fewer lanes than that. */
static uint64_t lane_key(uint64_t lineage, unsigned int kind)
{
	static_assert(
		KIND_LANES <= SEGMENT_ALIGN, "a lane's key is its lineage's offset and its kind");
	return lineage + kind;
}

void exporter_init(struct exporter *x, const struct segment *s)
{
	*x = (struct exporter){
		.segment = s,
		.sent = MAP_INIT(REPLICA_LANES_MAX),
		.described = MAP_INIT(REPLICA_LANES_MAX),
	};
}

void exporter_free(struct exporter *x)
{
	map_free(&x->sent);
	map_free(&x->described);
}

static void append_lineage(struct buf *b, const struct lineage *l)
{
	size_t n = strnlen(l->name, LINEAGE_NAME);

	(void)buf_append(b, l->entry.key, sizeof(l->entry.key));
	append_varint(b, l->step);
	append_varint(b, l->entry.number);
	(void)buf_putc(b, (char)n);
	(void)buf_append(b, l->name, n);
}

/* Generations of lineage that are followed: a hostile segment could make a ring. */
#define DEPTH_MAX 65536

/* The furthest ancestor (or l itself) that the follower does not know yet; NULL: it knows l. */
static const struct lineage *oldest_unknown(const struct exporter *x, const struct lineage *l)
{
	const struct lineage *unknown = NULL;

	for (int depth = 0; l && depth < DEPTH_MAX; depth++) {
		if (map_get(&x->described, segment_offset(x->segment, l)))
			return unknown;
		unknown = l;
		l = lineage_at(x->segment, l->parent);
	}
	return unknown;
}

static int describe_lineage(struct exporter *x, const struct lineage *l, struct buf *b)
{
	const struct lineage *next;

	while ((next = oldest_unknown(x, l))) {
		uint64_t *seen = map_at(&x->described, segment_offset(x->segment, next));

		if (!seen)
			return -ENOMEM;
		*seen = 1;
		(void)buf_putc(b, ENTRY_SENT_LINEAGE);
		append_varint(b, segment_offset(x->segment, next));
		append_varint(b, next->parent);
		append_lineage(b, next);
	}
	return 0;
}

static int describe_seed(struct exporter *x, uint64_t offset, struct buf *b)
{
	const struct seed *seed = seed_at(x->segment, offset);
	uint64_t *seen = map_at(&x->described, offset);

	if (!seed || !seen)
		return seed ? -ENOMEM : -EBADMSG;
	if (*seen)
		return 0;
	*seen = 1;
	(void)buf_putc(b, ENTRY_SENT_SEED);
	append_varint(b, offset);
	append_varint(b, seed->created_ns);
	(void)buf_append(b, seed->bytes, sizeof(seed->bytes));
	return 0;
}

/* One value, whatever its kind's form. */
static int put_value(const struct segment *s, unsigned int kind, uint64_t word, struct buf *b)
{
	const struct cell *cell;
	uint8_t parameters[8];

	if (kind_form(kind) != FORM_CELL) {
		append_varint(b, word);
		return 0;
	}
	cell = cell_at(s, word);
	if (!cell)
		return -EBADMSG;
	put_u64(parameters, cell->parameters);
	(void)buf_append(b, parameters, sizeof(parameters));
	append_varint(b, cell->size);
	(void)buf_append(b, cell->bytes, cell->size);
	return 0;
}

struct collect {
	struct exporter *x;
	unsigned int kind;
	uint64_t words[REPLICA_SLOTS_MAX];
	uint32_t count;
	size_t bytes; /* of the cells among them */
};

static int collect_word(void *context, uint64_t ordinal, uint64_t word)
{
	struct collect *c = context;
	const struct cell *cell;

	(void)ordinal;
	c->words[c->count++] = word;
	cell = kind_form(c->kind) == FORM_CELL ? cell_at(c->x->segment, word) : NULL;
	c->bytes += cell ? cell->size : 8;
	return c->count == REPLICA_SLOTS_MAX || c->bytes > REPLICA_BATCH_BYTES;
}

/* Sends the slots of one lane in [from, to), one entry of them. Returns how many. */
static int send_slots(struct exporter *x, struct collect *c, const struct cursor *cursor,
	uint64_t from, uint64_t to, struct buf *b)
{
	const struct segment *s = x->segment;
	struct lineage *l = lineage_at(s, cursor->lineage);
	int r;

	if (!l)
		return -EBADMSG;
	c->x = x;
	c->kind = cursor->kind;
	c->count = 0;
	c->bytes = 0;
	r = lane_each(s, l, c->kind, from, to, collect_word, c);
	if (r < 0 || c->count == 0)
		return r < 0 ? r : 0;
	r = describe_lineage(x, l, b);
	for (uint32_t i = 0; r == 0 && kind_form(c->kind) == FORM_STREAM && i < c->count; i++)
		r = describe_seed(x, c->words[i], b);
	(void)buf_putc(b, ENTRY_SENT_SLOTS);
	append_varint(b, cursor->lineage);
	append_varint(b, c->kind);
	append_varint(b, from);
	append_varint(b, c->count);
	for (uint32_t i = 0; r == 0 && i < c->count; i++)
		r = put_value(s, c->kind, c->words[i], b);
	return r < 0 ? r : (int)c->count;
}

/* How far a lane is filled, as this cursor knows. */
static uint64_t filled_by(const struct cursor *c)
{
	uint64_t position = atomic_load_explicit(&c->position, memory_order_acquire);

	if (kind_form(c->kind) != FORM_STREAM)
		return position;
	return (position + STREAM_SPAN - 1) / STREAM_SPAN;
}

static void put_frame(struct exporter *x, struct buf *b)
{
	const struct clock_frame *f = segment_frame(x->segment);
	uint8_t fixed[40];

	if (!f)
		return;
	put_u64(fixed, f->real_ns);
	put_u64(fixed + 8, f->mono_ns);
	put_u64(fixed + 16, f->boot_ns);
	put_u64(fixed + 24, (uint64_t)f->timens_mono_ns);
	put_u64(fixed + 32, (uint64_t)f->timens_boot_ns);
	(void)buf_putc(b, ENTRY_SENT_FRAME);
	(void)buf_append(b, fixed, sizeof(fixed));
	(void)buf_append(b, f->boot_id, sizeof(f->boot_id));
	x->framed = true;
}

int exporter_fill(struct exporter *x, struct buf *b, bool *ret_more)
{
	static _Thread_local struct collect collect; /* large */
	const struct segment *s = x->segment;
	struct walk members = walk_members(s);
	const struct member *m;

	*ret_more = false;
	if (!x->framed)
		put_frame(x, b);
	while ((m = member_next(s, &members))) {
		struct walk cursors = walk_cursors(s, m);
		const struct cursor *c;

		while ((c = cursor_next(s, &cursors))) {
			uint64_t to = filled_by(c), *sent;
			int n = 1;

			if (c->kind >= KIND_LANES || to == 0)
				continue;
			sent = map_at(&x->sent, lane_key(c->lineage, c->kind));
			if (!sent)
				return -ENOMEM;
			while (*sent < to && n > 0) {
				if (b->size >= REPLICA_BATCH_BYTES) {
					*ret_more = true;
					return buf_error(b);
				}
				n = send_slots(x, &collect, c, *sent, to, b);
				if (n < 0)
					return n;
				/* The map may have moved. */
				sent = map_at(&x->sent, lane_key(c->lineage, c->kind));
				if (!sent)
					return -ENOMEM;
				*sent += (uint64_t)n;
				x->slots += (uint64_t)n;
			}
		}
	}
	return buf_error(b);
}

/* Reads one value and makes the word for it in this segment. local: the source's ids, or NULL. */
static int read_value(const struct segment *s, unsigned int kind, const struct map *local,
	struct reader *r, uint64_t *ret_word)
{
	uint64_t parameters, size, word;
	const uint8_t *bytes;
	const struct cell *cell;

	switch (kind_form(kind)) {
	case FORM_STREAM:
		word = reader_varint(r);
		word = local ? map_get(local, word) : atomic_load(&segment_header(s)->seed);
		if (!seed_at(s, word))
			return -EBADMSG;
		break;
	case FORM_CELL:
		parameters = reader_u64(r);
		size = reader_varint(r);
		bytes = size <= CELL_MAX ? reader_bytes(r, size) : NULL;
		if (!bytes)
			return -EBADMSG;
		cell = cell_make(s, bytes, (uint32_t)size, parameters);
		if (!cell)
			return -ENOSPC;
		word = segment_offset(s, cell);
		break;
	case FORM_WORD:
	default:
		word = reader_varint(r);
	}
	if (r->failed || word & SLOT_FILLED)
		return -EBADMSG;
	*ret_word = word;
	return 0;
}

/* Whether two words of a lane stand for the same value. */
static bool same_value(const struct segment *s, unsigned int kind, uint64_t a, uint64_t b)
{
	const struct cell *x, *y;
	const struct seed *p, *q;

	if (a == b)
		return true;
	switch (kind_form(kind)) {
	case FORM_CELL:
		x = cell_at(s, a);
		y = cell_at(s, b);
		return x && y && x->size == y->size && x->parameters == y->parameters &&
		       !memcmp(x->bytes, y->bytes, x->size);
	case FORM_STREAM:
		p = seed_at(s, a);
		q = seed_at(s, b);
		return p && q && !memcmp(p->bytes, q->bytes, sizeof(p->bytes));
	case FORM_WORD:
	default:
		return false;
	}
}

void filler_init(struct filler *f, const struct segment *s, struct member *m)
{
	*f = (struct filler){.segment = s, .member = m, .places = MAP_INIT(REPLICA_LANES_MAX)};
}

void filler_free(struct filler *f)
{
	map_free(&f->places);
	free(f->lanes);
	f->lanes = NULL;
}

static struct lane *filler_lane(struct filler *f, const struct lineage *l, unsigned int kind)
{
	uint64_t *place = map_at(&f->places, lane_key(segment_offset(f->segment, l), kind));

	if (!place)
		return NULL;
	if (*place == 0) {
		if (f->count == f->capacity) {
			size_t more = f->capacity ? 2 * f->capacity : 64;
			struct lane *bigger = realloc(f->lanes, more * sizeof(*bigger));

			if (!bigger)
				return NULL;
			f->lanes = bigger;
			f->capacity = more;
		}
		f->lanes[f->count++] = (struct lane){0};
		*place = f->count;
	}
	return &f->lanes[*place - 1];
}

/* Proposes the word for that slot; a member's cursor says that the lane reaches so far. */
static int fill(struct filler *f, struct lineage *l, unsigned int kind, uint64_t ordinal,
	uint64_t word, bool is_log)
{
	const struct lane_owner owner = {f->segment, f->member, l};
	struct lane *lane = filler_lane(f, l, kind);
	_Atomic uint64_t *slot;
	uint64_t there;
	int r = -ENOMEM;
	bool won;

	if (!lane)
		return -ENOMEM;
	/* Somebody else's answer took the lane further: this one is long decided. */
	if (ordinal < lane_ordinal(lane))
		return 0;
	slot = lane_seek(lane, &owner, kind, ordinal, &r);
	if (!slot)
		return r == -ERANGE ? -EBADMSG : r;
	there = lane_propose(slot, word, &won) & ~SLOT_FILLED;
	if (won)
		f->filled++;
	else if (is_log && !same_value(f->segment, kind, there, word))
		f->conflicts++;
	if (lane->cursor)
		atomic_store_explicit(&lane->cursor->position,
			kind_form(kind) == FORM_STREAM ? (ordinal + 1) * STREAM_SPAN : ordinal + 1,
			memory_order_release);
	return 0;
}

/* What describes a lineage, behind its parent: makes it here. NULL when malformed or full. */
static struct lineage *read_lineage(
	const struct segment *s, const struct lineage *parent, struct reader *r)
{
	const uint8_t *key = reader_bytes(r, 16);
	uint64_t step = reader_varint(r), number = reader_varint(r);
	uint8_t length = reader_u8(r);
	const uint8_t *text = reader_bytes(r, length);
	char name[LINEAGE_NAME + 1] = "";

	if (r->failed || length > LINEAGE_NAME || step < STEP_PROGRAM || step > STEP_STRAY ||
		number > UINT32_MAX)
		return NULL;
	memcpy(name, text, length);
	return lineage_put(s, key, parent, (enum lineage_step)step, (uint32_t)number,
		length > 0 ? name : NULL);
}

static int take_path(const struct segment *s, struct reader *r)
{
	static const uint8_t root[16];
	const uint8_t *key = reader_bytes(r, 16);
	const struct entry *parent = NULL;

	if (!key)
		return -EBADMSG;
	if (memcmp(key, root, sizeof(root)) != 0) {
		parent = segment_find(s, key, ENTRY_LINEAGE, sizeof(struct lineage));
		if (!parent)
			return -EBADMSG;
	}
	return read_lineage(s, (const struct lineage *)parent, r) ? 0 : -EBADMSG;
}

static int take_have(struct exporter *x, struct reader *r)
{
	const uint8_t *key = reader_bytes(r, 16);
	uint64_t kind = reader_varint(r), filled = reader_varint(r);
	const struct entry *l;
	uint64_t *sent;

	if (r->failed || kind >= KINDS)
		return -EBADMSG;
	l = segment_find(x->segment, key, ENTRY_LINEAGE, sizeof(struct lineage));
	/* What only the follower has was never committed: it is not for us to judge here. */
	if (!l)
		return 0;
	sent = map_at(&x->sent, lane_key(segment_offset(x->segment, (const struct lineage *)l),
					(unsigned int)kind));
	if (!sent)
		return -ENOMEM;
	*sent = MAX(*sent, filled);
	return 0;
}

static int take_proposal(struct filler *f, struct reader *r)
{
	const uint8_t *key = reader_bytes(r, 16);
	uint64_t kind = reader_varint(r), ordinal = reader_varint(r), word;
	struct entry *l;
	int result;

	if (r->failed || kind >= KINDS)
		return -EBADMSG;
	l = segment_find(f->segment, key, ENTRY_LINEAGE, sizeof(struct lineage));
	result = read_value(f->segment, (unsigned int)kind, NULL, r, &word);
	if (result < 0 || !l)
		return l ? result : -EBADMSG;
	return fill(f, (struct lineage *)l, (unsigned int)kind, ordinal, word, false);
}

int exporter_take(struct exporter *x, struct filler *f, const void *bytes, size_t n)
{
	struct reader r = reader_init(bytes, n);
	int result = 0;

	while (result == 0 && r.left > 0) {
		switch (reader_u8(&r)) {
		case ENTRY_SENT_HAVE:
			result = take_have(x, &r);
			break;
		case ENTRY_SENT_PATH:
			result = take_path(x->segment, &r);
			break;
		case ENTRY_SENT_PROPOSAL:
			result = take_proposal(f, &r);
			break;
		default:
			result = -EBADMSG;
		}
	}
	return result;
}

void importer_init(struct importer *x, const struct segment *s)
{
	*x = (struct importer){.local = MAP_INIT(REPLICA_LANES_MAX)};
	filler_init(&x->filler, s, NULL);
}

void importer_free(struct importer *x)
{
	filler_free(&x->filler);
	map_free(&x->local);
}

struct have {
	struct buf *b;
	uint64_t filled;
};

static int count_word(void *context, uint64_t ordinal, uint64_t word)
{
	(void)word;
	((struct have *)context)->filled = ordinal + 1;
	return 0;
}

static int put_have(const struct segment *s, struct entry *entry, struct buf *b)
{
	const struct lineage *l = (const struct lineage *)entry;

	for (unsigned int kind = 0; kind < KINDS; kind++) {
		struct have have = {b, 0};
		int r = lane_each(s, l, kind, 0, UINT64_MAX, count_word, &have);

		if (r < 0)
			return r;
		if (have.filled == 0)
			continue;
		(void)buf_putc(b, ENTRY_SENT_HAVE);
		(void)buf_append(b, l->entry.key, sizeof(l->entry.key));
		append_varint(b, kind);
		append_varint(b, have.filled);
	}
	return 0;
}

int importer_put_have(const struct importer *x, struct entry_walk *w, struct buf *b, bool *ret_more)
{
	const struct segment *s = x->filler.segment;
	int r = 0;

	*ret_more = true;
	while (r == 0 && *ret_more && b->size < REPLICA_BATCH_BYTES) {
		struct entry *entry = entry_next(s, w, ENTRY_LINEAGE, sizeof(struct lineage));

		*ret_more = entry != NULL;
		if (entry)
			r = put_have(s, entry, b);
	}
	return r < 0 ? r : buf_error(b);
}

static int apply_lineage(struct importer *x, struct reader *r)
{
	const struct segment *s = x->filler.segment;
	uint64_t id = reader_varint(r), parent_id = reader_varint(r), *local;
	const struct lineage *parent = NULL, *l;

	if (parent_id != 0) {
		parent = lineage_at(s, map_get(&x->local, parent_id));
		if (!parent)
			return -EBADMSG;
	}
	l = read_lineage(s, parent, r);
	if (!l)
		return r->failed ? -EBADMSG : -ENOSPC;
	local = map_at(&x->local, id);
	if (!local)
		return -ENOMEM;
	*local = segment_offset(s, l);
	return 0;
}

static int apply_seed(struct importer *x, struct reader *r)
{
	const struct segment *s = x->filler.segment;
	uint64_t id = reader_varint(r), created = reader_varint(r), *local;
	const uint8_t *bytes = reader_bytes(r, 32);

	if (!bytes)
		return -EBADMSG;
	local = map_at(&x->local, id);
	if (!local)
		return -ENOMEM;
	if (*local == 0) {
		int result = segment_reseed(s, bytes, created);

		if (result < 0)
			return result;
		*local = atomic_load(&segment_header(s)->seed);
	}
	return 0;
}

static int apply_frame(struct importer *x, struct reader *r)
{
	struct clock_frame f = {.real_ns = reader_u64(r)};
	const uint8_t *boot_id;

	f.mono_ns = reader_u64(r);
	f.boot_ns = reader_u64(r);
	f.timens_mono_ns = (int64_t)reader_u64(r);
	f.timens_boot_ns = (int64_t)reader_u64(r);
	boot_id = reader_bytes(r, sizeof(f.boot_id));
	if (!boot_id)
		return -EBADMSG;
	memcpy(f.boot_id, boot_id, sizeof(f.boot_id));
	return segment_set_frame(x->filler.segment, &f);
}

static int apply_slots(struct importer *x, struct reader *r)
{
	const struct segment *s = x->filler.segment;
	uint64_t id = reader_varint(r), kind = reader_varint(r);
	uint64_t first = reader_varint(r), count = reader_varint(r);
	struct lineage *l = lineage_at(s, map_get(&x->local, id));
	int result = 0;

	if (r->failed || !l || kind >= KINDS || count > REPLICA_SLOTS_MAX)
		return -EBADMSG;
	for (uint64_t i = 0; result == 0 && i < count; i++) {
		uint64_t word;

		result = read_value(s, (unsigned int)kind, &x->local, r, &word);
		if (result == 0)
			result = fill(&x->filler, l, (unsigned int)kind, first + i, word, true);
	}
	return result;
}

int importer_apply(struct importer *x, const void *bytes, size_t n)
{
	struct reader r = reader_init(bytes, n);
	int result = 0;

	while (result == 0 && r.left > 0) {
		switch (reader_u8(&r)) {
		case ENTRY_SENT_LINEAGE:
			result = apply_lineage(x, &r);
			break;
		case ENTRY_SENT_SEED:
			result = apply_seed(x, &r);
			break;
		case ENTRY_SENT_SLOTS:
			result = apply_slots(x, &r);
			break;
		case ENTRY_SENT_FRAME:
			result = apply_frame(x, &r);
			break;
		default:
			result = -EBADMSG;
		}
	}
	return result;
}

/* The lineage with its ancestors, oldest first: the source may know none of them. */
static int put_path(const struct segment *s, const struct lineage *l, struct buf *b)
{
	static const uint8_t root[16];
	const struct lineage *path[LINEAGE_DEPTH_MAX];
	size_t depth = 0;

	for (; l; l = lineage_at(s, l->parent)) {
		if (depth == ARRAY_SIZE(path))
			return -EBADMSG;
		path[depth++] = l;
	}
	while (depth-- > 0) {
		const struct lineage *parent = lineage_at(s, path[depth]->parent);

		(void)buf_putc(b, ENTRY_SENT_PATH);
		(void)buf_append(b, parent ? parent->entry.key : root, 16);
		append_lineage(b, path[depth]);
	}
	return 0;
}

int importer_put_request(const struct importer *x, struct buf *b, const struct request *r)
{
	const struct segment *s = x->filler.segment;
	const struct lineage *l = lineage_at(s, r->lineage);
	int result;

	if (!l || r->kind >= KINDS || r->word & SLOT_FILLED)
		return -EBADMSG;
	result = put_path(s, l, b);
	if (result < 0)
		return result;
	(void)buf_putc(b, ENTRY_SENT_PROPOSAL);
	(void)buf_append(b, l->entry.key, sizeof(l->entry.key));
	append_varint(b, r->kind);
	append_varint(b, r->ordinal);
	if (kind_form(r->kind) == FORM_STREAM)
		append_varint(b, 0);
	else
		result = put_value(s, r->kind, r->word, b);
	return result < 0 ? result : buf_error(b);
}

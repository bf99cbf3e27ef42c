/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie group log: the journal says who consumed which range when; the segment says what is in it.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "core/values/lane.h"
#include "core/values/stream.h"
#include "lib/values/recorder.h"

/* Random bytes in one row; a longer run becomes several. */
#define ROW_BYTES 4096
/* Of a value, in the table for people. */
#define SHOWN_BYTES 32

enum format {
	FORMAT_TEXT,
	FORMAT_JSON,
	FORMAT_CSV,
};

/* A cursor of the journal and how far its rows have been printed. */
struct known {
	struct journal_cursor about;
	uint64_t seen;
	uint64_t *times; /* audit in full: pairs of time and position */
	size_t time_count, time_at;
};

struct log {
	const struct group *group;
	enum format format;
	const char *member;
	int kind; /* -1: all */
	struct known *known;
	size_t count, capacity;
	struct err *e;
};

struct row {
	const struct known *of;
	uint64_t time_ns, uncertainty_ns;
	uint64_t ordinal;
	const char *value;
	bool value_is_number;
	size_t bytes; /* of random; 0: one value */
};

static const char *shown_clock(unsigned int kind, uint64_t ns, char out[TIMESTAMP_SIZE])
{
	if (kind == KIND_CLOCK || kind == KIND_CLOCK_REALTIME_COARSE)
		format_timestamp(ns, out);
	else
		(void)snprintf(out, TIMESTAMP_SIZE, "%" PRIu64 ".%09" PRIu64, ns / NSEC_PER_SEC,
			ns % NSEC_PER_SEC);
	return out;
}

static void print_text(const struct row *row, uint64_t word)
{
	const struct journal_cursor *c = &row->of->about;
	char when[TIMESTAMP_SIZE], clock_text[TIMESTAMP_SIZE];
	const char *value = row->value;

	format_timestamp(row->time_ns, when);
	if (c->kind >= KIND_CLOCK && c->kind <= KIND_CLOCK_DYNAMIC)
		value = shown_clock(c->kind, word, clock_text);
	(void)printf("%s %8.3f  %-12s %-24s %-22s %10" PRIu64 "  ", when,
		(double)row->uncertainty_ns / (double)NSEC_PER_MSEC, c->member_name, c->lane,
		kind_name(c->kind), row->ordinal);
	if (strlen(value) > (size_t)2 * SHOWN_BYTES)
		(void)printf("%.*s... (%zu bytes)\n", 2 * SHOWN_BYTES, value, strlen(value) / 2);
	else
		(void)printf("%s\n", value);
}

static void print_row(const struct log *log, const struct row *row, uint64_t word)
{
	const struct journal_cursor *c = &row->of->about;
	char when[TIMESTAMP_SIZE];
	json_t *j;

	switch (log->format) {
	case FORMAT_TEXT:
		print_text(row, word);
		break;
	case FORMAT_CSV:
		/* Names and lanes hold neither commas nor quotes: a program's name might. */
		format_timestamp(row->time_ns, when);
		(void)printf("%s,%" PRIu64 ",%s,%" PRIu64 ",\"", when, row->uncertainty_ns,
			c->member_name, c->member);
		for (const char *p = c->lane; *p; p++)
			(void)printf("%s%c", *p == '"' ? "\"" : "", *p);
		(void)printf("\",%s,%" PRIu64 ",%zu,%s\n", kind_name(c->kind), row->ordinal,
			row->bytes, row->value);
		break;
	case FORMAT_JSON:
		format_timestamp(row->time_ns, when);
		j = json_pack("{s:s,s:I,s:s,s:I,s:s,s:s,s:I,s:s}", "time", when, "uncertainty_ns",
			(json_int_t)row->uncertainty_ns, "member", c->member_name, "number",
			(json_int_t)c->member, "lane", c->lane, "kind", kind_name(c->kind),
			"ordinal", (json_int_t)row->ordinal, "value", row->value);
		if (j && row->bytes > 0)
			(void)json_object_set_new(j, "bytes", json_integer((json_int_t)row->bytes));
		if (j)
			(void)json_dumpf(j, stdout, JSON_COMPACT);
		(void)putchar('\n');
		json_decref(j);
		break;
	}
}

static int print_random(const struct log *log, struct row row, uint64_t from, uint64_t to)
{
	const struct segment *s = &log->group->segment;
	const struct lineage *l = lineage_at(s, row.of->about.lineage);
	static uint8_t bytes[ROW_BYTES];
	static char text[2 * ROW_BYTES + 1];

	while (from < to) {
		size_t n = MIN(to - from, (uint64_t)ROW_BYTES);
		int r = l ? stream_recompute(s, l, from, bytes, n) : -EBADMSG;

		if (r < 0)
			return err_set(log->e, ERR_CORRUPT, "the segment of group %s is damaged",
				log->group->name);
		hex_encode(bytes, n, text);
		row.value = text;
		row.bytes = n;
		row.ordinal = from;
		print_row(log, &row, 0);
		from += n;
	}
	return 0;
}

struct slot_context {
	const struct log *log;
	struct row row;
};

static int print_slot(void *context, uint64_t ordinal, uint64_t word)
{
	struct slot_context *c = context;
	const struct segment *s = &c->log->group->segment;
	const struct cell *cell;
	CLEANUP_FREE char *text = NULL;
	char number[24];

	c->row.ordinal = ordinal;
	if (kind_form(c->row.of->about.kind) == FORM_WORD) {
		(void)snprintf(number, sizeof(number), "%" PRIu64, word);
		c->row.value = number;
		print_row(c->log, &c->row, word);
		return 0;
	}
	cell = cell_at(s, word);
	text = cell ? malloc(2 * (size_t)cell->size + 1) : NULL;
	if (!text)
		return -EBADMSG;
	hex_encode(cell->bytes, cell->size, text);
	c->row.value = text;
	print_row(c->log, &c->row, word);
	return 0;
}

static int print_piece(const struct log *log, const struct known *k, uint64_t time_ns,
	uint64_t uncertainty_ns, uint64_t from, uint64_t to)
{
	const struct segment *s = &log->group->segment;
	const struct lineage *l = lineage_at(s, k->about.lineage);
	struct slot_context c = {
		.log = log,
		.row = {.of = k, .time_ns = time_ns, .uncertainty_ns = uncertainty_ns},
	};
	int r;

	if (kind_form(k->about.kind) == FORM_STREAM)
		return print_random(log, c.row, from, to);
	r = l ? lane_each(s, l, k->about.kind, from, to, print_slot, &c) : -EBADMSG;
	if (r < 0)
		return err_set(log->e, ERR_CORRUPT, "the segment of group %s is damaged",
			log->group->name);
	return 0;
}

static int keep_word(void *context, uint64_t ordinal, uint64_t word)
{
	struct known *k = context;

	if (ordinal < k->time_count)
		k->times[ordinal] = word;
	return 0;
}

static void load_times(const struct log *log, struct known *k)
{
	const struct segment *s = &log->group->segment;
	const struct cursor *c = segment_at(s, k->about.id, sizeof(*c));
	uint64_t noted = c ? atomic_load(&c->noted) : 0;

	if (noted == 0 || noted > s->size / 8)
		return;
	k->times = calloc(noted, sizeof(*k->times));
	if (!k->times)
		return;
	k->time_count = (size_t)noted;
	if (times_each(s, c, 0, noted, keep_word, k) < 0)
		k->time_count = 0;
}

static struct known *find_known(const struct log *log, uint64_t id)
{
	/* Cursors come in the order of their making, which is nearly that of their ids. */
	for (size_t i = log->count; i-- > 0;)
		if (log->known[i].about.id == id)
			return &log->known[i];
	return NULL;
}

static int visit_cursor(void *context, const struct journal_cursor *c)
{
	struct log *log = context;

	if (find_known(log, c->id))
		return 0;
	if (log->count == log->capacity) {
		size_t more = log->capacity ? 2 * log->capacity : 64;
		struct known *bigger = realloc(log->known, more * sizeof(*bigger));

		if (!bigger)
			return err_set(log->e, ERR_INTERNAL, "out of memory");
		log->known = bigger;
		log->capacity = more;
	}
	log->known[log->count] = (struct known){.about = *c};
	if (segment_header(&log->group->segment)->audit_full)
		load_times(log, &log->known[log->count]);
	log->count++;
	return 0;
}

static int visit_range(
	void *context, const struct journal_batch *batch, const struct journal_range *range)
{
	struct log *log = context;
	struct known *k = find_known(log, range->cursor);
	uint64_t from;
	int r = 0;

	if (!k || k->about.kind == KIND_ORDER ||
		(log->member && strcmp(log->member, k->about.member_name) != 0) ||
		(log->kind >= 0 && (unsigned int)log->kind != k->about.kind))
		return 0;
	from = MAX(range->from, k->seen);
	if (from >= range->to)
		return 0;
	k->seen = range->to;
	/* Exact times, as far as they go. */
	while (r == 0 && from < range->to && k->time_at + 1 < k->time_count) {
		uint64_t upto = MIN(k->times[k->time_at + 1], range->to);

		if (upto > from)
			r = print_piece(log, k, k->times[k->time_at], 0, from, upto);
		from = MAX(from, upto);
		if (upto < range->to || k->times[k->time_at + 1] == range->to)
			k->time_at += 2;
	}
	if (r == 0 && from < range->to)
		r = print_piece(log, k, batch->time_ns, batch->uncertainty_ns, from, range->to);
	return r;
}

static int print_log(struct log *log, struct err *e)
{
	const struct journal_visitor visitor = {log, visit_cursor, visit_range};
	CLEANUP_FREE uint8_t *bytes = NULL;
	size_t size, whole;
	int r = recorder_load(log->group, &bytes, &size, e);

	if (r < 0)
		return r;
	if (log->format == FORMAT_TEXT)
		(void)printf("%-30s %8s  %-12s %-24s %-22s %10s  %s\n", "TIME", "-MS", "MEMBER",
			"LANE", "KIND", "ORDINAL", "VALUE");
	if (log->format == FORMAT_CSV)
		(void)printf("time,uncertainty_ns,member,number,lane,kind,ordinal,bytes,value\n");
	if (size > 0)
		r = journal_read(bytes + JOURNAL_HEADER, size - JOURNAL_HEADER, &visitor, &whole);
	return r;
}

int run_group_log(const struct invocation *inv, struct err *e)
{
	const char *kind = option(inv, "kind"), *csv = option(inv, "csv");
	CLEANUP(group_close_p) struct group *g = NULL;
	struct log log = {.kind = -1, .e = e, .member = option(inv, "member")};
	int r = group_open(inv->arguments[0], &g, e);

	if (r < 0)
		return r;
	if (kind) {
		log.kind = kind_from_name(kind);
		if (log.kind < 0)
			return err_set(e, ERR_INVALID, "there is no kind '%s'", kind);
	}
	if (csv && inv->json)
		return err_set(e, ERR_USAGE, "--json and --csv exclude each other");
	r = recorder_settle(g, e);
	if (r < 0)
		return r;
	log.group = g;
	log.format = inv->json ? FORMAT_JSON : csv ? FORMAT_CSV : FORMAT_TEXT;
	r = print_log(&log, e);
	for (size_t i = 0; i < log.count; i++)
		free(log.known[i].times);
	free(log.known);
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/values/group.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/group_remote.h"
#include "io/json.h"
#include "lib/values/recorder.h"

int run_group_create(const struct invocation *inv, struct err *e)
{
	const char *size = option(inv, "size"), *audit = option(inv, "audit");
	const char *on_full = option(inv, "on-full");
	struct group_options o = {0};
	int r;

	if (size && parse_size(size, &o.size) < 0)
		return err_set(e, ERR_INVALID,
			"--size takes a number of bytes such as 64M, not '%s'", size);
	if (size && o.size == 0)
		return err_set(e, ERR_INVALID, "--size must be at least 1M");
	if (audit && strcmp(audit, "full") != 0 && strcmp(audit, "batch") != 0)
		return err_set(e, ERR_INVALID, "--audit takes batch or full, not '%s'", audit);
	if (on_full && strcmp(on_full, "leave") != 0 && strcmp(on_full, "kill") != 0)
		return err_set(e, ERR_INVALID, "--on-full takes leave or kill, not '%s'", on_full);
	o.whole = option(inv, "whole") != NULL;
	o.audit_full = audit && !strcmp(audit, "full");
	o.full_policy = on_full && !strcmp(on_full, "kill") ? FULL_KILL : FULL_LEAVE;
	r = group_create(inv->arguments[0], &o, e);
	if (r == 0 && inv->json)
		return print_json(json_pack("{s:s}", "group", inv->arguments[0]), e);
	return r;
}

/* What a member has consumed in all lanes. */
struct totals {
	uint64_t values, random_bytes, made;
};

static struct totals add_up(const struct segment *s, const struct member *m)
{
	struct walk w = walk_cursors(s, m);
	const struct cursor *c;
	struct totals t = {0};

	while ((c = cursor_next(s, &w))) {
		uint64_t position = atomic_load(&c->position);

		if (kind_form(c->kind) == FORM_STREAM)
			t.random_bytes += position;
		else if (c->kind != KIND_ORDER)
			t.values += position;
		if (c->kind != KIND_ORDER)
			t.made += atomic_load(&c->made);
	}
	return t;
}

static const char *member_state_name(const struct segment *s, const struct member *m)
{
	return atomic_load(&m->state) == MEMBER_RUNNING && member_alive(s, m) ? "running" : "ended";
}

static json_t *divergence_json(const struct segment *s, const struct member *m)
{
	const struct lineage *l = lineage_at(s, atomic_load(&m->diverged_lineage));
	unsigned int why = atomic_load(&m->diverged);
	char lane[JOURNAL_LANE_MAX + 1] = "";

	if (why == DIVERGED_NOT)
		return json_null();
	if (l)
		(void)lineage_format(s, l, lane, sizeof(lane));
	return json_pack("{s:s,s:s,s:s,s:I}", "why", divergence_name(why), "lane", lane, "kind",
		kind_name(atomic_load(&m->diverged_kind)), "ordinal",
		(json_int_t)atomic_load(&m->diverged_ordinal));
}

static json_t *member_json(const struct segment *s, const struct member *m)
{
	struct totals t = add_up(s, m);
	char started[TIMESTAMP_SIZE];

	format_timestamp(m->started_ns, started);
	return json_pack("{s:s,s:I,s:s,s:i,s:s,s:I,s:I,s:I,s:o}", "name", m->name, "number",
		(json_int_t)m->number, "state", member_state_name(s, m), "pid", (int)m->pid,
		"started", started, "values", (json_int_t)t.values, "random_bytes",
		(json_int_t)t.random_bytes, "made", (json_int_t)t.made, "diverged",
		divergence_json(s, m));
}

static json_t *group_json(const struct group *g, bool members)
{
	const struct segment_header *h = segment_header(&g->segment);
	struct walk w = walk_members(&g->segment);
	json_t *list = json_array(), *j;
	char id[33], created[TIMESTAMP_SIZE];
	const struct member *m;

	hex_encode(h->group_id, sizeof(h->group_id), id);
	format_timestamp(h->created.real_ns, created);
	/* Newest first in the list, oldest first for people. */
	while (members && (m = member_next(&g->segment, &w)))
		if (m->name[0] != '@') /* no member, but a link between hosts */
			(void)json_array_insert_new(list, 0, member_json(&g->segment, m));
	j = json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:s}", "name", g->name, "origin",
		"local", "id", id, "created", created, "size", (json_int_t)h->size, "used",
		(json_int_t)MIN(atomic_load(&h->heap_next), h->size), "committed",
		(json_int_t)atomic_load(&h->committed), "joined",
		(json_int_t)atomic_load(&h->member_count), "audit",
		h->audit_full ? "full" : "batch", "on_full",
		h->full_policy == FULL_KILL ? "kill" : "leave");
	if (members && j)
		(void)json_object_set_new(j, "members", list);
	else
		json_decref(list);
	return j;
}

/* One local group: a line, or an item of the list. */
static void list_one(const struct invocation *inv, const char *name, json_t *list)
{
	CLEANUP(group_close_p) struct group *g = NULL;
	const struct segment_header *h;
	struct err why = {0};
	char created[TIMESTAMP_SIZE];

	if (group_open(name, &g, &why) < 0) {
		/* One damaged group hides no other. */
		(void)json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "name", name, "origin",
							  "local", "error", why.message));
		if (!inv->json)
			(void)printf("%-24s (%s)\n", name, why.message);
		return;
	}
	(void)json_array_append_new(list, group_json(g, false));
	if (inv->json)
		return;
	h = segment_header(&g->segment);
	format_timestamp(h->created.real_ns, created);
	(void)printf("%-24s %-30s %8" PRIu64 " %10" PRIu64 "\n", g->name, created,
		atomic_load(&h->member_count), MIN(atomic_load(&h->heap_next), h->size) / 1024);
}

static void print_names(char *const *local, const json_t *remote)
{
	const json_t *group;
	size_t i;

	for (; *local; local++)
		(void)puts(*local);
	json_array_foreach(remote, i, group)(void)
		puts(json_string_value(json_object_get(group, "name")));
}

int run_group_list(const struct invocation *inv, struct err *e)
{
	CLEANUP_JSON json_t *list = json_array();
	CLEANUP_JSON json_t *remote = NULL;
	char **names;
	int r = group_names(&names, e);

	if (r < 0)
		return r;
	remote = remote_groups();
	if (option(inv, "names")) {
		print_names(names, remote);
		group_names_free(names);
		return 0;
	}
	if (!inv->json && (names[0] || json_array_size(remote) == 0))
		(void)printf("%-24s %-30s %8s %10s\n", "GROUP", "CREATED", "JOINED", "USED KB");
	for (size_t i = 0; names[i]; i++)
		list_one(inv, names[i], list);
	group_names_free(names);
	if (inv->json) {
		(void)json_array_extend(list, remote);
		return print_json(json_incref(list), e);
	}
	if (json_array_size(remote) > 0)
		print_remote_groups(remote);
	return 0;
}

static void print_member(const struct segment *s, const struct member *m)
{
	const struct lineage *l = lineage_at(s, atomic_load(&m->diverged_lineage));
	struct totals t = add_up(s, m);
	unsigned int why = atomic_load(&m->diverged);
	char lane[JOURNAL_LANE_MAX + 1] = "";

	(void)printf("%-16s %6" PRIu64 " %-8s %8u %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "  %s",
		m->name, m->number, member_state_name(s, m), m->pid, t.values, t.random_bytes,
		t.made, why == DIVERGED_NOT ? "like the others" : "DIVERGED: ");
	if (why != DIVERGED_NOT) {
		if (l)
			(void)lineage_format(s, l, lane, sizeof(lane));
		(void)printf("%s in %s %s at %" PRIu64, divergence_name(why), lane,
			kind_name(atomic_load(&m->diverged_kind)),
			atomic_load(&m->diverged_ordinal));
	}
	(void)putchar('\n');
}

/* The list holds the newest first; people read the oldest first. */
static int print_members(const struct segment *s, struct err *e)
{
	struct walk w = walk_members(s), again = w;
	const struct member *m;
	uint64_t n = 0, *offsets;

	while (member_next(s, &w))
		n++;
	offsets = calloc(n + 1, sizeof(*offsets));
	if (!offsets)
		return err_set(e, ERR_INTERNAL, "out of memory");
	for (uint64_t i = 0; i < n && (m = member_next(s, &again)); i++)
		offsets[i] = segment_offset(s, m);
	while (n-- > 0) {
		m = member_at(s, offsets[n]);
		if (m && m->name[0] != '@')
			print_member(s, m);
	}
	free(offsets);
	return 0;
}

static int print_local(const struct group *g, struct err *e)
{
	const struct segment_header *h;
	char created[TIMESTAMP_SIZE];

	h = segment_header(&g->segment);
	format_timestamp(h->created.real_ns, created);
	(void)printf("group     %s, made %s\n", g->name, created);
	(void)printf("segment   %" PRIu64 " KB used of %" PRIu64 " KB, when full: %s\n",
		MIN(atomic_load(&h->heap_next), h->size) / 1024, h->size / 1024,
		h->full_policy == FULL_KILL ? "kill" : "leave");
	(void)printf(
		"audit     %s\n\n", h->audit_full ? "full: exact times" : "batch: within 10 ms");
	(void)printf("%-16s %6s %-8s %8s %12s %12s %12s  %s\n", "MEMBER", "NUMBER", "STATE", "PID",
		"VALUES", "RANDOM BYTES", "ASKED FIRST", "COMPARED");
	return print_members(&g->segment, e);
}

/* The group may be this machine's, the control plane's, or both by the same name. */
int run_group_show(const struct invocation *inv, struct err *e)
{
	CLEANUP(group_close_p) struct group *g = NULL;
	CLEANUP_JSON json_t *remote = NULL;
	int r = group_open(inv->arguments[0], &g, e);

	if (r == 0 || e->code == ERR_NOT_FOUND)
		remote = remote_group(inv->arguments[0]);
	if (r < 0 && !remote)
		return r;
	if (inv->json && g) {
		json_t *j = group_json(g, true);

		if (remote)
			(void)json_object_set(j, "control_plane", remote);
		return print_json(j, e);
	}
	if (inv->json)
		return print_json(json_incref(remote), e);
	r = g ? print_local(g, e) : 0;
	if (g && remote)
		(void)putchar('\n');
	if (remote)
		print_remote_group(remote);
	return r;
}

int run_group_remove(const struct invocation *inv, struct err *e)
{
	int r = group_remove(inv->arguments[0], option(inv, "force") != NULL, e);

	return r < 0 && e->code == ERR_NOT_FOUND ? remote_group_remove(inv->arguments[0], e) : r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: their members' condition, and who leads them.
 *
 * A member's condition is not kept but read off its instance and that one's host each time, so
 * that it cannot disagree with them. Kept is only who leads, under an epoch (store/groups.h).
 */
#include "sosied/groups.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sosied/instances.h"
#include "sosied/networks.h"
#include "sosied/routes.h"

void roster_free(struct roster *roster)
{
	free(roster->members);
	roster->members = NULL;
}

static int read_member(struct sosied *d, struct roster_member *m, struct err *e)
{
	int r;

	r = store_instance_get(d->store, store_scope_all(), m->member.instance_id, &m->instance, e);
	if (r == 0 && m->instance.host_id[0])
		r = store_host_get(d->store, m->instance.host_id, &m->host, e);
	if (r < 0)
		return r;
	m->heard = m->host.id[0] && host_heard(d, &m->host);
	m->lost = life_lost(instance_wish(&m->instance), instance_sight(&m->instance),
		m->host.id[0] != '\0', m->heard);
	return 0;
}

/* Identifiers of one moment are in no order: the time of creation is that of succession. */
static int by_age(const void *a, const void *b)
{
	const struct roster_member *x = a, *y = b;

	if (x->member.created != y->member.created)
		return x->member.created < y->member.created ? -1 : 1;
	return strcmp(x->member.id, y->member.id);
}

int roster_read(struct sosied *d, const char *group_id, struct roster *ret, struct err *e)
{
	CLEANUP_FREE struct store_member *rows = zalloc(SUCCESSION_MEMBERS_MAX, sizeof(*rows));
	CLEANUP_ROSTER struct roster roster = {0};
	int n, r;

	roster.members = zalloc(SUCCESSION_MEMBERS_MAX, sizeof(*roster.members));
	if (!rows || !roster.members)
		return err_errno(e, -ENOMEM, "read a group's members");
	n = store_member_list(
		d->store, store_scope_all(), group_id, NULL, rows, SUCCESSION_MEMBERS_MAX, e);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		/* One without an instance is a process, which leads nothing that is placed. */
		if (!rows[i].instance_id[0])
			continue;
		roster.members[roster.n].member = rows[i];
		r = read_member(d, &roster.members[roster.n++], e);
		if (r < 0)
			return r;
	}
	qsort(roster.members, roster.n, sizeof(*roster.members), by_age);
	*ret = roster;
	roster.members = NULL;
	return 0;
}

int group_find(struct call *c, const char *name, struct store_group *ret, struct err *e)
{
	int r = is_id(name) ? store_group_get(c->d->store, c->scope, name, ret, e)
			    : store_group_by_name(c->d->store, c->tenant.id, name, ret, e);

	return r < 0 ? r : call_about(c, ret->tenant_id);
}

static bool is_running(const struct roster_member *m)
{
	return m->heard && instance_sight(&m->instance) == SIGHT_RUNNING;
}

/* The roster as succession sees it: a host's number is that of the first member on it. */
static void describe(const struct roster *roster, struct succession_member *out)
{
	for (size_t i = 0; i < roster->n; i++) {
		const struct roster_member *m = &roster->members[i];
		size_t first = 0;

		while (strcmp(roster->members[first].host.id, m->host.id) != 0)
			first++;
		out[i] = (struct succession_member){
			.host = (unsigned int)first,
			.placed = m->host.id[0] != '\0',
			.host_heard = m->heard,
			.running = is_running(m),
			.lost = m->lost,
		};
	}
}

static int reconfigure(struct sosied *d, const struct store_group *g, const char *source_host_id,
	const char *primary_member_id, const char *primary_name, struct err *e)
{
	int r = store_group_reconfigure(
		d->store, g->id, g->epoch, source_host_id, primary_member_id, e);

	if (r < 0)
		return r;
	return event_add(d->store, g->tenant_id, "group.reconfigured", g->id,
		json_pack("{s:s,s:o,s:o,s:o}", "name", g->name, "epoch", json_u64(g->epoch + 1),
			"primary", json_or_null(primary_name), "source",
			json_or_null(source_host_id)),
		e);
}

int group_review(struct sosied *d, const char *group_id, struct err *e)
{
	struct succession_member members[SUCCESSION_MEMBERS_MAX];
	size_t primary = SUCCESSION_NONE, source = SUCCESSION_NONE;
	CLEANUP_ROSTER struct roster roster = {0};
	struct store_group g = {0};
	int r;

	if (!group_id[0])
		return 0;
	r = store_group_get(d->store, store_scope_all(), group_id, &g, e);
	if (r == 0)
		r = roster_read(d, group_id, &roster, e);
	if (r < 0)
		return r;
	if (roster.n == 0)
		return g.source_host_id[0] || g.primary_member_id[0]
			       ? reconfigure(d, &g, "", "", "", e)
			       : 0;
	describe(&roster, members);
	for (size_t i = 0; i < roster.n; i++) {
		if (!strcmp(roster.members[i].member.id, g.primary_member_id))
			primary = i;
		if (members[i].placed && !strcmp(roster.members[i].host.id, g.source_host_id))
			source = members[i].host;
	}
	if (!succession(members, roster.n, &primary, &source))
		return 0;
	return reconfigure(d, &g,
		source == SUCCESSION_NONE ? g.source_host_id : roster.members[source].host.id,
		roster.members[primary].member.id, roster.members[primary].member.name, e);
}

static json_t *member_view(
	struct sosied *d, const struct store_group *g, const struct roster_member *m)
{
	bool primary = !strcmp(m->member.id, g->primary_member_id);

	return json_pack("{s:s,s:s,s:s,s:s,s:o,s:b,s:b,s:b,s:o}", "name", m->member.name,
		"instance", m->instance.id, "state", instance_state(d, &m->instance), "reason",
		m->instance.reason, "host", json_or_null(m->host.name), "primary", primary,
		"source", m->host.id[0] && !strcmp(m->host.id, g->source_host_id), "lost", m->lost,
		"nics", network_nics(d->store, m->instance.id));
}

/* In a word, and in a sentence for whoever asks why. */
static const char *condition(const struct roster *roster, char *sentence, size_t size)
{
	size_t running = 0, lost = 0;

	sentence[0] = '\0';
	for (size_t i = 0; i < roster->n; i++) {
		const struct roster_member *m = &roster->members[i];

		running += is_running(m) && !m->lost;
		lost += m->lost;
		if (m->lost && !sentence[0])
			(void)snprintf(sentence, size, "%s is lost: %s", m->member.name,
				m->host.id[0] && !m->heard ? "its host is not heard of"
				: m->instance.reason[0]    ? m->instance.reason
							   : "it does not run");
	}
	if (roster->n == 0)
		return "empty";
	if (running == roster->n)
		return "healthy";
	if (lost == roster->n)
		return "down";
	return lost > 0 ? "degraded" : "starting";
}

static json_t *view(struct sosied *d, const struct store_group *g)
{
	CLEANUP_ROSTER struct roster roster = {0};
	char sentence[sizeof(((struct store_instance *)0)->reason) + STORE_NAME_SIZE + 32];
	struct store_tenant tenant = {0};
	struct store_host source = {0};
	json_t *members = json_array();
	const char *primary = "", *state;

	if (roster_read(d, g->id, &roster, NULL) < 0) {
		json_decref(members);
		return NULL;
	}
	(void)store_tenant_get(d->store, g->tenant_id, &tenant, NULL);
	if (g->source_host_id[0])
		(void)store_host_get(d->store, g->source_host_id, &source, NULL);
	for (size_t i = 0; i < roster.n; i++) {
		if (!strcmp(roster.members[i].member.id, g->primary_member_id))
			primary = roster.members[i].member.name;
		(void)json_array_append_new(members, member_view(d, g, &roster.members[i]));
	}
	state = condition(&roster, sentence, sizeof(sentence));
	return json_pack("{s:s,s:s,s:s,s:s,s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:o}", "id", g->id, "name",
		g->name, "tenant", tenant.name, "state", state, "reason", json_or_null(sentence),
		"placement", store_name(&store_placements, g->placement), "epoch",
		json_u64(g->epoch), "primary", json_or_null(primary), "source",
		json_or_null(source.name), "members", members, "created", json_time(g->created),
		"revision", json_u64(g->revision));
}

static json_t *group_view(struct call *c, const void *row)
{
	return view(c->d, row);
}

static int group_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_group_list(c->d->store, c->scope, after, rows, max, e);
}

int route_groups_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_group),
		offsetof(struct store_group, id), offsetof(struct store_group, tenant_id),
		group_read, group_view};

	return call_list(c, &listing, ret, e);
}

int route_groups_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_group g = {0};
	int r = group_find(c, c->params[0], &g, e);

	if (r < 0)
		return r;
	c->revision = g.revision;
	*ret = view(c->d, &g);
	return 0;
}

int route_groups_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_group g = {0};
	int r = group_find(c, c->params[0], &g, e);

	(void)ret;
	if (r == 0)
		r = call_match(c, g.revision, e);
	if (r == 0)
		r = store_group_delete(c->d->store, c->scope, g.id, e);
	if (r < 0)
		return r;
	return event_add(c->d->store, g.tenant_id, "group.deleted", g.id,
		json_pack("{s:s}", "name", g.name), e);
}

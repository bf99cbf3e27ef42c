/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts, as the provider sees and runs them.
 *
 *   enrolled ──heartbeat──> online <──heartbeat── offline
 *                            │  └───silence────────>  ^
 *                         drain│ ^undrain
 *                            v │
 *                          draining      (heard of or not: that is told by last_seen)
 *
 * Nothing is moved off a host because it is silent: it may be running on. Only fencing, by a
 * person who knows that it is off, does that.
 */
#include "sosied/hosts.h"

#include <errno.h>
#include <string.h>

#include "sosied/feed.h"
#include "sosied/groups.h"
#include "sosied/instances.h"
#include "sosied/routes.h"

#define TOKEN_PAGE 256

static const char *shown_state(const struct sosied *d, const struct store_host *host)
{
	if (host->state != STORE_HOST_ENROLLED && !host_heard(d, host))
		return "offline";
	return store_name(&store_host_states, host->state);
}

static json_t *resources(uint64_t cores, uint64_t memory, uint64_t disk)
{
	return json_pack("{s:o,s:o,s:o}", "cores", json_u64(cores), "memory_bytes",
		json_u64(memory), "disk_bytes", json_u64(disk));
}

static json_t *host_view(struct call *c, const void *row)
{
	const struct store_host *h = row;

	return json_pack("{s:s,s:s,s:s,s:s,s:b,s:o,s:o,s:s,s:s,s:s,s:s,s:o,s:o,s:o}", "id", h->id,
		"name", h->name, "zone", h->zone, "state", shown_state(c->d, h), "draining",
		h->state == STORE_HOST_DRAINING, "resources",
		resources(h->cores, h->memory, h->disk), "free",
		resources(h->cores_free, h->memory_free, h->disk_free), "cpu_model", h->cpu_model,
		"accel", h->accel, "agent_version", h->agent_version, "overlay", h->endpoint,
		"last_seen", json_time(h->last_seen), "created", json_time(h->created), "revision",
		json_u64(h->revision));
}

static int find(struct call *c, struct store_host *ret, struct err *e)
{
	const char *name = c->params[0];

	return is_id(name) ? store_host_get(c->d->store, name, ret, e)
			   : store_host_by_name(c->d->store, name, ret, e);
}

static int host_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_host_list(c->d->store, after, rows, max, e);
}

int route_hosts_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_host),
		offsetof(struct store_host, id), NO_TENANT, host_read, host_view};

	return call_list(c, &listing, ret, e);
}

int route_hosts_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_host host = {0};
	int r = find(c, &host, e);

	if (r < 0)
		return r;
	c->revision = host.revision;
	*ret = host_view(c, &host);
	return 0;
}

int host_instances(
	struct sosied *d, const char *host_id, struct store_instance **ret, struct err *e)
{
	struct store_instance *rows = calloc(HOST_INSTANCES_MAX, sizeof(*rows));
	int n;

	if (!rows)
		return err_errno(e, -ENOMEM, "read a host's instances");
	n = store_instance_list(
		d->store, store_scope_all(), "", host_id, NULL, rows, HOST_INSTANCES_MAX, e);
	if (n < 0)
		free(rows);
	else
		*ret = rows;
	return n;
}

int host_turned(struct sosied *d, const struct store_host *host, const char *kind, struct err *e)
{
	CLEANUP_FREE struct store_instance *rows = NULL;
	int r = 0, n = host_instances(d, host->id, &rows, e);

	if (n < 0)
		return n;
	for (int i = 0; r == 0 && i < n; i++) {
		r = event_add(d->store, rows[i].tenant_id, kind, rows[i].id,
			json_pack("{s:s,s:s}", "name", rows[i].name, "host", host->name), e);
		if (r == 0)
			r = group_review(d, rows[i].group_id, e);
	}
	return r;
}

int host_revoke(struct sosied *d, const char *host_id, const char *keep, struct err *e)
{
	CLEANUP_FREE struct store_token *rows = zalloc(TOKEN_PAGE, sizeof(*rows));
	char id[STORE_ID_SIZE] = "";
	const struct store_page after = {NULL, id};
	int n, r = 0;

	if (!rows)
		return err_errno(e, -ENOMEM, "revoke a host's tokens");
	do {
		n = store_token_list(d->store, store_scope_all(), &after, rows, TOKEN_PAGE, e);
		for (int i = 0; r == 0 && i < n; i++)
			if (!strcmp(rows[i].host_id, host_id) && strcmp(rows[i].id, keep) != 0)
				r = store_token_delete(d->store, store_scope_all(), rows[i].id, e);
		if (n == TOKEN_PAGE)
			COPY(id, rows[n - 1].id);
	} while (r == 0 && n == TOKEN_PAGE);
	return n < 0 ? n : r;
}

static int set_state(
	struct call *c, enum store_host_state state, const char *kind, json_t **ret, struct err *e)
{
	struct store_host host = {0};
	int r = find(c, &host, e);

	if (r == 0)
		r = call_match(c, host.revision, e);
	if (r < 0)
		return r;
	host.state = state;
	r = store_host_update(c->d->store, &host, e);
	if (r == 0)
		r = event_add(
			c->d->store, "", kind, host.id, json_pack("{s:s}", "name", host.name), e);
	if (r < 0)
		return r;
	c->revision = host.revision;
	*ret = host_view(c, &host);
	return 0;
}

int route_hosts_drain(struct call *c, json_t **ret, struct err *e)
{
	return set_state(c, STORE_HOST_DRAINING, "host.draining", ret, e);
}

int route_hosts_undrain(struct call *c, json_t **ret, struct err *e)
{
	struct store_host host = {0};
	int r = find(c, &host, e);

	if (r < 0)
		return r;
	if (host.state != STORE_HOST_DRAINING)
		return err_set(e, ERR_CONFLICT, "host %s is not draining but %s", host.name,
			shown_state(c->d, &host));
	return set_state(c, host_heard(c->d, &host) ? STORE_HOST_ONLINE : STORE_HOST_OFFLINE,
		"host.undrained", ret, e);
}

static int rescue_all(
	struct call *c, const struct store_host *host, json_t *outcomes, struct err *e)
{
	CLEANUP_FREE struct store_instance *rows = NULL;
	int n = host_instances(c->d, host->id, &rows, e);
	const char *outcome;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		int r = instance_rescue(c->d, &rows[i], &outcome, e);

		if (r < 0)
			return r;
		(void)json_array_append_new(
			outcomes, json_pack("{s:s,s:s,s:s}", "id", rows[i].id, "name", rows[i].name,
					  "outcome", outcome));
	}
	return 0;
}

int route_hosts_fence(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_JSON json_t *outcomes = json_array();
	struct store_host host = {0};
	int r = find(c, &host, e);

	if (r < 0)
		return r;
	if (host_heard(c->d, &host)) {
		(void)err_set(e, ERR_CONFLICT, "host %s is heard of: it is not off", host.name);
		return err_hint(e, "drain it, or switch it off first");
	}
	/* Should it come back nevertheless, its agent is nobody until it joins again. */
	r = host_revoke(c->d, host.id, "", e);
	if (r == 0)
		r = rescue_all(c, &host, outcomes, e);
	if (r == 0)
		r = event_add(c->d->store, "", "host.fenced", host.id,
			json_pack("{s:s}", "name", host.name), e);
	if (r == 0)
		*ret = json_pack("{s:s,s:O}", "host", host.name, "instances", outcomes);
	return r;
}

int route_hosts_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_host host = {0};
	int r = find(c, &host, e);

	(void)ret;
	if (r == 0)
		r = call_match(c, host.revision, e);
	if (r == 0)
		r = host_revoke(c->d, host.id, "", e);
	if (r == 0)
		r = store_host_delete(c->d->store, host.id, e);
	if (r < 0)
		return r;
	return event_add(
		c->d->store, "", "host.deleted", host.id, json_pack("{s:s}", "name", host.name), e);
}

static void add(struct store_resources *sum, uint64_t cores, uint64_t memory, uint64_t disk)
{
	sum->cores += cores;
	sum->memory += memory;
	sum->disk += disk;
}

int route_capacity(struct call *c, json_t **ret, struct err *e)
{
	struct store_resources total = {0}, free_now = {0};
	CLEANUP_FLEET struct fleet fleet = {0};
	json_t *list;
	int r = fleet_read(c->d, &fleet, e);

	if (r < 0)
		return r;
	list = json_array();
	for (size_t i = 0; i < fleet.n; i++) {
		const struct store_host *h = &fleet.hosts[i];
		const char *closed = fleet.view[i].closed;

		add(&total, h->cores, h->memory, h->disk);
		if (!closed)
			add(&free_now, h->cores_free, h->memory_free, h->disk_free);
		(void)json_array_append_new(
			list, json_pack("{s:s,s:s,s:o,s:o,s:o}", "name", h->name, "zone", h->zone,
				      "closed", json_or_null(closed ? closed : ""), "resources",
				      resources(h->cores, h->memory, h->disk), "free",
				      resources(h->cores_free, h->memory_free, h->disk_free)));
	}
	*ret = json_pack("{s:o,s:o,s:o}", "total", resources(total.cores, total.memory, total.disk),
		"available", resources(free_now.cores, free_now.memory, free_now.disk), "hosts",
		list);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What there is and what happened: status, events, audit.
 */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "sosied/feed.h"
#include "sosied/hosts.h"
#include "sosied/instances.h"
#include "sosied/routes.h"

#define JOURNAL_PAGE 200
#define COUNT_PAGE   500

/* Adds one to the object's number under that name. */
static void count(json_t *counts, const char *name)
{
	json_int_t n = json_integer_value(json_object_get(counts, name));

	(void)json_object_set_new(counts, name, json_integer(n + 1));
}

static int count_instances(struct call *c, json_t *counts, struct err *e)
{
	CLEANUP_FREE struct store_instance *rows = zalloc(COUNT_PAGE, sizeof(*rows));
	char tenant_id[STORE_ID_SIZE] = "", id[STORE_ID_SIZE] = "";
	const struct store_page after = {tenant_id, id};
	int n;

	if (!rows)
		return err_errno(e, -ENOMEM, "count instances");
	do {
		n = store_instance_list(c->d->store, c->scope, "", "", &after, rows, COUNT_PAGE, e);
		for (int i = 0; i < n; i++)
			count(counts, instance_state(c->d, &rows[i]));
		if (n == COUNT_PAGE) {
			COPY(tenant_id, rows[n - 1].tenant_id);
			COPY(id, rows[n - 1].id);
		}
	} while (n == COUNT_PAGE);
	return n < 0 ? n : 0;
}

int route_status(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_JSON json_t *instances = json_object(), *hosts = json_object();
	CLEANUP_FLEET struct fleet fleet = {0};
	uint64_t revision = 0;
	int r = count_instances(c, instances, e);

	if (r == 0)
		r = store_revision(c->d->store, &revision, e);
	if (r == 0 && call_is_provider(c)) {
		r = fleet_read(c->d, &fleet, e);
		for (size_t i = 0; i < fleet.n; i++)
			count(hosts, fleet.view[i].closed ? fleet.view[i].closed : "online");
	}
	if (r == 0)
		*ret = json_pack("{s:s,s:o,s:O,s:O?}", "version", SOSIE_VERSION, "revision",
			json_u64(revision), "instances", instances, "hosts",
			call_is_provider(c) ? hosts : NULL);
	return r;
}

static int parse_since(const char *text, uint64_t *ret, struct err *e)
{
	if (text && parse_u64(text, INT64_MAX, ret) < 0)
		return err_set(e, ERR_INVALID, "'%.32s' is not a revision", text);
	return 0;
}

static json_t *event_view(const struct store_event *event)
{
	json_t *data = json_loads(event->data, 0, NULL);

	return json_pack("{s:o,s:o,s:o,s:s,s:s,s:o}", "revision", json_u64(event->revision), "time",
		json_time(event->at), "tenant", json_or_null(event->tenant_id), "kind", event->kind,
		"subject", event->subject, "data", data ? data : json_null());
}

static int events_page(struct call *c, uint64_t since, json_t **ret, struct err *e)
{
	CLEANUP_FREE struct store_event *rows = zalloc(JOURNAL_PAGE, sizeof(*rows));
	json_t *items;
	int n;

	if (!rows)
		return err_errno(e, -ENOMEM, "read events");
	n = store_event_since(c->d->store, c->scope, since, rows, JOURNAL_PAGE, e);
	if (n < 0)
		return n;
	items = json_array();
	for (int i = 0; i < n; i++)
		(void)json_array_append_new(items, event_view(&rows[i]));
	*ret = json_pack("{s:o,s:o}", "items", items, "next",
		n == JOURNAL_PAGE ? json_u64(rows[n - 1].revision) : json_null());
	return 0;
}

int route_events(struct call *c, json_t **ret, struct err *e)
{
	const char *since = http_header(c->request, "Last-Event-ID");
	uint64_t revision = 0;
	int r = 0;

	if (!since)
		since = http_query(c->request, "since");
	if (!since && !http_query(c->request, "poll"))
		r = store_revision(c->d->store, &revision, e);
	if (r == 0)
		r = parse_since(since, &revision, e);
	if (r < 0)
		return r;
	if (http_query(c->request, "poll"))
		return events_page(c, revision, ret, e);
	return feed_events(c, revision, e);
}

int route_audit(struct call *c, json_t **ret, struct err *e)
{
	CLEANUP_FREE struct store_audit *rows = zalloc(JOURNAL_PAGE, sizeof(*rows));
	uint64_t since = 0;
	json_t *items;
	int n = parse_since(http_query(c->request, "since"), &since, e);

	if (n < 0)
		return n;
	if (!rows)
		return err_errno(e, -ENOMEM, "read the audit log");
	n = store_audit_since(c->d->store, c->scope, since, rows, JOURNAL_PAGE, e);
	if (n < 0)
		return n;
	items = json_array();
	for (int i = 0; i < n; i++)
		(void)json_array_append_new(
			items, json_pack("{s:o,s:o,s:o,s:o,s:s,s:s,s:s,s:i,s:s}", "revision",
				       json_u64(rows[i].revision), "time", json_time(rows[i].at),
				       "tenant", json_or_null(rows[i].tenant_id), "token",
				       json_or_null(rows[i].token_id), "role", rows[i].role,
				       "method", rows[i].method, "path", rows[i].path, "status",
				       (int)rows[i].status, "remote", rows[i].remote));
	*ret = json_pack("{s:o,s:o}", "items", items, "next",
		n == JOURNAL_PAGE ? json_u64(rows[n - 1].revision) : json_null());
	return 0;
}

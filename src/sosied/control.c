/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens by itself: hosts that are silent for too long are given up as offline, histories
 * are trimmed, streams are kept alive. Everything else is done by whoever brings it about.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "sosied/feed.h"
#include "sosied/hosts.h"
#include "sosied/sessions.h"

#define TICK_NS         ((uint64_t)NSEC_PER_SEC)
#define HEARTBEAT_TICKS 15
#define TRIM_TICKS      3600
#define EVENTS_KEPT_NS  (7ULL * 86400 * NSEC_PER_SEC)
#define AUDIT_KEPT_NS   (90ULL * 86400 * NSEC_PER_SEC)
#define HOSTS_PAGE      256

struct control {
	struct sosied *d;
	sd_event_source *tick;
	uint64_t ticks;
	uint64_t looked_ns; /* CLOCK_REALTIME, at hosts */
};

static bool heard_at(const struct sosied *d, const struct store_host *host, uint64_t now_ns)
{
	/* While this process was away nobody could be heard. */
	return host->last_seen != 0 &&
	       MAX(host->last_seen, d->started_ns) + d->host_timeout_ns > now_ns;
}

bool host_heard(const struct sosied *d, const struct store_host *host)
{
	return heard_at(d, host, realtime_ns(d));
}

static int give_up(struct sosied *d, const char *host_id, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host h = {0};
	int r = store_begin(d->store, STORE_WRITE, &t, e);

	if (r == 0)
		r = store_host_get(d->store, host_id, &h, e);
	if (r < 0)
		return r;
	/* It may have spoken between the look and this transaction. */
	if (host_heard(d, &h))
		return 0;
	if (h.state == STORE_HOST_ONLINE) {
		h.state = STORE_HOST_OFFLINE;
		r = store_host_update(d->store, &h, e);
	}
	if (r == 0)
		r = event_add(
			d->store, "", "host.offline", h.id, json_pack("{s:s}", "name", h.name), e);
	if (r == 0)
		r = host_turned(d, &h, "instance.unknown", e);
	if (r == 0)
		r = store_commit(&t, e);
	if (r == 0)
		log_control(LOG_WARNING, "host is offline", " host=%s", h.name);
	return r;
}

/* A host that drains has no state to change: its going silent is told at the moment it happens. */
static bool went_silent(const struct control *k, const struct store_host *h, uint64_t now_ns)
{
	if (heard_at(k->d, h, now_ns))
		return false;
	return h->state == STORE_HOST_ONLINE ||
	       (h->state == STORE_HOST_DRAINING && heard_at(k->d, h, k->looked_ns));
}

static void look_at_hosts(struct control *k)
{
	CLEANUP_FREE struct store_host *rows = zalloc(HOSTS_PAGE, sizeof(*rows));
	uint64_t now_ns = realtime_ns(k->d);
	char id[STORE_ID_SIZE] = "";
	const struct store_page after = {NULL, id};
	struct err e = {0};
	int n = 0, r = 0;

	do {
		n = rows ? store_host_list(k->d->store, &after, rows, HOSTS_PAGE, &e) : -1;
		for (int i = 0; i < n; i++) {
			if (went_silent(k, &rows[i], now_ns))
				r = give_up(k->d, rows[i].id, &e);
			if (r < 0)
				log_control(LOG_ERROR, "host not given up", " host=%s error=%s",
					rows[i].name, log_quote(e.message));
			r = 0;
		}
		if (n == HOSTS_PAGE)
			COPY(id, rows[n - 1].id);
	} while (n == HOSTS_PAGE);
	if (n < 0)
		log_control(LOG_ERROR, "hosts not read", " error=%s", log_quote(e.message));
	k->looked_ns = now_ns;
}

static void trim(struct sosied *d)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	uint64_t now_ns = realtime_ns(d);
	struct err e = {0};
	int r = store_begin(d->store, STORE_WRITE, &t, &e);

	if (r == 0)
		r = store_event_trim(d->store, now_ns - EVENTS_KEPT_NS, &e);
	if (r == 0)
		r = store_audit_trim(d->store, now_ns - AUDIT_KEPT_NS, &e);
	if (r == 0)
		r = store_commit(&t, &e);
	if (r < 0)
		log_control(LOG_ERROR, "histories not trimmed", " error=%s", log_quote(e.message));
}

static int on_tick(void *userdata)
{
	struct control *k = userdata;

	look_at_hosts(k);
	sessions_tick(k->d);
	if (k->ticks % TRIM_TICKS == 0)
		trim(k->d);
	if (++k->ticks % HEARTBEAT_TICKS == 0)
		feed_heartbeat(k->d);
	/* Another process may have changed the store. */
	feed_kick(k->d);
	return 0;
}

void control_free(struct control *k)
{
	if (!k)
		return;
	loop_drop(&k->tick);
	free(k);
}

int control_start(struct sosied *d, struct err *e)
{
	struct control *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_errno(e, -ENOMEM, "start the controllers");
	*k = (struct control){.d = d, .looked_ns = realtime_ns(d)};
	d->control = k;
	r = loop_every(d->event, TICK_NS, on_tick, k, &k->tick);
	return r < 0 ? err_errno(e, r, "start the controllers") : 0;
}

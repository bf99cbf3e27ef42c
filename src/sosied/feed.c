/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whoever waits is a watcher. A commit kicks the feed, which looks once at all watchers when the
 * loop comes round, however many commits there were: revisions tell each what it has not seen, so
 * nothing needs to be handed from the change to the watcher, and a change made by another process
 * is found as well, at the next tick.
 *
 * A stream is fed only as fast as its client takes: with more than STREAM_AHEAD bytes on their
 * way it is left alone until the next look, so that a long history does not cut its reader off.
 */
#include "sosied/feed.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "sosied/desired.h"

#define STREAM_AHEAD (64U << 10)
#define STREAM_PAGE  32
#define STREAM_AGAIN (20 * (uint64_t)NSEC_PER_MSEC)
#define STREAM_LOOKS 1000 /* pages for one stream in one look */

struct watcher {
	struct sosied *d;
	struct watcher *previous, *next;
	struct http_request *request;
	char token_id[STORE_ID_SIZE];
	char host_id[STORE_ID_SIZE]; /* "": an event stream */
	char tenant_id[STORE_ID_SIZE];
	bool all;       /* tenants */
	uint64_t known; /* desired revision, or last event sent */
	sd_event_source *timer;
};

struct feed {
	struct watcher *watchers;
	unsigned int count;
	sd_event_source *look;
	sd_event_source *again;
	uint64_t revision; /* of the store at the last look */
	bool must_look;
};

static void watcher_free(struct watcher *w)
{
	struct feed *feed = w->d->feed;

	if (w->next)
		w->next->previous = w->previous;
	if (w->previous)
		w->previous->next = w->next;
	else
		feed->watchers = w->next;
	feed->count--;
	loop_drop(&w->timer);
	free(w);
}

static void on_gone(struct http_request *request, void *userdata)
{
	(void)request;
	watcher_free(userdata);
}

static struct watcher *watcher_new(struct call *c, struct err *e)
{
	struct feed *feed = c->d->feed;
	struct watcher *w;

	if (feed->count >= WATCHERS_MAX) {
		(void)err_set(e, ERR_LIMIT, "%u clients wait for changes already", feed->count);
		return NULL;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		(void)err_errno(e, -ENOMEM, "wait for changes");
		return NULL;
	}
	*w = (struct watcher){.d = c->d, .next = feed->watchers, .request = c->request};
	COPY(w->token_id, c->token.id);
	if (w->next)
		w->next->previous = w;
	feed->watchers = w;
	feed->count++;
	return w;
}

static void look_again(struct sosied *d, uint64_t delay_ns)
{
	d->feed->must_look = true;
	(void)loop_rearm(d->feed->again, delay_ns);
}

static void end_stream(struct watcher *w)
{
	http_stream_end(w->request);
	watcher_free(w);
}

static int send_event(struct watcher *w, const struct store_event *event)
{
	CLEANUP_JSON json_t *data = json_loads(event->data, 0, NULL);
	CLEANUP_JSON json_t *j = json_pack("{s:I,s:o,s:o,s:s,s:s,s:o}", "revision",
		(json_int_t)event->revision, "time", json_time(event->at), "tenant",
		json_or_null(event->tenant_id), "kind", event->kind, "subject", event->subject,
		"data", data ? json_incref(data) : json_null());
	CLEANUP_FREE char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	char id[24];

	if (!text)
		return -ENOMEM;
	(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)event->revision);
	return http_stream_event(w->request, id, event->kind, text);
}

static void feed_stream(struct watcher *w)
{
	struct store_scope scope = w->all ? store_scope_all() : store_scope_tenant(w->tenant_id);
	CLEANUP_FREE struct store_event *page = zalloc(STREAM_PAGE, sizeof(*page));
	struct err e = {0};

	for (unsigned int look = 0; page && look < STREAM_LOOKS; look++) {
		int n;

		if (http_stream_backlog(w->request) > STREAM_AHEAD) {
			look_again(w->d, STREAM_AGAIN);
			return;
		}
		n = store_event_since(w->d->store, scope, w->known, page, STREAM_PAGE, &e);
		if (n < 0)
			log_control(
				LOG_ERROR, "events not read", " error=%s", log_quote(e.message));
		for (int i = 0; i < n; i++) {
			/* A client that is gone is told of by on_gone(). */
			if (send_event(w, &page[i]) < 0)
				return;
			w->known = page[i].revision;
		}
		if (n < STREAM_PAGE)
			return;
	}
	look_again(w->d, STREAM_AGAIN);
}

/* Reads all of the desired state in one view. */
static int read_desired(struct sosied *d, const char *host_id, json_t **ret, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_host host = {0};
	int r = store_begin(d->store, STORE_READ, &t, e);

	if (r == 0)
		r = store_host_get(d->store, host_id, &host, e);
	return r < 0 ? r : desired_state(d, &host, ret, e);
}

static void look_desired(struct watcher *w)
{
	struct store_host host = {0};
	struct err e = {.code = ERR_INTERNAL};
	json_t *desired = NULL;
	int r = store_host_get(w->d->store, w->host_id, &host, &e);

	if (r == 0 && host.desired_revision == w->known)
		return;
	if (r == 0)
		r = read_desired(w->d, w->host_id, &desired, &e);
	if (r < 0)
		http_answer_error(w->request, &e);
	else
		http_answer_json(w->request, 200, desired);
	watcher_free(w);
}

static void look(struct sosied *d)
{
	struct feed *feed = d->feed;
	struct watcher *next;
	uint64_t revision = 0;

	if (store_revision(d->store, &revision, NULL) == 0 && revision == feed->revision &&
		!feed->must_look)
		return;
	feed->revision = revision;
	feed->must_look = false;
	for (struct watcher *w = feed->watchers; w; w = next) {
		next = w->next;
		if (w->host_id[0])
			look_desired(w);
		else
			feed_stream(w);
	}
}

static int on_look(sd_event_source *source, void *userdata)
{
	(void)source;
	look(userdata);
	return 0;
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	look(userdata);
	return 0;
}

void feed_kick(struct sosied *d)
{
	(void)sd_event_source_set_enabled(d->feed->look, SD_EVENT_ONESHOT);
}

void feed_heartbeat(struct sosied *d)
{
	static const char comment[] = ":\n\n";

	for (struct watcher *w = d->feed->watchers; w; w = w->next)
		if (!w->host_id[0])
			(void)http_stream_push(w->request, comment, sizeof(comment) - 1);
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct watcher *w = userdata;

	(void)source;
	(void)usec;
	http_answer(w->request, 304, "application/json", "", 0);
	watcher_free(w);
	return 0;
}

int feed_events(struct call *c, uint64_t since, struct err *e)
{
	struct watcher *w = watcher_new(c, e);

	if (!w)
		return -EAGAIN;
	w->known = since;
	w->all = call_is_provider(c) && !http_query(c->request, "tenant");
	COPY(w->tenant_id, c->tenant.id);
	http_stream_begin(c->request, NULL, on_gone, w);
	c->d->feed->must_look = true;
	feed_kick(c->d);
	return CALL_LATER;
}

int feed_desired(struct call *c, uint64_t known, unsigned int wait_s, struct err *e)
{
	struct watcher *w = watcher_new(c, e);
	int r;

	if (!w)
		return -EAGAIN;
	w->known = known;
	COPY(w->host_id, c->token.host_id);
	r = loop_after(c->d->event, wait_s * (uint64_t)NSEC_PER_SEC, on_timeout, w, &w->timer);
	if (r < 0) {
		watcher_free(w);
		return err_errno(e, r, "wait for changes");
	}
	http_defer(c->request, on_gone, w);
	return CALL_LATER;
}

void feed_revoke(struct sosied *d, const char *token_id)
{
	static const struct err revoked = {
		.code = ERR_UNAUTHENTICATED, .message = "the token has been revoked"};
	struct watcher *next;

	for (struct watcher *w = d->feed->watchers; w; w = next) {
		next = w->next;
		if (strcmp(w->token_id, token_id) != 0)
			continue;
		if (!w->host_id[0]) {
			end_stream(w);
			continue;
		}
		http_answer_error(w->request, &revoked);
		watcher_free(w);
	}
}

int feed_new(struct sosied *d, struct err *e)
{
	struct feed *feed = calloc(1, sizeof(*feed));
	int r = feed ? 0 : -ENOMEM;

	d->feed = feed;
	if (r == 0)
		r = sd_event_add_defer(d->event, &feed->look, on_look, d);
	if (r >= 0)
		r = loop_after(d->event, 0, on_again, d, &feed->again);
	return r < 0 ? err_errno(e, r, "watch for changes") : 0;
}

void feed_free(struct feed *feed)
{
	if (!feed)
		return;
	assert(!feed->watchers);
	loop_drop(&feed->look);
	loop_drop(&feed->again);
	free(feed);
}

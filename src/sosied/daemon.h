/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane's one process: what its parts share.
 *
 * Everything runs on one loop in one thread, on one connection to the store. A request is
 * dispatched, runs in one transaction, and is answered after the commit; what waits for a change
 * (agents, event feeds, sessions) is looked at once the loop comes round again. In memory is only
 * what may be lost: who waits, sessions, rates.
 */
#ifndef SOSIE_SOSIED_DAEMON_H
#define SOSIE_SOSIED_DAEMON_H

#include <limits.h>

#include "base/source.h"
#include "base/zalloc.h"
#include "io/http_server.h"
#include "io/loop.h"
#include "store/hosts.h"
#include "store/store.h"
#include "store/tenants.h"

#define HOST_TIMEOUT_DEFAULT_S 15
#define RATE_DEFAULT           500 /* requests a second and token */
#define REQUEST_BODY_MAX       (1U << 20)
#define SECRET_SIZE            80 /* a bearer token's text, with its NUL */

struct control;
struct feed;
struct sessions;
struct limiter;
struct digests;

struct sosied {
	sd_event *event;
	const struct source *source;
	struct store *store;
	struct http_server *server;
	char images[PATH_MAX]; /* folder of the images that were uploaded */
	uint64_t host_timeout_ns;
	uint64_t started_ns; /* CLOCK_REALTIME */
	struct limiter *limiter;
	struct feed *feed;
	struct sessions *sessions;
	struct digests *digests;
	struct control *control;
};

/* feed.c: whoever waits for changes of the store is looked at when the loop comes round. */
void feed_kick(struct sosied *d);

/* control.c */
int control_start(struct sosied *d, struct err *e);
void control_free(struct control *control);
/* Whether the host has been heard of within the time limit. */
bool host_heard(const struct sosied *d, const struct store_host *host);

static inline uint64_t realtime_ns(const struct sosied *d)
{
	return d->source->clock_ns(d->source->context, 0 /* CLOCK_REALTIME */);
}

static inline uint64_t monotonic_ns(const struct sosied *d)
{
	return d->source->clock_ns(d->source->context, 1 /* CLOCK_MONOTONIC */);
}

#endif

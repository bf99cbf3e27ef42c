/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Those who wait for changes: agents for their host's desired state, people for events.
 */
#ifndef SOSIE_SOSIED_FEED_H
#define SOSIE_SOSIED_FEED_H

#include "sosied/call.h"

/* More than hosts and their watchers; whoever comes then is told to come again. */
#define WATCHERS_MAX 1500

int feed_new(struct sosied *d, struct err *e);
/* The HTTP server must be gone. Accepts NULL. */
void feed_free(struct feed *feed);

/* Takes the request: a stream of the events in the call's scope behind `since`. */
int feed_events(struct call *c, uint64_t since, struct err *e);
/* Takes the request: the host's desired state once its revision is not `known` any more, or 304. */
int feed_desired(struct call *c, uint64_t known, unsigned int wait_s, struct err *e);
/* Ends whatever the token waits for. */
void feed_revoke(struct sosied *d, const char *token_id);
/* Lets streams show that they live. */
void feed_heartbeat(struct sosied *d);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP client: any number of calls at once on an sd-event loop, or one at a time, waiting, for
 * command-line tools. Redirects are not followed, proxies of the environment not used, and only
 * http and https spoken.
 *
 * Not thread-safe. The first use in a program initialises libcurl, which must happen before
 * threads are started.
 */
#ifndef SOSIE_IO_HTTP_CLIENT_H
#define SOSIE_IO_HTTP_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <systemd/sd-event.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macro.h"

#define HTTP_CALLS_MAX      256 /* at once by one client */
#define HTTP_CALL_HEADERS   16
#define HTTP_ETAG_MAX       128
#define HTTP_RESPONSE_MAX   (16U << 20) /* default of max_response */
#define HTTP_EVENT_LINE_MAX (64U << 10) /* one line of an event stream */
#define HTTP_EVENT_MAX      (1U << 20)  /* one event's data */
#define HTTP_EVENT_ID_MAX   128
#define HTTP_EVENT_NAME_MAX 64

/* One Server-Sent Event; valid during the callback. */
struct http_event {
	const char *id;   /* the last id told, "" when none was */
	const char *name; /* "message" when it has none */
	const char *data; /* its lines joined by newlines */
	size_t size;      /* of data */
};

/*
 * A negative errno ends the call with it. It runs inside libcurl: no call of the same client may be
 * started or cancelled from here.
 */
typedef int (*http_event_fn)(const struct http_event *event, void *userdata);

/* A negative errno ends the call with it. Rules as for http_event_fn. */
typedef int (*http_data_fn)(const void *bytes, size_t n, void *userdata);

/* One call; read when it is started, not kept. NULL or zero means the default, in brackets. */
struct http_call {
	const char *method;       /* ["GET"] */
	const char *url;          /* http://… or https://… */
	const char *unix_path;    /* connect there, whatever host the URL names */
	const char *ca_file;      /* PEM: trust these alone [the system's] */
	const char *bearer;       /* token */
	const char *content_type; /* of body ["application/json"] */
	const void *body;         /* copied */
	size_t body_size;
	/* Or a file, read from where it stands; of body_size bytes. It stays the caller's. */
	FILE *body_file;
	const char *headers[HTTP_CALL_HEADERS]; /* further ones, "Name: value" */
	uint64_t connect_timeout_ns;            /* [10 s] */
	/* The whole call [60 s]; UINT64_MAX: none, as for long polls and streams. */
	uint64_t timeout_ns;
	unsigned int stall_s; /* give up after so long without a byte [none] */
	size_t max_response;  /* bytes of body [HTTP_RESPONSE_MAX] */
	/*
	 * When set, and the answer is 200 with text/event-stream, its events come here, and the
	 * reply's body stays empty; max_response does not apply.
	 */
	http_event_fn on_event;
	void *on_event_userdata;
	/*
	 * When set, and the answer is 200, its body comes here as it arrives, for what is too large
	 * to be held; then as above. One of the two.
	 */
	http_data_fn on_data;
	void *on_data_userdata;
};

/* The outcome; valid during the callback, or until http_reply_free(). */
struct http_reply {
	unsigned int status; /* HTTP status, 0 when there was no answer */
	/*
	 * ERR_NONE for 2xx and 304. Otherwise what the server's error body says, or what its
	 * status stands for; or why there is no answer: ERR_UNAVAILABLE, ERR_TIMEOUT, …
	 */
	struct err err;
	char etag[HTTP_ETAG_MAX]; /* "" when there is none */
	unsigned int retry_after; /* seconds, 0 when not told */
	struct buf body;
};

void http_reply_free(struct http_reply *reply);
#define CLEANUP_REPLY CLEANUP(http_reply_free)

/* The reply's body as JSON. The caller drops the value. */
int http_reply_json(const struct http_reply *reply, json_t **ret, struct err *e);

struct http_client;
struct http_pending;

int http_client_new(sd_event *event, struct http_client **ret);
/* Cancels what is pending, without callbacks. Not from within a callback. NULL is accepted. */
void http_client_free(struct http_client *client);
DEFINE_CLEANUP(struct http_client *, http_client_free);

/* The call has ended, well or not; `pending` is gone. Never called from http_start(). */
typedef void (*http_done_fn)(const struct http_reply *reply, void *userdata);
/*
 * Starts a call. -EBUSY when HTTP_CALLS_MAX are under way. *ret (ret may be NULL) serves
 * http_cancel() until the callback.
 */
int http_start(struct http_client *client, const struct http_call *call, http_done_fn done,
	void *userdata, struct http_pending **ret);
/* Ends a call without a callback. Not from within a callback of that very call. */
void http_cancel(struct http_pending *pending);

/*
 * Makes one call and waits. 0 whenever there was an answer, good or not: then *ret is filled and
 * to be freed; the answer's own verdict is in ret->err. Otherwise the errno of *e.
 */
int http_call(const struct http_call *call, struct http_reply *ret, struct err *e);

/* The parser of event streams by itself: any bytes in any pieces. */
struct http_events {
	struct buf line, data;
	char id[HTTP_EVENT_ID_MAX], name[HTTP_EVENT_NAME_MAX];
	bool has_data, after_cr;
	http_event_fn callback;
	void *userdata;
};

void http_events_init(struct http_events *events, http_event_fn callback, void *userdata);
void http_events_free(struct http_events *events);
/* -E2BIG when a line or an event is too long; else 0 or what the callback returned. */
int http_events_feed(struct http_events *events, const void *bytes, size_t n);

#endif

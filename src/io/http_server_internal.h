/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by http_server.c (sockets, connections, the loop) and http_request.c (what a handler
 * sees of a request, and its answers).
 */
#ifndef SOSIE_IO_HTTP_SERVER_INTERNAL_H
#define SOSIE_IO_HTTP_SERVER_INTERNAL_H

#include <microhttpd.h>

#include "base/buf.h"
#include "io/http_server.h"
#include "io/loop.h"

/*
 *   HEAD ──> BODY ──> HANDLING ──┬──────────────> ANSWERED ──> freed by MHD's completion callback
 *     └───────┴── refused ──┐    └──> DEFERRED ──────^
 *                           └────────────────────────┘
 */
enum request_state {
	REQUEST_HEAD,     /* headers are not complete */
	REQUEST_BODY,     /* the body is arriving */
	REQUEST_HANDLING, /* within the handler, which has not answered yet */
	REQUEST_DEFERRED, /* the handler has returned, and will answer */
	REQUEST_ANSWERED, /* there is a response, perhaps a stream that still goes on */
};

struct http_request {
	struct connection *connection;
	enum request_state state;
	enum http_method method;
	const char *path; /* MHD's, valid until completion */
	struct buf body;
	/* Where the body goes instead, when part is set; release belongs to it. */
	http_part_fn part;
	void (*release)(void *userdata);
	void *part_userdata;
	uint64_t part_max, part_size;
	uint64_t drained;     /* body bytes thrown away because the request is refused */
	unsigned int refused; /* HTTP status, 0: not refused */
	struct err refusal;   /* why, when refused */
	bool suspended;       /* MHD does not look at the connection */
	bool cut;             /* the connection is to be closed without an answer */
	http_gone_fn gone;    /* NULL when the user is done with the request */
	void *userdata;       /* of gone */
	size_t headers;       /* used of the two tables below */
	char *header_names[HTTP_ANSWER_HEADERS_MAX];
	char *header_values[HTTP_ANSWER_HEADERS_MAX];
	unsigned int status;
	struct MHD_Response *response; /* until it is queued; NULL when ANSWERED: cut */
	bool streaming;
	bool ended;         /* nothing more will be pushed */
	struct buf backlog; /* pushed and, beyond `taken`, not yet taken by MHD */
	size_t taken;
};

struct connection {
	struct http_server *server;
	struct connection *previous, *next;
	struct MHD_Connection *mhd;
	int fd;                       /* MHD's */
	struct http_request *request; /* the one in progress, or NULL */
	sd_event_source *deadline;    /* for a whole request to arrive */
	sd_event_source *hangup;      /* while suspended: tells when the client leaves */
	char peer[HTTP_PEER_MAX];
	bool has_uid;
	uid_t uid;
};

struct http_server {
	sd_event *event;
	struct MHD_Daemon *daemon;
	sd_event_source *io;    /* MHD's epoll descriptor */
	sd_event_source *timer; /* MHD's next time-out, or at once when there is work */
	struct connection *connections;
	http_handler_fn handler;
	void *userdata;
	struct http_server_options options; /* defaults filled in; no strings */
	struct http_server_counters counters;
	char *unix_path;
	uint16_t port;
	bool again;    /* MHD has work that no descriptor tells of */
	bool running;  /* within MHD_run() */
	bool stopping; /* no request is handled any more */
};

/* http_server.c */
/* Lets MHD look at a suspended connection again. */
void http_request_resume(struct http_request *q);
/* Takes the connection out of MHD's sight; only from MHD's handler and reader callbacks. */
void http_request_suspend(struct http_request *q);

/* http_request.c */
struct http_request *http_request_new(struct connection *c);
/* Calls gone when the user still waits for something. */
void http_request_finish(struct http_request *q);
/* Marks the request as refused with this status; the first refusal stays. */
void http_request_refuse(struct http_request *q, unsigned int status, enum err_code code,
	const char *message, const char *hint);
/* Answers a refused request. */
void http_request_answer_refusal(struct http_request *q);

#endif

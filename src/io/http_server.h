/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1.1 server for one listening socket on an sd-event loop: small requests within limits,
 * answered at once, later, or as a stream of events.
 *
 * Not thread-safe: everything happens in the loop's thread. Pointers got from a request are
 * borrowed and live as long as it.
 */
#ifndef SOSIE_IO_HTTP_SERVER_H
#define SOSIE_IO_HTTP_SERVER_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

#define HTTP_METHOD_TABLE(X)     \
	X(HTTP_GET, "GET")       \
	X(HTTP_HEAD, "HEAD")     \
	X(HTTP_POST, "POST")     \
	X(HTTP_PUT, "PUT")       \
	X(HTTP_PATCH, "PATCH")   \
	X(HTTP_DELETE, "DELETE") \
	X(HTTP_OPTIONS, "OPTIONS")

enum http_method {
#define X(constant, name) constant,
	HTTP_METHOD_TABLE(X)
#undef X
		HTTP_METHODS
};

const char *http_method_name(enum http_method method);

/* Answer headers beside Content-Type that one request may set. */
#define HTTP_ANSWER_HEADERS_MAX 16
/* How much of a body that is too large is read on, to be able to answer 413. */
#define HTTP_DRAIN_MAX (1U << 20)
/* Longest text of http_peer(). */
#define HTTP_PEER_MAX 80

struct http_server;
struct http_request;

/*
 * Called for each whole request. It answers with one of the http_answer functions or
 * http_stream_begin(), or calls http_defer() and does so later. It must not free the server.
 */
typedef void (*http_handler_fn)(struct http_request *request, void *userdata);
/*
 * The client of a deferred or streaming request has gone, or the server is being freed: the
 * request must not be used after this call.
 */
typedef void (*http_gone_fn)(struct http_request *request, void *userdata);
/*
 * Called with a request's headers, before its body, so that a large body can be taken in pieces by
 * http_take_body() or be refused unread. A negative errno refuses the request with *e.
 */
typedef int (*http_head_fn)(struct http_request *request, void *userdata, struct err *e);
/* The next n bytes of a body. A negative errno refuses the request with *e. */
typedef int (*http_part_fn)(
	struct http_request *request, const void *bytes, size_t n, void *userdata, struct err *e);

/* Zero or NULL means the default, in brackets. */
struct http_server_options {
	/* Where to listen: either a unix socket's path … */
	const char *unix_path;  /* replaced when it is a socket that nobody listens on */
	unsigned int unix_mode; /* its permissions [0600] */
	/* … or a numeric IPv4 or IPv6 address and a port. */
	const char *address;       /* ["127.0.0.1"] */
	uint16_t port;             /* [one that is free: http_server_port()] */
	const char *tls_cert_file; /* PEM chain and key: both or neither [no TLS] */
	const char *tls_key_file;

	size_t max_body;              /* bytes; above: 413 [1 MiB] */
	size_t max_header;            /* bytes of request line and headers; above: 431 [16 KiB] */
	size_t max_url;               /* bytes of path and query; above: 414 [4 KiB] */
	unsigned int max_connections; /* more wait in the listen queue [256] */
	/*
	 * A connection that has not delivered a whole request within this time from its start or
	 * from the end of its last answer is closed, however busy; and so is one whose client
	 * takes in nothing of an answer for as long. Seconds [30].
	 */
	unsigned int timeout_s;
	size_t max_backlog; /* bytes a stream may be behind its client [256 KiB] */
	http_head_fn head;  /* [none] */
};

/* Counters since the start. */
#define HTTP_SERVER_COUNTER_TABLE(X)                                              \
	X(connections, "connections accepted")                                    \
	X(requests, "whole requests given to the handler")                        \
	X(refused, "requests answered with an error before the handler")          \
	X(timeouts, "connections closed for not delivering a request in time")    \
	X(gone, "clients that left before their deferred answer or stream ended") \
	X(slow, "streams ended because the client was too far behind")

struct http_server_counters {
#define X(name, meaning) uint64_t name;
	HTTP_SERVER_COUNTER_TABLE(X)
#undef X
};

/* Listens at once. options are copied as far as needed. */
int http_server_new(sd_event *event, const struct http_server_options *options,
	http_handler_fn handler, void *userdata, struct http_server **ret, struct err *e);
/*
 * Closes everything; requests still deferred or streaming are told by their gone callback. A unix
 * socket's path is removed. NULL is accepted.
 */
void http_server_free(struct http_server *server);
DEFINE_CLEANUP(struct http_server *, http_server_free);

/* The TCP port, 0 on a unix socket. */
uint16_t http_server_port(const struct http_server *server);
const struct http_server_counters *http_server_counters(const struct http_server *server);

enum http_method http_method(const struct http_request *request);
/* The decoded path, beginning with '/'; never holds NUL, control characters or a decoded '/'. */
const char *http_path(const struct http_request *request);
/* A query parameter, decoded ("" when it has no value), or NULL. */
const char *http_query(const struct http_request *request, const char *name);
/* A header by its name in any case, or NULL. */
const char *http_header(const struct http_request *request, const char *name);
/* The token of an "Authorization: Bearer" header, or NULL. */
const char *http_bearer(const struct http_request *request);
const void *http_body(const struct http_request *request, size_t *ret_size);
/* The body as JSON within its own size limit. The caller drops the value. */
int http_body_json(const struct http_request *request, json_t **ret, struct err *e);
/*
 * From within the head callback only: the body, of at most max bytes whatever max_body says, goes
 * to `part` instead of into memory, and the time limit counts from its last piece. The handler is
 * called at its end. release is called once when the request is over, however it ends.
 */
void http_take_body(struct http_request *request, uint64_t max, http_part_fn part,
	void (*release)(void *userdata), void *userdata);
/* What was given to http_take_body(), or NULL. */
void *http_taken_body(const struct http_request *request);
/* "127.0.0.1:4711", "[::1]:4711" or "unix:pid=1,uid=0", for logs. */
const char *http_peer(const struct http_request *request);
/* The user at the other end of a unix socket; false for TCP. */
bool http_peer_uid(const struct http_request *request, uid_t *ret);

/*
 * The answer comes later. gone is called if the client leaves before; a client that only shuts
 * down its sending side counts as having left.
 */
void http_defer(struct http_request *request, http_gone_fn gone, void *userdata);

/* Adds a header to the answer to come. -ENOBUFS beyond HTTP_ANSWER_HEADERS_MAX. */
int http_answer_header(struct http_request *request, const char *name, const char *value);
/*
 * Each of these answers the request, which must not be used afterwards. They always take it, so
 * that there is nothing to check: out of memory the connection is closed.
 */
void http_answer(struct http_request *request, unsigned int status, const char *content_type,
	const void *body, size_t n);
/* Takes the reference to value; NULL (out of memory while it was made) answers 500. */
void http_answer_json(struct http_request *request, unsigned int status, json_t *value);
/* The first n bytes of the file; fd is taken, whatever happens. */
void http_answer_file(struct http_request *request, unsigned int status, const char *content_type,
	int fd, uint64_t n);
/* {"error":…} with the HTTP status that the code stands for. */
void http_answer_error(struct http_request *request, const struct err *e);

/*
 * Answers 200 with an endless body, whose parts are sent as they are pushed, until
 * http_stream_end() or until gone is called; Server-Sent Events when content_type is NULL.
 */
void http_stream_begin(
	struct http_request *request, const char *content_type, http_gone_fn gone, void *userdata);
/*
 * Queues bytes. -ENOBUFS when the client is too far behind: it is cut off, and gone is called
 * soon, never from within this call. -EPIPE after that.
 */
int http_stream_push(struct http_request *request, const void *bytes, size_t n);
/*
 * Queues one Server-Sent Event; id and name may be NULL, and hold no newline (-EINVAL); each line
 * of data becomes a data line. Errors as http_stream_push().
 */
int http_stream_event(
	struct http_request *request, const char *id, const char *name, const char *data);
/* Bytes queued that the client has not taken yet: who has much to push waits for it to shrink. */
size_t http_stream_backlog(const struct http_request *request);
/* Ends the stream when everything queued is sent. The request must not be used afterwards. */
void http_stream_end(struct http_request *request);

#endif

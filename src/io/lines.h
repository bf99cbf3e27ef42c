/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON objects, one a line, both ways over a stream socket on an sd-event loop: how the programs
 * of one host talk to each other.
 *
 * Not thread-safe.
 */
#ifndef SOSIE_IO_LINES_H
#define SOSIE_IO_LINES_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

#define LINES_LINE_MAX    (256U << 10) /* one message */
#define LINES_BACKLOG_MAX (1U << 20)   /* sent but not yet taken by the other end */

struct lines;

struct lines_callbacks {
	/* A message, borrowed. */
	void (*message)(struct lines *lines, const json_t *message, void *userdata);
	/*
	 * The connection has ended: ERR_UNAVAILABLE when the other end closed it, ERR_CORRUPT when
	 * it sent what is no message, ERR_TOO_LARGE when it does not take what is sent. Never
	 * called from within lines_send(). The only call after it is lines_free(), possible from
	 * here.
	 */
	void (*closed)(struct lines *lines, const struct err *e, void *userdata);
};

/* Takes possession of the connected socket on success. */
int lines_open(sd_event *event, int fd, const struct lines_callbacks *callbacks, void *userdata,
	struct lines **ret);
/* Closes; what was not yet taken by the kernel is lost. From any callback. NULL is accepted. */
void lines_free(struct lines *lines);
DEFINE_CLEANUP(struct lines *, lines_free);

/*
 * Sends a message. The reference is always taken; NULL is -ENOMEM. -ENOBUFS when the other end is
 * LINES_BACKLOG_MAX behind: the connection ends, and closed is called soon. -EPIPE after that.
 */
int lines_send(struct lines *lines, json_t *message);
/* Bytes sent that the kernel has not taken yet. */
size_t lines_backlog(const struct lines *lines);

#endif

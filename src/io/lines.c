/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A callback may free the connection: it is then only marked, and goes away when the outermost
 * entry from the loop returns, each of which holds it with `entered`.
 */
#include "io/lines.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "io/json.h"
#include "io/loop.h"

#define READ_BLOCK (16U << 10)
/* Reads at one wake-up, so that one busy peer does not starve the loop. */
#define READS_MAX 16

struct lines {
	int fd;
	sd_event_source *io;
	sd_event_source *failure; /* tells of a failed send from the loop */
	struct lines_callbacks callbacks;
	void *userdata;
	struct buf input, output;
	bool closed, freed;
	unsigned int entered;
};

static void destroy(struct lines *l)
{
	loop_drop(&l->io);
	loop_drop(&l->failure);
	if (l->fd >= 0)
		(void)close(l->fd);
	buf_free(&l->input);
	buf_free(&l->output);
	free(l);
}

void lines_free(struct lines *l)
{
	if (!l)
		return;
	l->freed = true;
	if (l->entered == 0)
		destroy(l);
}

static void leave(struct lines *l)
{
	if (--l->entered == 0 && l->freed)
		destroy(l);
}

static void close_with(struct lines *l, const struct err *e)
{
	if (l->closed || l->freed)
		return;
	l->closed = true;
	loop_drop(&l->io);
	loop_drop(&l->failure);
	(void)close(l->fd);
	l->fd = -1;
	if (l->callbacks.closed)
		l->callbacks.closed(l, e, l->userdata);
}

static void take_line(struct lines *l, const char *line, size_t n)
{
	const struct json_limits limits = {.max_bytes = LINES_LINE_MAX};
	CLEANUP_JSON json_t *message = NULL;
	struct err e, why;

	if (n == 0)
		return;
	if (json_parse(line, n, &limits, &message, &e) < 0 || !json_is_object(message)) {
		(void)err_set(
			&why, ERR_CORRUPT, "not a message: %s", message ? "no object" : e.message);
		close_with(l, &why);
		return;
	}
	l->callbacks.message(l, message, l->userdata);
}

static void take_lines(struct lines *l)
{
	size_t taken = 0;

	while (!l->closed && !l->freed) {
		const char *from = buf_text(&l->input) + taken;
		const char *end = memchr(from, '\n', l->input.size - taken);

		if (!end)
			break;
		taken += (size_t)(end - from) + 1;
		take_line(l, from, (size_t)(end - from));
	}
	buf_consume(&l->input, taken);
}

static void read_some(struct lines *l)
{
	char block[READ_BLOCK];
	struct err e;

	for (int i = 0; i < READS_MAX && !l->closed && !l->freed; i++) {
		ssize_t n = recv(l->fd, block, sizeof(block), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			(void)err_set(&e, ERR_UNAVAILABLE, "the other end closed the connection");
			close_with(l, &e);
			return;
		}
		if (buf_append(&l->input, block, (size_t)n) < 0) {
			(void)err_set(
				&e, ERR_CORRUPT, "a message of more than %u bytes", LINES_LINE_MAX);
			close_with(l, &e);
			return;
		}
		take_lines(l);
	}
}

/* A broken connection is noticed by reading, after what the other end still had to say. */
static void write_some(struct lines *l)
{
	ssize_t n = 0;

	if (l->output.size > 0)
		n = send(l->fd, l->output.data, l->output.size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		buf_consume(&l->output, (size_t)n);
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		buf_reset(&l->output);
	(void)sd_event_source_set_io_events(
		l->io, EPOLLIN | (l->output.size > 0 ? (uint32_t)EPOLLOUT : 0U));
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct lines *l = userdata;

	(void)source;
	(void)fd;
	l->entered++;
	if (events & EPOLLOUT)
		write_some(l);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_some(l);
	leave(l);
	return 0;
}

static int on_failure(sd_event_source *source, void *userdata)
{
	struct lines *l = userdata;
	struct err e;

	(void)source;
	l->entered++;
	(void)err_set(&e, ERR_TOO_LARGE, "the other end does not take what is sent to it");
	close_with(l, &e);
	leave(l);
	return 0;
}

int lines_open(sd_event *event, int fd, const struct lines_callbacks *callbacks, void *userdata,
	struct lines **ret)
{
	CLEANUP(lines_free_p) struct lines *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	*l = (struct lines){
		.fd = -1,
		.callbacks = *callbacks,
		.userdata = userdata,
		.input = BUF_INIT(LINES_LINE_MAX + READ_BLOCK),
		.output = BUF_INIT(LINES_BACKLOG_MAX),
	};
	r = sd_event_add_io(event, &l->io, fd, EPOLLIN, on_io, l);
	if (r < 0)
		return r;
	r = sd_event_add_defer(event, &l->failure, on_failure, l);
	if (r < 0)
		return r;
	r = sd_event_source_set_enabled(l->failure, SD_EVENT_OFF);
	if (r < 0)
		return r;
	l->fd = fd;
	*ret = TAKE_PTR(l);
	return 0;
}

int lines_send(struct lines *l, json_t *message)
{
	CLEANUP_JSON json_t *own = message;
	CLEANUP_FREE char *text = NULL;
	int enabled = SD_EVENT_OFF;

	if (!own)
		return -ENOMEM;
	if (l->failure)
		(void)sd_event_source_get_enabled(l->failure, &enabled);
	if (l->closed || enabled != SD_EVENT_OFF)
		return -EPIPE;
	text = json_dumps(own, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	(void)buf_puts(&l->output, text);
	if (buf_putc(&l->output, '\n') < 0) {
		/* The backlog may end within a message now: nothing more goes out. */
		buf_reset(&l->output);
		(void)sd_event_source_set_enabled(l->failure, SD_EVENT_ONESHOT);
		return -ENOBUFS;
	}
	write_some(l);
	return 0;
}

size_t lines_backlog(const struct lines *l)
{
	return l->output.size;
}

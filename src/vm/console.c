/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest is never held up: its output is always read, and a client that does not take it misses
 * some. Clients may be: while the guest does not take what was typed, nothing more is read from
 * them.
 */
#include "vm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "io/listen.h"
#include "io/loop.h"

#define READ_BLOCK 4096
/* The hole grows by whole pieces, so that it is not made anew for every line. */
#define HOLE_STEP (1U << 20)

struct client {
	struct console *console;
	int fd;
	sd_event_source *io;
	struct buf output;
};

struct console {
	sd_event *event;
	int guest, listener;
	sd_event_source *guest_io, *listener_io;
	struct buf input; /* typed, not yet taken by the guest */
	struct client clients[CONSOLE_CLIENTS_MAX];
	struct console_counters counters;
};

static void drop_client(struct client *c)
{
	loop_drop(&c->io);
	(void)close(c->fd);
	c->fd = -1;
	buf_free(&c->output);
	c->console->counters.clients--;
}

/* The clients are read while the guest has taken everything. */
static void watch(struct console *k)
{
	uint32_t clients = k->input.size > 0 ? 0U : (uint32_t)EPOLLIN;

	if (k->guest_io)
		(void)sd_event_source_set_io_events(
			k->guest_io, EPOLLIN | (k->input.size > 0 ? (uint32_t)EPOLLOUT : 0U));
	for (size_t i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
		struct client *c = &k->clients[i];

		if (c->fd >= 0)
			(void)sd_event_source_set_io_events(
				c->io, clients | (c->output.size > 0 ? (uint32_t)EPOLLOUT : 0U));
	}
}

/* -errno when the other end is gone. */
static int flush(int fd, struct buf *output)
{
	ssize_t n;

	if (output->size == 0)
		return 0;
	n = send(fd, output->data, output->size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	buf_consume(output, (size_t)n);
	return 0;
}

static void give(struct client *c, const char *bytes, size_t n)
{
	if (c->output.size + n > CONSOLE_BACKLOG_MAX) {
		c->console->counters.missed += n;
		return;
	}
	if (buf_append(&c->output, bytes, n) < 0 || flush(c->fd, &c->output) < 0)
		drop_client(c);
}

/* As recv(2). */
static ssize_t hear_guest(struct console *k)
{
	char block[READ_BLOCK];
	ssize_t n = recv(k->guest, block, sizeof(block), MSG_DONTWAIT);

	for (size_t i = 0; n > 0 && i < CONSOLE_CLIENTS_MAX; i++)
		if (k->clients[i].fd >= 0)
			give(&k->clients[i], block, (size_t)n);
	return n;
}

static int on_guest(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct console *k = userdata;
	ssize_t n;

	(void)source;
	if (events & EPOLLOUT && flush(fd, &k->input) < 0)
		buf_reset(&k->input);
	n = hear_guest(k);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		loop_drop(&k->guest_io);
	watch(k);
	return 0;
}

void console_drain(struct console *k)
{
	/* What a socket's buffer holds is bounded, and nobody writes any more. */
	while (hear_guest(k) > 0)
		;
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct client *c = userdata;
	struct console *k = c->console;
	char block[READ_BLOCK];
	ssize_t n = -1;

	(void)source;
	errno = EAGAIN;
	if (events & EPOLLOUT && flush(fd, &c->output) < 0)
		n = 0;
	else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		n = recv(fd, block, sizeof(block), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		drop_client(c);
	} else if (n > 0 && k->guest_io) {
		(void)buf_append(&k->input, block, (size_t)n);
		if (flush(k->guest, &k->input) < 0)
			buf_reset(&k->input);
	}
	watch(k);
	return 0;
}

static int on_connect(sd_event_source *source, int listener, uint32_t events, void *userdata)
{
	struct console *k = userdata;
	CLEANUP_CLOSE int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	size_t i = 0;

	(void)source;
	(void)events;
	if (fd < 0)
		return 0;
	while (i < CONSOLE_CLIENTS_MAX && k->clients[i].fd >= 0)
		i++;
	if (i == CONSOLE_CLIENTS_MAX || sd_event_add_io(k->event, &k->clients[i].io, fd, EPOLLIN,
						on_client, &k->clients[i]) < 0) {
		k->counters.refused++;
		return 0;
	}
	k->clients[i].fd = TAKE_FD(fd);
	k->clients[i].output = BUF_INIT(CONSOLE_BACKLOG_MAX);
	k->counters.clients++;
	watch(k);
	return 0;
}

int console_new(sd_event *event, int guest, const char *path, struct console **ret, struct err *e)
{
	CLEANUP(console_free_p) struct console *k = calloc(1, sizeof(*k));
	int r;

	if (!k) {
		(void)close(guest);
		return err_errno(e, -ENOMEM, "make the console");
	}
	k->event = sd_event_ref(event);
	k->guest = guest;
	k->listener = -1;
	k->input = BUF_INIT(2 * READ_BLOCK);
	for (size_t i = 0; i < CONSOLE_CLIENTS_MAX; i++)
		k->clients[i] = (struct client){.console = k, .fd = -1};
	r = listen_unix(path, 0600, &k->listener, e);
	if (r < 0)
		return r;
	r = sd_event_add_io(event, &k->guest_io, guest, EPOLLIN, on_guest, k);
	if (r >= 0)
		r = sd_event_add_io(event, &k->listener_io, k->listener, EPOLLIN, on_connect, k);
	if (r < 0)
		return err_errno(e, r, "watch the console");
	*ret = TAKE_PTR(k);
	return 0;
}

void console_free(struct console *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < CONSOLE_CLIENTS_MAX; i++)
		if (k->clients[i].fd >= 0)
			drop_client(&k->clients[i]);
	loop_drop(&k->guest_io);
	loop_drop(&k->listener_io);
	(void)close(k->guest);
	if (k->listener >= 0)
		(void)close(k->listener);
	buf_free(&k->input);
	(void)sd_event_unref(k->event);
	free(k);
}

struct console_counters console_counters(const struct console *k)
{
	return k->counters;
}

uint64_t console_log_trim(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	off_t hole;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	/* QEMU appends, so that places in the file keep their meaning. */
	hole = (st.st_size - (off_t)CONSOLE_LOG_KEPT) / HOLE_STEP * HOLE_STEP;
	if (hole > 0 && st.st_blocks * 512 > (off_t)(CONSOLE_LOG_KEPT + HOLE_STEP) &&
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, hole) < 0 &&
		errno == EOPNOTSUPP)
		(void)!ftruncate(fd, 0);
	return (uint64_t)st.st_size;
}

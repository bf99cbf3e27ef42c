/* SPDX-License-Identifier: Apache-2.0 */
#include "valued/link.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/reader.h"

#define NONCE        32
#define READ_AT_ONCE (256U << 10)
#define OVERHEAD     crypto_secretstream_xchacha20poly1305_ABYTES
#define HEADER       crypto_secretstream_xchacha20poly1305_HEADERBYTES

/*
 * What the link waits for next:
 *
 *   NONCE ──► HEADER ──► NAME ──► OPEN
 *      └────────┴──────────┴───────┴──► closed
 */
enum phase {
	WAIT_NONCE,
	WAIT_HEADER,
	WAIT_NAME,
	OPEN,
};

struct link {
	sd_event *event;
	sd_event_source *io, *deadline, *doomed;
	int fd;
	bool connecting; /* this end connected; else it accepted */
	enum phase phase;
	uint8_t key[LINK_KEY];
	uint8_t nonce[NONCE];
	char group[NAME_MAX_LENGTH + 1];
	crypto_secretstream_xchacha20poly1305_state tx, rx;
	struct buf in, out;
	struct link_callbacks callbacks;
	char why[64];
};

struct link *link_free(struct link *link)
{
	if (!link)
		return NULL;
	loop_drop(&link->io);
	loop_drop(&link->deadline);
	loop_drop(&link->doomed);
	if (link->fd >= 0)
		(void)close(link->fd);
	buf_free(&link->in);
	buf_free(&link->out);
	sodium_memzero(link, sizeof(*link));
	free(link);
	return NULL;
}

bool link_is_ready(const struct link *link)
{
	return link->phase == OPEN && !link->doomed;
}

size_t link_backlog(const struct link *link)
{
	return link->out.size;
}

static int say_closed(sd_event_source *source, void *userdata)
{
	struct link *link = userdata;

	(void)source;
	link->callbacks.closed(link->callbacks.context, link, link->why);
	(void)link_free(link);
	return 0;
}

/* Closes from a fresh stack, so that nobody finds the link freed under its feet. */
static void doom(struct link *link, const char *why)
{
	if (link->doomed)
		return;
	(void)snprintf(link->why, sizeof(link->why), "%s", why);
	(void)sd_event_source_set_enabled(link->io, SD_EVENT_OFF);
	if (sd_event_add_defer(link->event, &link->doomed, say_closed, link) < 0)
		(void)sd_event_exit(link->event, -ENOMEM);
}

static void update_interest(struct link *link)
{
	uint32_t events = EPOLLIN | (link->out.size > 0 ? (uint32_t)EPOLLOUT : 0);

	if (!link->doomed)
		(void)sd_event_source_set_io_events(link->io, events);
}

static void flush(struct link *link)
{
	while (link->out.size > 0) {
		ssize_t n = send(link->fd, link->out.data, link->out.size, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
			break;
		if (n < 0) {
			doom(link, strerror(errno));
			return;
		}
		buf_consume(&link->out, (size_t)n);
	}
	update_interest(link);
}

static int queue_message(struct link *link, const void *bytes, size_t n)
{
	size_t at = link->out.size, whole = n + OVERHEAD;
	uint8_t length[4];
	int r;

	put_u32(length, (uint32_t)whole);
	r = buf_append(&link->out, length, sizeof(length));
	/* Room for the ciphertext, which is then written in place. */
	if (r == 0)
		r = buf_append(&link->out, bytes, n);
	if (r == 0)
		r = buf_append(&link->out, (uint8_t[OVERHEAD]){0}, OVERHEAD);
	if (r < 0) {
		link->out.error = 0;
		return -ENOBUFS;
	}
	if (crypto_secretstream_xchacha20poly1305_push(
		    &link->tx, (uint8_t *)link->out.data + at + 4, NULL, bytes, n, NULL, 0, 0) != 0)
		return -EIO;
	return 0;
}

int link_send(struct link *link, const void *bytes, size_t n)
{
	if (!link_is_ready(link))
		return -ENOTCONN;
	if (n > LINK_MESSAGE_MAX || queue_message(link, bytes, n) < 0) {
		doom(link, "the other end does not read");
		return -ENOBUFS;
	}
	flush(link);
	return 0;
}

static void derive(const struct link *link, const uint8_t theirs[NONCE], char direction,
	uint8_t key[crypto_secretstream_xchacha20poly1305_KEYBYTES])
{
	static const char label[] = "sosie-link-1";
	crypto_generichash_state state;

	(void)crypto_generichash_init(&state, link->key, LINK_KEY, 32);
	(void)crypto_generichash_update(&state, (const uint8_t *)label, sizeof(label) - 1);
	(void)crypto_generichash_update(&state, link->connecting ? link->nonce : theirs, NONCE);
	(void)crypto_generichash_update(&state, link->connecting ? theirs : link->nonce, NONCE);
	(void)crypto_generichash_update(&state, (const uint8_t *)&direction, 1);
	(void)crypto_generichash_final(&state, key, 32);
}

/* Their random bytes are here: our stream begins, with the name that proves us. */
static int take_nonce(struct link *link, const uint8_t theirs[NONCE])
{
	uint8_t key[32], header[HEADER];
	int r;

	derive(link, theirs, link->connecting ? 'c' : 'a', key);
	(void)crypto_secretstream_xchacha20poly1305_init_push(&link->tx, header, key);
	r = buf_append(&link->out, header, sizeof(header));
	if (r == 0)
		r = queue_message(link, link->group, strlen(link->group));
	/* Kept until their header arrives. */
	derive(link, theirs, link->connecting ? 'a' : 'c', key);
	memcpy(link->nonce, key, sizeof(link->nonce));
	sodium_memzero(key, sizeof(key));
	link->phase = WAIT_HEADER;
	return r;
}

static int open_frame(struct link *link, const uint8_t *sealed, size_t n)
{
	static _Thread_local uint8_t *plain; /* one buffer: messages are looked at one at a time */
	unsigned long long length;
	unsigned char tag;

	if (!plain)
		plain = malloc(LINK_MESSAGE_MAX);
	if (!plain)
		return -ENOMEM;
	if (crypto_secretstream_xchacha20poly1305_pull(
		    &link->rx, plain, &length, &tag, sealed, n, NULL, 0) != 0)
		return -EBADMSG;
	if (link->phase == OPEN)
		return link->callbacks.message(
			link->callbacks.context, link, plain, (size_t)length);
	if (length != strlen(link->group) || memcmp(plain, link->group, (size_t)length) != 0)
		return -EACCES;
	link->phase = OPEN;
	loop_drop(&link->deadline);
	link->callbacks.ready(link->callbacks.context, link);
	return 0;
}

/* Takes one thing from the input. 1 when it did, 0 when more must come first. */
static int take(struct link *link)
{
	struct reader r = reader_init(link->in.data, link->in.size);
	const uint8_t *bytes;
	uint32_t n;
	int result;

	switch (link->phase) {
	case WAIT_NONCE:
		bytes = reader_bytes(&r, NONCE);
		if (!bytes)
			return 0;
		result = take_nonce(link, bytes);
		break;
	case WAIT_HEADER:
		bytes = reader_bytes(&r, HEADER);
		if (!bytes)
			return 0;
		result = crypto_secretstream_xchacha20poly1305_init_pull(
				 &link->rx, bytes, link->nonce)
				 ? -EBADMSG
				 : 0;
		sodium_memzero(link->nonce, sizeof(link->nonce));
		link->phase = WAIT_NAME;
		break;
	case WAIT_NAME:
	case OPEN:
	default:
		n = reader_u32(&r);
		if (r.failed)
			return 0;
		if (n < OVERHEAD || n > LINK_MESSAGE_MAX + OVERHEAD)
			return -EBADMSG;
		bytes = reader_bytes(&r, n);
		if (!bytes)
			return 0;
		result = open_frame(link, bytes, n);
	}
	if (result < 0)
		return result;
	buf_consume(&link->in, link->in.size - r.left);
	return 1;
}

static const char *explain(const struct link *link, int r)
{
	if (link->phase != OPEN)
		return "the other end does not hold the key";
	return r == -EBADMSG ? "malformed message" : strerror(-r);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	static _Thread_local char chunk[READ_AT_ONCE];
	struct link *link = userdata;
	ssize_t n;
	int r;

	(void)source;
	if (events & EPOLLOUT)
		flush(link);
	if (link->doomed || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return 0;
	n = recv(fd, chunk, sizeof(chunk), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		doom(link, n < 0 ? strerror(errno) : "the other end closed");
		return 0;
	}
	r = buf_append(&link->in, chunk, (size_t)n);
	while (r >= 0 && !link->doomed) {
		r = take(link);
		if (r <= 0)
			break;
	}
	if (r < 0)
		doom(link, explain(link, r));
	else
		flush(link);
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	doom(userdata, "no proof of the key in time");
	return 0;
}

int link_new(sd_event *event, int fd, bool connecting, const uint8_t key[LINK_KEY],
	const char *group, const struct link_callbacks *callbacks, struct link **ret)
{
	struct link *link = calloc(1, sizeof(*link));
	const int on = 1;
	int r;

	if (!link) {
		(void)close(fd);
		return -ENOMEM;
	}
	link->event = event;
	link->fd = fd;
	link->connecting = connecting;
	link->callbacks = *callbacks;
	link->in = BUF_INIT(LINK_MESSAGE_MAX + READ_AT_ONCE + 64);
	link->out = BUF_INIT(LINK_BACKLOG_MAX);
	memcpy(link->key, key, LINK_KEY);
	(void)snprintf(link->group, sizeof(link->group), "%s", group);
	randombytes_buf(link->nonce, sizeof(link->nonce));
	/* A value that somebody waits for must not wait for company. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	r = buf_append(&link->out, link->nonce, sizeof(link->nonce));
	if (r == 0)
		r = sd_event_add_io(event, &link->io, fd, EPOLLIN | EPOLLOUT, on_io, link);
	if (r >= 0)
		r = loop_after(event, LINK_PROOF_NS, on_deadline, link, &link->deadline);
	if (r < 0) {
		(void)link_free(link);
		return r;
	}
	*ret = link;
	return 0;
}

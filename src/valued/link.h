/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An authenticated, encrypted connection between two hosts' value daemons over TCP.
 *
 * Both ends hold the group's link key. Each sends 32 random bytes; from them and the key come two
 * stream keys, one a direction:
 *
 *   BLAKE2b-256, keyed with the link key, of "sosie-link-1" || connecting end's 32 bytes ||
 *   accepting end's 32 bytes || 'c' (from the connecting end) or 'a' (from the accepting one)
 *
 * Then follow, in each direction, a libsodium secretstream (XChaCha20-Poly1305) header and frames:
 * u32 little-endian length, then that many bytes of ciphertext. The first message each way is the
 * group's name; whoever cannot say it encrypted does not hold the key and is closed. A recording
 * cannot be replayed, since the other end's random bytes are fresh.
 */
#ifndef SOSIE_VALUED_LINK_H
#define SOSIE_VALUED_LINK_H

#include "base/err.h"
#include "core/values/replica.h"
#include "io/loop.h"

#define LINK_KEY         32
#define LINK_MESSAGE_MAX (REPLICA_BATCH_MAX + 64)
/* What waits to be sent; a peer that lets more pile up is closed. */
#define LINK_BACKLOG_MAX (2 * LINK_MESSAGE_MAX)
/* An end that has not proven itself by then is closed. */
#define LINK_PROOF_NS (5 * NSEC_PER_SEC)

struct link;

struct link_callbacks {
	void *context;
	/* The other end has proven itself: messages can be sent from now on. */
	void (*ready)(void *context, struct link *link);
	/* One message. 0, or a negative errno: the link is closed. */
	int (*message)(void *context, struct link *link, const uint8_t *bytes, size_t n);
	/* The link is of no more use; it is freed when this returns. */
	void (*closed)(void *context, struct link *link, const char *why);
};

/* Takes the connected (or connecting) socket. Never calls back before it returns. */
int link_new(sd_event *event, int fd, bool connecting, const uint8_t key[LINK_KEY],
	const char *group, const struct link_callbacks *callbacks, struct link **ret);
/* Closes without calling back. NULL is fine. Returns NULL. */
struct link *link_free(struct link *link);
/* 0, or -ENOBUFS when the backlog is full: the link is then closed soon, with a callback. */
int link_send(struct link *link, const void *bytes, size_t n);
/* Bytes that wait to be sent. */
size_t link_backlog(const struct link *link);
bool link_is_ready(const struct link *link);

#endif

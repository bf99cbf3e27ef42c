/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All switches of a network share its key, which the control plane hands out. Each process seals
 * under its own sender id and a counter that only grows:
 *
 * - libsodium's XChaCha20-Poly1305 takes 24 bytes of nonce, so that a sender id can be drawn at
 *   random (16 bytes never meet again) beside a 64-bit counter. A process that starts anew draws
 *   anew: nothing about nonces has to survive it. With 12-byte nonces (AES-GCM) a restart would
 *   have to remember its counter durably, or repeat a nonce, which would give the key away.
 * - One call per packet, no contexts, no allocation; and no dependence on AES instructions.
 *
 * A sender is believed only after it has proven that it is live, or else whoever recorded packets
 * of an earlier process could play them to a receiver that does not know it:
 *
 *       sender S                             receiver
 *          │  DATA or HELLO, sender unknown      │
 *          ├────────────────────────────────────>│  dropped; remembers S and a fresh cookie
 *          │             CHALLENGE (S, cookie)   │
 *          │<────────────────────────────────────┤
 *          │  PROOF (cookie), counter c          │
 *          ├────────────────────────────────────>│  believes S from c on; forgets the sender
 *          │                                     │  that this peer had before, and the cookie
 *
 * Both sides do this for their own. HELLO goes out when a peer becomes known and every few seconds,
 * so that it is normally over before the first frame.
 *
 * Invariants:
 * 1. Of a peer (an address of the mapping) at most one sender is believed, and its replay window
 *    moves for packets only that opened under a key.
 * 2. A cookie is used once, and is random; so a PROOF cannot be played again.
 * 3. A packet from an address that is no peer's is not even opened.
 * 4. Of challenges, at most one in CHALLENGE_NS goes to a peer, and while one is fresh another
 *    sender does not replace it.
 */
#include "switch/tunnel.h"

#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/reader.h"
#include "io/loop.h"

#define RECEIVES_MAX   64 /* at one wake-up */
#define SOCKET_BYTES   (4 << 20)
#define HELLO_NS       (3 * NSEC_PER_SEC)
#define CHALLENGE_NS   (100 * NSEC_PER_MSEC)
#define CHALLENGE_SIZE (OVERLAY_SENDER + OVERLAY_COOKIE)
#define PLAIN_MAX      (VXLAN_HEADER + FRAME_MAX)

static_assert(KEY_SIZE == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "");
static_assert(OVERLAY_NONCE == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, "");
static_assert(OVERLAY_TAG == crypto_aead_xchacha20poly1305_ietf_ABYTES, "");

struct tunnel_peer {
	struct tunnel_peer *next; /* in its hash chain */
	struct address address;
	bool wanted;
	bool proven;
	uint8_t sender[OVERLAY_SENDER];
	struct replay_window window;
	uint64_t challenged_ns; /* 0: no cookie is out */
	uint8_t challenged[OVERLAY_SENDER];
	uint8_t cookie[OVERLAY_COOKIE];
};

#define PEER_BUCKETS 256

struct tunnel {
	int fd;
	sd_event_source *io, *hello;
	struct address address;
	tunnel_frame_fn on_frame;
	void *userdata;
	uint32_t vni;
	struct overlay_key key[KEYS_MAX];
	size_t key_count;
	uint8_t sender[OVERLAY_SENDER];
	uint64_t counter;
	struct tunnel_peer *bucket[PEER_BUCKETS];
	size_t peer_count;
	struct tunnel_counters counters;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

static size_t bucket_of(const struct address *a)
{
	const struct sockaddr_in *v4 = (const void *)&a->storage;
	const struct sockaddr_in6 *v6 = (const void *)&a->storage;
	uint32_t h;

	if (a->any.sa_family == AF_INET)
		h = v4->sin_addr.s_addr ^ v4->sin_port;
	else
		memcpy(&h, &v6->sin6_addr.s6_addr[12], sizeof(h));
	h *= 0x9e3779b1; /* Knuth's multiplicative hash: peers come from the control plane */
	return h >> 24;
}

static struct tunnel_peer *find_peer(const struct tunnel *t, const struct address *a)
{
	for (struct tunnel_peer *p = t->bucket[bucket_of(a)]; p; p = p->next)
		if (address_equal(&p->address, a))
			return p;
	return NULL;
}

/* Seals and sends n bytes (at most PLAIN_MAX). */
static int send_sealed(struct tunnel *t, const struct tunnel_peer *peer, enum overlay_kind kind,
	const uint8_t *plain, size_t n)
{
	const struct overlay_key *key = &t->key[0];
	struct overlay_header h = {
		.kind = (uint8_t)kind, .key_id = key->id, .counter = ++t->counter};
	uint8_t packet[OVERLAY_PACKET_MAX], nonce[OVERLAY_NONCE];
	unsigned long long sealed = 0;

	memcpy(h.sender, t->sender, sizeof(h.sender));
	overlay_header_put(packet, &h);
	overlay_nonce(nonce, &h);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(packet + OVERLAY_HEADER, &sealed, plain, n,
		packet, OVERLAY_HEADER, NULL, nonce, key->key);
	if (sendto(t->fd, packet, OVERLAY_HEADER + sealed, 0, &peer->address.any,
		    peer->address.size) < 0)
		return -errno;
	return 0;
}

void tunnel_send(struct tunnel *t, struct tunnel_peer *peer, const uint8_t *frame, size_t n)
{
	uint8_t plain[PLAIN_MAX];

	vxlan_put(plain, t->vni);
	memcpy(plain + VXLAN_HEADER, frame, n);
	if (send_sealed(t, peer, OVERLAY_DATA, plain, VXLAN_HEADER + n) < 0)
		t->counters.send_failed++;
	else
		t->counters.sent++;
}

static void challenge(struct tunnel *t, struct tunnel_peer *peer, const uint8_t *sender)
{
	uint8_t plain[CHALLENGE_SIZE];
	uint64_t now = now_ns();

	if (peer->challenged_ns != 0 && now - peer->challenged_ns < CHALLENGE_NS)
		return;
	peer->challenged_ns = now;
	memcpy(peer->challenged, sender, OVERLAY_SENDER);
	randombytes_buf(peer->cookie, OVERLAY_COOKIE);
	memcpy(plain, sender, OVERLAY_SENDER);
	memcpy(plain + OVERLAY_SENDER, peer->cookie, OVERLAY_COOKIE);
	/* Lost or refused, it is repeated when the sender speaks next. */
	if (send_sealed(t, peer, OVERLAY_CHALLENGE, plain, sizeof(plain)) == 0)
		t->counters.challenges++;
}

static void take_challenge(
	struct tunnel *t, const struct tunnel_peer *peer, const uint8_t *plain, size_t n)
{
	if (n != CHALLENGE_SIZE || memcmp(plain, t->sender, OVERLAY_SENDER) != 0)
		return;
	(void)send_sealed(t, peer, OVERLAY_PROOF, plain + OVERLAY_SENDER, OVERLAY_COOKIE);
}

static void take_proof(struct tunnel *t, struct tunnel_peer *peer, const struct overlay_header *h,
	const uint8_t *plain, size_t n)
{
	if (n != OVERLAY_COOKIE || peer->challenged_ns == 0 ||
		memcmp(h->sender, peer->challenged, OVERLAY_SENDER) != 0 ||
		sodium_memcmp(plain, peer->cookie, OVERLAY_COOKIE) != 0) {
		t->counters.unproven++;
		return;
	}
	peer->challenged_ns = 0;
	peer->proven = true;
	memcpy(peer->sender, h->sender, OVERLAY_SENDER);
	replay_window_init(&peer->window, h->counter);
	t->counters.proofs++;
}

static void take_data(struct tunnel *t, struct tunnel_peer *peer, uint8_t *plain, size_t n)
{
	uint32_t vni;

	if (vxlan_parse(plain, n, &vni) < 0) {
		t->counters.malformed++;
		return;
	}
	if (vni != t->vni) {
		t->counters.wrong_vni++;
		return;
	}
	t->counters.received++;
	t->on_frame(peer, plain + VXLAN_HEADER, n - VXLAN_HEADER, t->userdata);
}

/* An authentic packet of a sender that is not the believed one. */
static void take_from_stranger(struct tunnel *t, struct tunnel_peer *peer,
	const struct overlay_header *h, const uint8_t *plain, size_t n)
{
	switch (h->kind) {
	case OVERLAY_PROOF:
		take_proof(t, peer, h, plain, n);
		return;
	case OVERLAY_CHALLENGE:
		take_challenge(t, peer, plain, n);
		break;
	case OVERLAY_DATA:
		t->counters.unproven++;
		break;
	default:
		break;
	}
	challenge(t, peer, h->sender);
}

static const struct overlay_key *find_key(const struct tunnel *t, uint8_t id)
{
	for (size_t i = 0; i < t->key_count; i++)
		if (t->key[i].id == id)
			return &t->key[i];
	return NULL;
}

static int open_sealed(const struct overlay_key *key, const struct overlay_header *h,
	const uint8_t *packet, size_t n, uint8_t *plain, size_t *ret_size)
{
	uint8_t nonce[OVERLAY_NONCE];
	unsigned long long size = 0;

	overlay_nonce(nonce, h);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, &size, NULL, packet + OVERLAY_HEADER,
		    n - OVERLAY_HEADER, packet, OVERLAY_HEADER, nonce, key->key) != 0)
		return -EBADMSG;
	*ret_size = (size_t)size;
	return 0;
}

static void take_packet(
	struct tunnel *t, const struct address *from, const uint8_t *packet, size_t n)
{
	struct tunnel_peer *peer = find_peer(t, from);
	const struct overlay_key *key;
	struct overlay_header h;
	uint8_t plain[OVERLAY_PACKET_MAX];
	size_t size;

	if (!peer) {
		t->counters.unknown_peer++;
		return;
	}
	if (overlay_header_parse(packet, n, &h) < 0) {
		t->counters.malformed++;
		return;
	}
	key = find_key(t, h.key_id);
	if (!key) {
		t->counters.unknown_key++;
		return;
	}
	if (open_sealed(key, &h, packet, n, plain, &size) < 0) {
		t->counters.forged++;
		return;
	}
	if (!peer->proven || memcmp(h.sender, peer->sender, OVERLAY_SENDER) != 0) {
		take_from_stranger(t, peer, &h, plain, size);
		return;
	}
	if (!replay_window_take(&peer->window, h.counter)) {
		t->counters.replayed++;
		return;
	}
	if (h.kind == OVERLAY_DATA)
		take_data(t, peer, plain, size);
	else if (h.kind == OVERLAY_CHALLENGE)
		take_challenge(t, peer, plain, size);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct tunnel *t = userdata;
	uint8_t packet[OVERLAY_PACKET_MAX];

	(void)source;
	(void)revents;
	for (int i = 0; i < RECEIVES_MAX; i++) {
		struct address from = {.size = sizeof(from.storage)};
		ssize_t n = recvfrom(fd, packet, sizeof(packet), MSG_TRUNC, &from.any, &from.size);

		/* What ICMP said about an earlier packet comes as an error too. */
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			continue;
		if ((size_t)n > sizeof(packet))
			t->counters.malformed++;
		else
			take_packet(t, &from, packet, (size_t)n);
	}
	return 0;
}

static int say_hello(void *userdata)
{
	struct tunnel *t = userdata;

	for (size_t i = 0; i < PEER_BUCKETS; i++)
		for (const struct tunnel_peer *p = t->bucket[i]; p; p = p->next)
			(void)send_sealed(t, p, OVERLAY_HELLO, NULL, 0);
	return 0;
}

void tunnel_set_keys(struct tunnel *t, uint32_t vni, const struct overlay_key *keys, size_t count)
{
	t->vni = vni;
	t->key_count = count;
	memcpy(t->key, keys, count * sizeof(*keys));
}

void tunnel_peers_begin(struct tunnel *t)
{
	for (size_t i = 0; i < PEER_BUCKETS; i++)
		for (struct tunnel_peer *p = t->bucket[i]; p; p = p->next)
			p->wanted = false;
}

struct tunnel_peer *tunnel_peer(struct tunnel *t, const struct address *address)
{
	struct tunnel_peer *p = find_peer(t, address), **bucket = &t->bucket[bucket_of(address)];

	if (!p) {
		if (t->peer_count == PEERS_MAX)
			return NULL;
		p = calloc(1, sizeof(*p));
		if (!p)
			return NULL;
		p->address = *address;
		p->next = *bucket;
		*bucket = p;
		t->peer_count++;
	}
	p->wanted = true;
	return p;
}

void tunnel_peers_end(struct tunnel *t)
{
	for (size_t i = 0; i < PEER_BUCKETS; i++) {
		struct tunnel_peer **link = &t->bucket[i];

		while (*link) {
			struct tunnel_peer *p = *link;

			if (p->wanted) {
				link = &p->next;
				continue;
			}
			*link = p->next;
			free(p);
			t->peer_count--;
		}
	}
	(void)say_hello(t);
}

const struct address *tunnel_address(const struct tunnel *t)
{
	return &t->address;
}

const struct tunnel_counters *tunnel_counters(const struct tunnel *t)
{
	return &t->counters;
}

const struct tunnel_peer *tunnel_next_peer(const struct tunnel *t, const struct tunnel_peer *p)
{
	size_t i = 0;

	if (p && p->next)
		return p->next;
	if (p)
		i = bucket_of(&p->address) + 1;
	for (; i < PEER_BUCKETS; i++)
		if (t->bucket[i])
			return t->bucket[i];
	return NULL;
}

const struct address *tunnel_peer_address(const struct tunnel_peer *p)
{
	return &p->address;
}

bool tunnel_peer_is_proven(const struct tunnel_peer *p)
{
	return p->proven;
}

void tunnel_free(struct tunnel *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < PEER_BUCKETS; i++)
		while (t->bucket[i]) {
			struct tunnel_peer *p = t->bucket[i];

			t->bucket[i] = p->next;
			free(p);
		}
	loop_drop(&t->io);
	loop_drop(&t->hello);
	if (t->fd >= 0)
		(void)close(t->fd);
	explicit_bzero(t, sizeof(*t));
	free(t);
}

/* Guests are told an MTU that fits; the host's network is told never to fragment. */
static int set_options(int fd, int family)
{
	const int v4 = IP_PMTUDISC_PROBE, v6 = IPV6_PMTUDISC_PROBE, bytes = SOCKET_BYTES;
	int r;

	/* Less than asked for is no error. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	if (family == AF_INET)
		r = setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof(v4));
	else
		r = setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof(v6));
	return r < 0 ? -errno : 0;
}

int tunnel_new(sd_event *event, const struct address *listen, tunnel_frame_fn on_frame,
	void *userdata, struct tunnel **ret)
{
	CLEANUP(tunnel_free_p) struct tunnel *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->on_frame = on_frame;
	t->userdata = userdata;
	t->address = (struct address){.size = sizeof(t->address.storage)};
	randombytes_buf(t->sender, sizeof(t->sender));
	t->fd = socket(listen->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (t->fd < 0)
		return -errno;
	r = set_options(t->fd, listen->any.sa_family);
	if (r < 0)
		return r;
	if (bind(t->fd, &listen->any, listen->size) < 0 ||
		getsockname(t->fd, &t->address.any, &t->address.size) < 0)
		return -errno;
	r = sd_event_add_io(event, &t->io, t->fd, EPOLLIN, on_io, t);
	if (r >= 0)
		r = loop_every(event, HELLO_NS, say_hello, t, &t->hello);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(t);
	return 0;
}

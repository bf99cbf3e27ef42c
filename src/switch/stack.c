/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libslirp wants to be asked before each poll(2) which descriptors it waits for, and to be told
 * afterwards what they are ready for. Here its descriptors sit in an epoll descriptor of the
 * stack's own, on which the loop waits, and they are asked for only after the stack was touched:
 * an idle stack costs nothing, however many there are.
 *
 *   stack_input(), or events or the timer ──> touched ── at the loop's next turn ──> refill()
 *
 * Invariants:
 * 1. watch[fd].events is what the inner epoll holds for fd, 0 for nothing. libslirp says when it
 *    is about to close a descriptor, whose number may be used again at once.
 * 2. Slots are numbered anew by each refill; watch[fd].slot is valid while watch[fd].round is the
 *    last refill's.
 * 3. libslirp's idea of the time moves only in slirp_pollfds_poll(), so that a stack that has been
 *    idle is polled before it gets input, or it would time new sockets from the distant past.
 * 4. Nothing is given to libslirp from within its own callbacks; ARP requests of it wait for the
 *    next turn. Its ARP table holds 16 addresses, so that it asks again and again, and the answer
 *    is always the same: who is where is the switch's business.
 */
#include "switch/stack.h"

#include <errno.h>
#include <slirp/libslirp.h>
#include <sys/epoll.h>
#include <time.h>

#include "core/net/frame.h"
#include "io/loop.h"

#define EVENTS_MAX 256
#define ASKED_MAX  64 /* ARP requests waiting; libslirp repeats those that got lost */

struct watch {
	uint32_t events;
	uint32_t round;
	int slot;
};

struct slot {
	int fd;
	int revents;
};

struct stack {
	Slirp *slirp;
	struct mac mac;
	stack_output_fn output;
	void *userdata;
	int epoll;
	sd_event_source *io, *refill, *timer;
	bool touched;
	struct watch *watch; /* by descriptor */
	size_t watch_count;
	uint32_t round;
	struct slot slot[STACK_SOCKETS_MAX];
	int slot_count;
	uint32_t asked[ASKED_MAX];
	size_t asked_count;
};

static const struct {
	int slirp;
	uint32_t epoll;
} event_table[] = {
	{SLIRP_POLL_IN, EPOLLIN},
	{SLIRP_POLL_OUT, EPOLLOUT},
	{SLIRP_POLL_PRI, EPOLLPRI},
	{SLIRP_POLL_ERR, EPOLLERR},
	{SLIRP_POLL_HUP, EPOLLHUP},
};

static void touch(struct stack *s)
{
	if (s->touched)
		return;
	s->touched = true;
	(void)sd_event_source_set_enabled(s->refill, SD_EVENT_ONESHOT);
}

static int get_revents(int index, void *opaque)
{
	const struct stack *s = opaque;

	return index >= 0 && index < s->slot_count ? s->slot[index].revents : 0;
}

static void poll_slirp(struct stack *s)
{
	slirp_pollfds_poll(s->slirp, 0, get_revents, s);
	for (int i = 0; i < s->slot_count; i++)
		s->slot[i].revents = 0;
}

/* libslirp's callbacks. */

static ssize_t on_packet(const void *bytes, size_t n, void *opaque)
{
	struct stack *s = opaque;
	uint8_t copy[FRAME_MAX];
	struct frame f;

	if (n > sizeof(copy))
		return (ssize_t)n;
	memcpy(copy, bytes, n);
	if (frame_parse(copy, n, &f) < 0)
		return (ssize_t)n;
	if (f.type == ETHERTYPE_IP4) {
		s->output(copy, f.size, s->userdata);
	} else if (f.arp.operation == ARP_REQUEST && s->asked_count < ASKED_MAX) {
		s->asked[s->asked_count++] = f.arp.target_ip;
		touch(s);
	}
	return (ssize_t)n;
}

static void on_guest_error(const char *message, void *opaque)
{
	(void)message;
	(void)opaque;
}

static int64_t on_clock(void *opaque)
{
	struct timespec now;

	(void)opaque;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

static void on_register(int fd, void *opaque)
{
	(void)fd;
	touch(opaque);
}

static void unwatch(struct stack *s, int fd)
{
	if ((size_t)fd >= s->watch_count || s->watch[fd].events == 0)
		return;
	s->watch[fd].events = 0;
	(void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static void on_unregister(int fd, void *opaque)
{
	unwatch(opaque, fd);
}

static void on_notify(void *opaque)
{
	touch(opaque);
}

static const SlirpCb callbacks = {
	.send_packet = on_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	/* The timers are for IPv6 router advertisements, which are off. */
	.register_poll_fd = on_register,
	.unregister_poll_fd = on_unregister,
	.notify = on_notify,
};

static int grow(struct stack *s, int fd)
{
	size_t count = MAX((size_t)fd + 1, 2 * s->watch_count);
	struct watch *watch;

	if ((size_t)fd < s->watch_count)
		return 0;
	watch = reallocarray(s->watch, count, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	memset(watch + s->watch_count, 0, (count - s->watch_count) * sizeof(*watch));
	s->watch = watch;
	s->watch_count = count;
	return 0;
}

/* Invariant 1 holds even for a descriptor whose closing libslirp did not tell of. */
static int watch_fd(const struct stack *s, int fd, bool known, struct epoll_event *event)
{
	if (epoll_ctl(s->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, event) == 0)
		return 0;
	if (known && errno == ENOENT && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, event) == 0)
		return 0;
	return -errno;
}

/* libslirp waits for this; -1 when it cannot be had, and libslirp then leaves it out this time. */
static int add_poll(int fd, int events, void *opaque)
{
	struct stack *s = opaque;
	struct epoll_event event = {.data.fd = fd};
	struct watch *w;

	if (fd < 0 || s->slot_count == STACK_SOCKETS_MAX || grow(s, fd) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(event_table); i++)
		if (events & event_table[i].slirp)
			event.events |= event_table[i].epoll;
	w = &s->watch[fd];
	if (w->events != event.events && watch_fd(s, fd, w->events != 0, &event) < 0)
		return -1;
	w->events = event.events;
	w->round = s->round;
	w->slot = s->slot_count;
	s->slot[s->slot_count] = (struct slot){.fd = fd};
	return s->slot_count++;
}

static void answer_asked(struct stack *s)
{
	uint8_t frame[ETHERNET_HEADER + ARP_SIZE];

	if (s->asked_count == 0)
		return;
	for (size_t i = 0; i < s->asked_count; i++) {
		size_t n = frame_arp_reply(frame, s->mac, s->asked[i], s->mac, 0);

		slirp_input(s->slirp, frame, (int)n);
	}
	s->asked_count = 0;
	poll_slirp(s); /* sends what waited for the answers */
}

static int on_refill(sd_event_source *source, void *userdata)
{
	struct stack *s = userdata;
	uint32_t timeout_ms = UINT32_MAX;
	static int before[STACK_SOCKETS_MAX]; /* one thread, and never nested */
	int count = s->slot_count;

	(void)source;
	answer_asked(s);
	s->touched = false;
	for (int i = 0; i < count; i++)
		before[i] = s->slot[i].fd;
	s->round++;
	s->slot_count = 0;
	slirp_pollfds_fill(s->slirp, &timeout_ms, add_poll, s);
	for (int i = 0; i < count; i++)
		if (s->watch[before[i]].round != s->round)
			unwatch(s, before[i]);
	if (timeout_ms == UINT32_MAX)
		return sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
	return loop_rearm(s->timer, (uint64_t)timeout_ms * NSEC_PER_MSEC);
}

static int on_ready(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct stack *s = userdata;
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(fd, events, EVENTS_MAX, 0);

	(void)source;
	(void)revents;
	for (int i = 0; i < n; i++) {
		const struct watch *w = &s->watch[events[i].data.fd];

		if (w->round != s->round)
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(event_table); k++)
			if (events[i].events & event_table[k].epoll)
				s->slot[w->slot].revents |= event_table[k].slirp;
	}
	poll_slirp(s);
	touch(s);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t planned, void *userdata)
{
	struct stack *s = userdata;

	(void)source;
	(void)planned;
	poll_slirp(s);
	touch(s);
	return 0;
}

void stack_free(struct stack *s)
{
	if (!s)
		return;
	if (s->slirp)
		slirp_cleanup(s->slirp);
	loop_drop(&s->io);
	loop_drop(&s->refill);
	loop_drop(&s->timer);
	if (s->epoll >= 0)
		(void)close(s->epoll);
	free(s->watch);
	free(s);
}

static struct in_addr in_addr_of(uint32_t ip)
{
	return (struct in_addr){.s_addr = htonl(ip)};
}

static int add_sources(struct stack *s, sd_event *event)
{
	int r;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0)
		return -errno;
	r = sd_event_add_io(event, &s->io, s->epoll, EPOLLIN, on_ready, s);

	if (r >= 0)
		r = sd_event_add_defer(event, &s->refill, on_refill, s);
	if (r >= 0)
		r = loop_after(event, 0, on_timer, s, &s->timer);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
	return MIN(r, 0);
}

int stack_new(sd_event *event, const struct stack_options *options, stack_output_fn output,
	void *userdata, struct stack **ret)
{
	struct stack *s = calloc(1, sizeof(*s));
	const SlirpConfig config = {
		.version = 4,
		.restricted = options->isolated,
		.in_enabled = true,
		.vnetwork = in_addr_of(options->network.network),
		.vnetmask = in_addr_of(options->network.mask),
		.vhost = in_addr_of(options->host),
		.vnameserver = in_addr_of(options->nameserver),
		.if_mtu = options->mtu,
		.if_mru = options->mtu,
		.disable_host_loopback = options->isolated,
		.disable_dns = options->nameserver == 0,
		.disable_dhcp = true,
	};
	int r;

	if (!s)
		return -ENOMEM;
	s->mac = options->mac;
	s->output = output;
	s->userdata = userdata;
	s->touched = true; /* a defer source starts enabled */
	r = add_sources(s, event);
	if (r == 0) {
		s->slirp = slirp_new(&config, &callbacks, s);
		r = s->slirp ? 0 : -ENOMEM;
	}
	if (r < 0) {
		stack_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void stack_input(struct stack *s, const uint8_t *frame, size_t n)
{
	if (!s->touched)
		poll_slirp(s);
	touch(s);
	slirp_input(s->slirp, frame, (int)n);
}

bool stack_is_full(const struct stack *s)
{
	return s->slot_count == STACK_SOCKETS_MAX;
}

int stack_publish(
	struct stack *s, bool udp, uint32_t address, uint16_t host_port, uint32_t ip, uint16_t port)
{
	errno = 0;
	if (slirp_add_hostfwd(s->slirp, udp, in_addr_of(address), host_port, in_addr_of(ip), port) <
		0)
		return errno ? -errno : -EINVAL;
	touch(s);
	return 0;
}

void stack_unpublish(struct stack *s, bool udp, uint32_t address, uint16_t host_port)
{
	(void)slirp_remove_hostfwd(s->slirp, udp, in_addr_of(address), host_port);
	touch(s);
}

int stack_serve(struct stack *s, const char *path, uint32_t ip, uint16_t port)
{
	struct in_addr address = in_addr_of(ip);

	return slirp_add_unix(s->slirp, path, &address, port) < 0 ? -EINVAL : 0;
}

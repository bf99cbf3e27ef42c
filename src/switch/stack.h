/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libslirp on an sd-event loop: a user-space TCP/IP stack that turns a guest's connections into
 * sockets of this process, and the other way round. Used once per network for the way out, and
 * once per NIC for the metadata service.
 *
 * Addresses are in host byte order. Not thread-safe.
 */
#ifndef SOSIE_SWITCH_STACK_H
#define SOSIE_SWITCH_STACK_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "core/net/addr.h"

#define STACK_SOCKETS_MAX 8192 /* beyond, new connections are refused */

struct stack;

struct stack_options {
	struct cidr network;
	uint32_t host;       /* the stack's own address; it leads to this host's 127.0.0.1 */
	uint32_t nameserver; /* leads to the resolver of /etc/resolv.conf; 0: none */
	struct mac mac;      /* at which the stack believes everybody to be */
	uint16_t mtu;
	bool isolated; /* nothing is reached but what stack_serve() names */
};

/*
 * An IPv4 frame for a guest, whose Ethernet addresses mean nothing; the bytes are the stack's, and
 * may be written to during the call. stack_input() may not be called from it.
 */
typedef void (*stack_output_fn)(uint8_t *frame, size_t n, void *userdata);

int stack_new(sd_event *event, const struct stack_options *options, stack_output_fn output,
	void *userdata, struct stack **ret);
/* Closes all connections. NULL is accepted. */
void stack_free(struct stack *s);
DEFINE_CLEANUP(struct stack *, stack_free);

/* An IPv4 frame from a guest. */
void stack_input(struct stack *s, const uint8_t *frame, size_t n);
bool stack_is_full(const struct stack *s);

/* Listens at the host's address and leads to the guest's. */
int stack_publish(struct stack *s, bool udp, uint32_t address, uint16_t host_port, uint32_t ip,
	uint16_t port);
void stack_unpublish(struct stack *s, bool udp, uint32_t address, uint16_t host_port);
/* Each TCP connection of a guest to ip:port becomes one to the unix socket at path. */
int stack_serve(struct stack *s, const char *path, uint32_t ip, uint16_t port);

#endif

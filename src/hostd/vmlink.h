/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's connection to one sosie-vm: its events in order, requests, and the moment it is gone.
 */
#ifndef SOSIE_HOSTD_VMLINK_H
#define SOSIE_HOSTD_VMLINK_H

#include <jansson.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

struct vmlink;

struct vmlink_callbacks {
	/* The answer to the question asked at the start and by vmlink_ask(). */
	void (*status)(struct vmlink *link, const json_t *status, void *userdata);
	/*
	 * An event, in order. 0 takes it for good; a negative errno does not, and it is offered
	 * again after a while.
	 */
	int (*event)(struct vmlink *link, uint64_t sequence, const json_t *event, void *userdata);
	/* A request was refused. */
	void (*refused)(struct vmlink *link, const struct err *e, void *userdata);
	/* sosie-vm has ended, and so has its QEMU. Only vmlink_free() may follow. */
	void (*gone)(struct vmlink *link, void *userdata);
};

/*
 * Connects to vm.sock in the folder and asks for the status, then for the events from `from` on.
 * ERR_UNAVAILABLE or ERR_NOT_FOUND when nobody listens there.
 */
int vmlink_open(sd_event *event, int folder, uint64_t from,
	const struct vmlink_callbacks *callbacks, void *userdata, struct vmlink **ret,
	struct err *e);
void vmlink_free(struct vmlink *link);
DEFINE_CLEANUP(struct vmlink *, vmlink_free);

void vmlink_ask(struct vmlink *link);
int vmlink_stop(struct vmlink *link, bool force);
int vmlink_reboot(struct vmlink *link, uint64_t count);

#endif

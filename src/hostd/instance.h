/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One instance on this host: what is desired of it, where it stands, and what is under way.
 */
#ifndef SOSIE_HOSTD_INSTANCE_H
#define SOSIE_HOSTD_INSTANCE_H

#include <jansson.h>

#include "hostd/host.h"
#include "hostd/image.h"
#include "hostd/lifecycle.h"
#include "hostd/vmlink.h"

#define INSTANCE_NICS_MAX   8
#define INSTANCE_REASON_MAX 512
/* Until something that failed for a reason that may pass is tried again. */
#define INSTANCE_COOLING_NS (2 * NSEC_PER_SEC)
/* While an earlier agent's sosie-vm is just starting. */
#define INSTANCE_ADOPT_NS    (50 * NSEC_PER_MSEC)
#define INSTANCE_ADOPT_TRIES 200

/* What the control plane wants it to be, taken over when it is prepared or started. */
struct instance_plan {
	struct image_name image;
	uint64_t cores, memory_mib, disk_bytes;
	char cpu[256];
	size_t nics;
	char macs[INSTANCE_NICS_MAX][18];
	char invalid[INSTANCE_REASON_MAX]; /* why it cannot be had; "" when it can */
};

struct instance {
	struct instance *next;
	struct host *host;
	char id[NAME_MAX_LENGTH + 1];
	enum life_state state;
	enum life_want want;
	struct instance_plan plan;
	bool desired;             /* the control plane still knows it */
	uint64_t starts, reboots; /* asked for */
	uint64_t starts_done, reboots_done;
	bool prepared, latched, forced, cooling;
	bool adopting; /* whether it runs is not known yet */
	unsigned int tries;
	char reason[INSTANCE_REASON_MAX];
	uint64_t since_ns;

	int folder; /* -1 when there is none */
	struct helper *helper;
	struct vmlink *link;
	int ready; /* where sosie-vm tells how its start went, or -1 */
	char ready_text[1024];
	size_t ready_size;
	sd_event_source *ready_io, *timer;

	/* What its events and status have told. */
	bool began, ended, failure, asked_end;
	bool undrained; /* its record could not be taken to the end */
	char end_reason[INSTANCE_REASON_MAX];
	char cgroup[512];
	char boot_id[40];
	int64_t pid, console_bytes;
};

/* In the host's list. NULL when out of memory or at HOST_INSTANCES_MAX. */
struct instance *instance_new(struct host *host, const char *id);
/* Lets go of it: what runs goes on. Out of the list. */
void instance_free(struct instance *instance);

/* Takes over an entry of the desired state, which has an id and a valid "state". */
void instance_desire(struct instance *instance, const json_t *entry);
/* Finds out where an instance stands whose folder was there when the agent started. */
void instance_adopt(struct instance *instance);
/* Does what is next. */
void instance_reconcile(struct instance *instance);
/* Asks what only changes slowly. */
void instance_refresh(struct instance *instance);
/* As in docs/agent-protocol.md. NULL when out of memory. */
json_t *instance_observed(const struct instance *instance);

#endif

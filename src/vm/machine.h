/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine under supervision, from QEMU's start to the entry that says why it ended.
 *
 * Not thread-safe; one per process, whose current directory is the machine's folder.
 */
#ifndef SOSIE_VM_MACHINE_H
#define SOSIE_VM_MACHINE_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "io/record.h"
#include "vm/spec.h"

/* Entries that wait for a full disk; more are counted and lost, but never the last one. */
#define MACHINE_PENDING_MAX 256
#define MACHINE_RETRY_NS    (NSEC_PER_SEC / 2)
/* Of the events file: beyond it the older half goes, taken by the agent or not. */
#define MACHINE_EVENTS_MAX (16U << 20)
/* For QEMU to do what it must be able to, whatever the guest does. */
#define MACHINE_QMP_NS (10 * NSEC_PER_SEC)

/*
 *   STARTING ──> RUNNING ──> STOPPING ──> ENDED ──> WRITTEN
 *       │           └─────────────────────^ ^
 *       ├───────────────> STOPPING          │
 *       └───────────────────────────────────┘
 */
#define MACHINE_STATE_TABLE(X)                                             \
	X(MACHINE_STARTING, "starting") /* the guest was not let go yet */ \
	X(MACHINE_RUNNING, "running")                                      \
	X(MACHINE_STOPPING, "stopping") /* an end was asked for */         \
	X(MACHINE_ENDED, "ended")       /* QEMU is gone */                 \
	X(MACHINE_WRITTEN, "written")   /* … and that is written down */

enum machine_state {
#define X(constant, name) constant,
	MACHINE_STATE_TABLE(X)
#undef X
		MACHINE_STATES
};

struct machine;

struct machine_callbacks {
	/* The guest runs. */
	void (*running)(struct machine *machine, void *userdata);
	/* An entry has been written into the record. */
	void (*written)(struct machine *machine, void *userdata);
	/* The state is WRITTEN. The sentence says why it ended. */
	void (*ended)(struct machine *machine, bool failure, const char *sentence, void *userdata);
};

/* The record is borrowed. */
int machine_start(sd_event *event, const struct vm_spec *spec, struct record *record,
	const struct machine_callbacks *callbacks, void *userdata, struct machine **ret,
	struct err *e);
/* QEMU, if it still runs, is killed and not waited for. NULL is accepted. */
void machine_free(struct machine *machine);
DEFINE_CLEANUP(struct machine *, machine_free);

/*
 * Asks the guest to power off (its power button), and does so by force when it has not within
 * the grace period; or by force at once. Asking again with force hastens it.
 */
int machine_stop(struct machine *machine, bool force, struct err *e);
/*
 * Asks the guest to reboot (Ctrl-Alt-Del), and resets it when it has not within the grace period;
 * or resets it at once. count: how many reboots have been asked for, this one included; one that
 * was done already is not done again. ERR_CONFLICT when the guest is not running.
 */
int machine_reboot(struct machine *machine, bool force, uint64_t count, struct err *e);
/* What the agent is told. NULL when out of memory. */
json_t *machine_status(const struct machine *machine);

#endif

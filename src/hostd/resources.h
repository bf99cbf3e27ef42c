/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host has to give.
 */
#ifndef SOSIE_HOSTD_RESOURCES_H
#define SOSIE_HOSTD_RESOURCES_H

#include <jansson.h>

#include "base/err.h"
#include "base/macro.h"

struct resources {
	uint64_t cores;
	uint64_t memory_bytes;
	uint64_t disk_bytes; /* of the state folder's file system: all that is not others' */
	char cpu_model[128];
};

/*
 * Measures: processors that this process may run on, memory, and the file system that holds the
 * directory. `offered`, where not 0, replaces what was measured, for hosts that are to give a part
 * only, or several agents on one machine.
 */
int resources_read(
	int directory, const struct resources *offered, struct resources *ret, struct err *e);
/* As in docs/agent-protocol.md. NULL when out of memory. */
json_t *resources_json(const struct resources *resources);
/* The kernel's identity of the time since it was started: out holds 37 bytes. */
#define BOOT_ID_SIZE 37
int read_boot_id(char out[BOOT_ID_SIZE], struct err *e);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control group (version 2) of the guest's own, beside that of sosie-vm, which bounds QEMU's
 * memory, processor time and number of threads.
 *
 * It needs a hierarchy that this process may write to, with the controllers delegated to it
 * (systemd: Delegate=yes). Where there is none, or a controller is missing, the guest runs without
 * that limit, and the verdict says so: QEMU's own -m and -smp still bound what the guest sees.
 */
#ifndef SOSIE_VM_LIMITS_H
#define SOSIE_VM_LIMITS_H

#include <sys/types.h>

#include "vm/spec.h"

/* What QEMU needs beside the guest's memory: its code, device state, block caches. */
#define LIMITS_MEMORY_OVERHEAD_MIB 512
/* Threads: one per processor, and QEMU's workers. */
#define LIMITS_THREADS_OVERHEAD 128
/* Processor time: QEMU's own threads, in hundredths of a core. */
#define LIMITS_CPU_OVERHEAD_PERCENT 50

struct limits {
	char path[VM_PATH_MAX]; /* of the group, "" when there is none */
	char verdict[128];      /* "memory cpu pids", or why there is none */
};

/* Makes the group and puts QEMU into it. */
void limits_set(struct limits *limits, const struct vm_spec *spec, pid_t qemu);
/* The same, where the hierarchy is mounted at root and our own group is at `own` in it. */
void limits_set_at(struct limits *limits, const char *root, const char *own,
	const struct vm_spec *spec, pid_t qemu);
/* Removes the group, whose processes have ended. */
void limits_drop(struct limits *limits);

#endif

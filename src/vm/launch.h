/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting QEMU: sockets, descriptors, the unprivileged user, fork and exec.
 */
#ifndef SOSIE_VM_LAUNCH_H
#define SOSIE_VM_LAUNCH_H

#include <sys/types.h>

#include "vm/spec.h"

/* What the supervisor keeps of a QEMU that it has started; -1 for what there is not. */
struct launched {
	pid_t pid;
	int qmp;            /* our end of the QMP connection */
	int console;        /* our end of the serial port */
	int standard_error; /* where QEMU's standard error can be read */
};

/*
 * Starts QEMU in the current directory, which is the guest's folder. QEMU is killed by the kernel
 * when the calling process ends. On an error nothing is left but socket files.
 */
int launch_qemu(const struct vm_spec *spec, struct launched *ret, struct err *e);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a specification to QEMU's command line, and nothing else: no file is looked at.
 */
#ifndef SOSIE_VM_QEMU_ARGS_H
#define SOSIE_VM_QEMU_ARGS_H

#include "vm/spec.h"

#define QEMU_PROGRAM  "qemu-system-x86_64"
#define QEMU_ARGS_MAX 128

/*
 * Descriptors that QEMU inherits, by their numbers there. It runs in the guest's folder and as a
 * user who may open nothing beyond it, so that everything else comes as a descriptor.
 */
struct qemu_fds {
	int qmp;               /* connected: the machine protocol */
	int console;           /* connected: the first serial port */
	int guest;             /* listening: the virtio-serial port org.sosie.guest.0 */
	int image;             /* what the disk is an overlay on; -1: nothing */
	int shared;            /* of the ivshmem device; -1: there is none */
	int nics[VM_NICS_MAX]; /* listening: one per NIC */
};

/* A NULL-terminated vector, to be freed with qemu_args_free(). -ENOMEM. */
int qemu_args(const struct vm_spec *spec, const struct qemu_fds *fds, char ***ret);
/* NULL is accepted. */
void qemu_args_free(char **args);
DEFINE_CLEANUP(char **, qemu_args_free);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtual machine is made of: spec.json in its folder, written by the host agent before
 * each start and only read here.
 */
#ifndef SOSIE_VM_SPEC_H
#define SOSIE_VM_SPEC_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"

#define VM_NICS_MAX       8
#define VM_CORES_MAX      255
#define VM_MEMORY_MIB_MIN 16
#define VM_MEMORY_MIB_MAX (4LL << 20)
#define VM_CPU_MAX        256 /* bytes of a CPU model with its features */
#define VM_PATH_MAX       4096
#define VM_GRACE_MS_MAX   (3600 * 1000)
#define VM_SPEC_BYTES_MAX (64U << 10)

#define VM_MAC_SIZE 18 /* "52:54:00:12:34:56" */

struct vm_spec {
	char id[NAME_MAX_LENGTH + 1];
	bool kvm;             /* else TCG */
	char cpu[VM_CPU_MAX]; /* QEMU's -cpu */
	unsigned int cores;
	uint64_t memory_mib;
	char image[VM_PATH_MAX]; /* what disk.qcow2 is an overlay on; "" for none */
	bool image_is_raw;       /* else qcow2 */
	size_t nics;
	char macs[VM_NICS_MAX][VM_MAC_SIZE];
	char shared_path[VM_PATH_MAX]; /* the file behind the ivshmem device; "" for none */
	uint64_t shared_bytes;         /* a power of two */
	bool drops; /* QEMU runs as this user and group, not as that of sosie-vm */
	uid_t uid;
	gid_t gid;
	uint64_t grace_ns; /* for the guest to do by itself what it is asked to */
	uint64_t starts;   /* how often a start has been asked for, this one included */
	uint64_t reboots;  /* how often a reboot has been asked for before */
};

/* ERR_INVALID, naming the field, when a machine cannot be built from it. */
int vm_spec_parse(const void *bytes, size_t n, struct vm_spec *ret, struct err *e);

#endif

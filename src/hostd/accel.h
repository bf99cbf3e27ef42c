/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which accelerator guests get: KVM where it really runs one, else TCG.
 */
#ifndef SOSIE_HOSTD_ACCEL_H
#define SOSIE_HOSTD_ACCEL_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/macro.h"
#include "hostd/privileged.h"

#define ACCEL_LIMIT_NS (3 * NSEC_PER_SEC)

/* Shared with probe_guest.S by way of the build. */
#ifndef PROBE_PORT
#define PROBE_PORT 0xf4
#define PROBE_DONE 0x2a
#endif

struct accel {
	bool kvm;         /* guests run under KVM (accel_try(): under what was tried) */
	char reason[384]; /* a sentence */
};

/*
 * Boots a tiny guest under KVM as the user that guests run as, and waits at most limit_ns for it
 * to come through its early boot. Blocks; leaves nothing running. Fails only when it could not be
 * tried for a reason of our own.
 */
int accel_probe(const struct guest_user *user, uint64_t limit_ns, struct accel *ret, struct err *e);
/* The same under any accelerator of QEMU's; for tests of the test guest. */
int accel_try(const char *accelerator, const struct guest_user *user, uint64_t limit_ns,
	struct accel *ret, struct err *e);
/* As accel_probe(), but for a verdict in STATE/accel.json from the same start of the host. */
int accel_auto(int state, const struct guest_user *user, struct accel *ret, struct err *e);

#endif

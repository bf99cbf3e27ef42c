/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata service of one NIC, at http://169.254.169.254/ as its guest sees it: EC2-style
 * paths with session tokens, and cloud-init's NoCloud under /nocloud/.
 */
#ifndef SOSIE_SWITCH_METADATA_H
#define SOSIE_SWITCH_METADATA_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "core/net/addr.h"

struct nic;
struct metadata;

/* nic must outlive it. mtu and router: of the network; number: no other's of this process. */
int metadata_new(sd_event *event, struct nic *nic, struct mac router, uint16_t mtu,
	unsigned int number, struct metadata **ret, struct err *e);
/* NULL is accepted. */
void metadata_free(struct metadata *m);
DEFINE_CLEANUP(struct metadata *, metadata_free);

/*
 * What is told from now on: the checked "metadata" object of the NIC (NULL: nothing is), of which
 * a reference is kept, and the port's host name for when the object has none.
 */
void metadata_set(struct metadata *m, json_t *data, const char *hostname);
/* A frame of the guest to METADATA_IP. */
void metadata_input(struct metadata *m, const uint8_t *frame, size_t n);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by instance.c (states and what runs), instance_disk.c (making ready and removing) and
 * instance_plan.c (what is desired).
 */
#ifndef SOSIE_HOSTD_INSTANCE_INTERNAL_H
#define SOSIE_HOSTD_INSTANCE_INTERNAL_H

#include "hostd/instance.h"

/* Makes the move, and says why in `reason` when format is not NULL. */
void instance_move(struct instance *i, enum life_event event, const char *format, ...) PRINTF(3, 4);
/* Something failed: BROKE, latched, told in an event. */
void instance_fail(struct instance *i, const char *reason);

void instance_prepare(struct instance *i);
void instance_remove(struct instance *i);
/* Takes what is left in its record, when sosie-vm does not hold it. 0, or -errno: try again. */
int instance_drain(struct instance *i, struct err *e);
/* Tries the same again after a while. */
void instance_cool(struct instance *i);
/* spec.json for sosie-vm. */
int instance_write_spec(struct instance *i, const struct image *image, struct err *e);
/* The image that its disk is an overlay on, as it was noted when the disk was made. */
int instance_read_base(const struct instance *i, struct image_name *ret, struct err *e);
/* The counters of the spec.json that is there. */
void instance_read_counters(struct instance *i);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of one machine (vm.sock): requests and answers of one JSON object a line, as
 * docs/agent-protocol.md tells.
 */
#ifndef SOSIE_VM_CONTROL_H
#define SOSIE_VM_CONTROL_H

#include "io/record.h"
#include "vm/machine.h"

#define CONTROL_CLIENTS_MAX 16
/* Of one answer with events: so many, or as few as fit. */
#define CONTROL_EVENTS_MAX   256
#define CONTROL_EVENTS_BYTES (128U << 10)

struct control;

int control_new(sd_event *event, const char *path, struct machine *machine, struct record *record,
	struct control **ret, struct err *e);
void control_free(struct control *control);
DEFINE_CLEANUP(struct control *, control_free);

/* New entries are in the record: whoever waits for them gets them. */
void control_written(struct control *control);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket, and the configuration's copy on disk. docs/switch.md describes the requests.
 */
#ifndef SOSIE_SWITCH_CONTROL_H
#define SOSIE_SWITCH_CONTROL_H

#include "base/err.h"
#include "switch/network.h"

#define CONTROL_SOCKET      "switch.sock"
#define CONTROL_CONFIG      "config.json"
#define CONTROL_CLIENTS_MAX 16

struct control;

/* Listens in the current folder. The network must outlive it. */
int control_new(sd_event *event, struct network *network, struct control **ret, struct err *e);
/* NULL is accepted. */
void control_free(struct control *c);
DEFINE_CLEANUP(struct control *, control_free);

/* Goes on with the configuration kept on disk; 0 also when there is none. */
int control_load(struct control *c, struct err *e);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of instances, which the control plane keeps, beside this machine's own.
 */
#ifndef SOSIE_CLI_GROUP_REMOTE_H
#define SOSIE_CLI_GROUP_REMOTE_H

#include <jansson.h>

#include "base/err.h"

/*
 * The control plane's groups, each with origin "control-plane": a new array, empty when no control
 * plane is known. One that does not answer is told of on standard error and hides no local group.
 */
json_t *remote_groups(void);
/* One of them, or NULL. */
json_t *remote_group(const char *name);
/* ERR_NOT_FOUND when there is none or no control plane is known. */
int remote_group_remove(const char *name, struct err *e);

void print_remote_groups(const json_t *groups);
void print_remote_group(const json_t *group);

#endif

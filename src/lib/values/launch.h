/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Becoming a program that is a member of a group: what `sosie run` does, and sosie-guest in a
 * virtual machine.
 */
#ifndef SOSIE_LIB_VALUES_LAUNCH_H
#define SOSIE_LIB_VALUES_LAUNCH_H

#include "lib/values/group.h"

/* The file that execvp() would run: out holds PATH_MAX bytes. ERR_NOT_FOUND, ERR_FORBIDDEN. */
int launch_find(const char *name, char *out, struct err *e);
/* Whether the program can be a member: not static, not set-user-ID. ERR_INVALID with a hint. */
int launch_check(const char *path, struct err *e);
/*
 * Makes this process ready to become the program: address randomisation off, no_new_privs, the
 * preload library and the member in the environment. Not undone when it fails half-way.
 */
int launch_prepare(const struct group *g, const struct member *m, struct err *e);

#endif

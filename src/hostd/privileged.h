/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the agent that needs rights: it makes and removes the folders of instances, and
 * starts sosie-vm. It parses nothing, neither JSON nor images, and takes names (never paths) that
 * it checks itself. Everything else in the agent needs no more than to read what it is given.
 *
 * Today both parts are one process. The seam is this header: no other file of the agent creates,
 * owns, chowns or executes anything for a guest, so that a process of its own can be put behind it.
 */
#ifndef SOSIE_HOSTD_PRIVILEGED_H
#define SOSIE_HOSTD_PRIVILEGED_H

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

/* As whom guests run. */
struct guest_user {
	bool drops; /* else they run as the agent does */
	uid_t uid;
	gid_t gid;
};

/*
 * "none", "NAME" or "UID:GID"; NULL: what is usual, which is "sosie-vm" or else "nobody" for an
 * agent that is root, and "none" for any other.
 */
int guest_user_parse(const char *text, struct guest_user *ret, struct err *e);

/* The folder of an instance below the open directory of all of them; made if it is missing. */
int privileged_make_folder(int instances, const char *id, int *ret_folder, struct err *e);
/* The same, which is not made. */
int privileged_open_folder(int instances, const char *id, int *ret_folder, struct err *e);
/* Removes the folder with everything in it. 0 also when it was not there. */
int privileged_remove_folder(int instances, const char *id, struct err *e);
/* Replaces a file of the folder with these bytes, durably. */
int privileged_write(int folder, const char *name, const void *bytes, size_t n, unsigned int mode,
	struct err *e);

/*
 * Starts sosie-vm, the program given, for the folder. It has a session of its own and outlives the
 * agent; its log is vm.log there. *ret_ready is where it tells how the start went: one line.
 */
int privileged_start_vm(
	sd_event *event, const char *program, int folder, int *ret_ready, struct err *e);
/* Removes the control group that a killed sosie-vm has left. */
void privileged_remove_cgroup(const char *path);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that outlive the command that started them, known again by more than their number.
 */
#ifndef SOSIE_CLI_SERVICE_H
#define SOSIE_CLI_SERVICE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct service {
	pid_t pid;
	uint64_t started; /* clock ticks after the boot: with pid and boot, no other process's */
};

/* Which boot of the machine this is. */
#define BOOT_ID_SIZE 64
int boot_id(char out[BOOT_ID_SIZE]);

/*
 * Starts argv[0] in a session of its own, with nothing to read, errors appended to the file log,
 * and output there too, or, when ret_out is given, into a pipe whose end to read is *ret_out.
 */
int service_start(const char *const argv[], const char *log, int *ret_out, struct service *ret,
	struct err *e);
/* Whether it is still there: not ended, and no other process by its number. */
bool service_alive(const struct service *p);
/* Asks it to end, waits, and kills it when it does not within limit_ns. Not ours: nothing. */
void service_end(const struct service *p, uint64_t limit_ns);
/* Ends the process that listens on the unix socket, if any, in the same way. */
void service_end_listener(const char *path, uint64_t limit_ns);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interactive serial console: what the guest writes goes to everybody attached, what any of
 * them types goes to the guest. (QEMU itself keeps console.log.)
 */
#ifndef SOSIE_VM_CONSOLE_H
#define SOSIE_VM_CONSOLE_H

#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

#define CONSOLE_CLIENTS_MAX 8
/* A client this far behind misses output; how much is counted. */
#define CONSOLE_BACKLOG_MAX (256U << 10)
/* Of console.log on the disk; what came before is given back to the file system as a hole. */
#define CONSOLE_LOG_KEPT (16U << 20)

struct console;

struct console_counters {
	uint64_t clients; /* attached now */
	uint64_t refused; /* clients that were one too many */
	uint64_t missed;  /* bytes that a slow client did not get */
};

/*
 * Takes possession of guest, our end of the serial port, and listens on the path for clients,
 * whose connections carry the bare bytes.
 */
int console_new(sd_event *event, int guest, const char *path, struct console **ret, struct err *e);
void console_free(struct console *console);
DEFINE_CLEANUP(struct console *, console_free);

/* Passes on what the guest wrote last; after QEMU has ended. */
void console_drain(struct console *console);
struct console_counters console_counters(const struct console *console);
/* The length of a console log; trims what is on the disk when it is more than is kept. */
uint64_t console_log_trim(const char *path);

#endif

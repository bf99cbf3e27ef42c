/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console and exec sessions: bytes between a client and a host's agent, both of which dial in.
 */
#ifndef SOSIE_SOSIED_SESSIONS_H
#define SOSIE_SOSIED_SESSIONS_H

#include "sosied/call.h"

#define SESSIONS_MAX       256
#define SESSION_CHUNK_MAX  (32U << 10) /* bytes at a time, before base64 */
#define SESSION_OUTPUT_MAX (1U << 20)  /* kept until the client has taken it */
#define SESSION_INPUT_MAX  (256U << 10)
#define SESSION_ARGV_MAX   64
#define SESSION_WAIT_MAX_S 30
/* How long one is kept that nobody reads, and after its end. */
#define SESSION_IDLE_NS (60 * (uint64_t)NSEC_PER_SEC)

int sessions_new(struct sosied *d, struct err *e);
/* The HTTP server must be gone. Accepts NULL. */
void sessions_free(struct sessions *sessions);
/* Once a second: ends what is over or forsaken. */
void sessions_tick(struct sosied *d);
/* Those that the host's agent is to serve: a new array. */
json_t *sessions_of_host(struct sosied *d, const char *host_id);

#endif

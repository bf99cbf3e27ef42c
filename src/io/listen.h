/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets, close-on-exec and non-blocking.
 */
#ifndef SOSIE_IO_LISTEN_H
#define SOSIE_IO_LISTEN_H

#include "base/err.h"
#include "base/macro.h"

#define LISTEN_BACKLOG 128

/* A numeric IPv4 or IPv6 address. Port 0: one that is free. *ret_port is the one it got. */
int listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct err *e);
/*
 * A stream socket at path with these permissions, which hold before anyone can connect. A socket
 * left behind, on which nobody listens, is replaced; ERR_CONFLICT when somebody does, or when the
 * path is something else.
 */
int listen_unix(const char *path, unsigned int mode, int *ret_fd, struct err *e);
/* Connects to such a socket, blocking only as connect(2) to a unix socket does. */
int connect_unix(const char *path, int *ret_fd, struct err *e);
/* The same for a socket in an open directory, whose path may then be of any length. */
int connect_unix_at(int directory, const char *name, int *ret_fd, struct err *e);

#endif

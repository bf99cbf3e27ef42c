/* SPDX-License-Identifier: Apache-2.0 */
#include "io/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un unix_;
};

static int parse_address(
	const char *text, uint16_t port, union address *a, socklen_t *size, struct err *e)
{
	*a = (union address){0};
	if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) {
		a->v4.sin_family = AF_INET;
		a->v4.sin_port = htons(port);
		*size = sizeof(a->v4);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) == 1) {
		a->v6.sin6_family = AF_INET6;
		a->v6.sin6_port = htons(port);
		*size = sizeof(a->v6);
		return 0;
	}
	(void)err_set(e, ERR_INVALID, "%.64s is no numeric IPv4 or IPv6 address", text);
	return err_hint(e, "use 127.0.0.1, or 0.0.0.0 for every interface");
}

int listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	union address a;
	socklen_t size = 0;
	int on = 1, r = parse_address(address, port, &a, &size, e);

	if (r < 0)
		return r;
	fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, -errno, "socket for %s", address);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		bind(fd, &a.any, size) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		r = -errno;
		if (r == -EADDRINUSE)
			return err_set(e, ERR_CONFLICT, "port %u of %s is in use", port, address);
		return err_errno(e, r, "listen on %s port %u", address, port);
	}
	if (getsockname(fd, &a.any, &size) < 0)
		return err_errno(e, -errno, "getsockname");
	*ret_port = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int unix_address(const char *path, union address *a, struct err *e)
{
	size_t n = strlen(path);

	*a = (union address){.unix_.sun_family = AF_UNIX};
	if (n == 0 || n >= sizeof(a->unix_.sun_path))
		return err_set(e, ERR_INVALID, "a unix socket's path has 1 to %zu bytes, not %zu",
			sizeof(a->unix_.sun_path) - 1, n);
	memcpy(a->unix_.sun_path, path, n);
	return 0;
}

/* Whether path is a socket on which nobody listens: what a killed program leaves behind. */
static bool is_leftover(const char *path, const union address *a)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	return fd >= 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	       connect(fd, &a->any, sizeof(a->unix_)) < 0 && errno == ECONNREFUSED;
}

int listen_unix(const char *path, unsigned int mode, int *ret_fd, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	union address a;
	int r = unix_address(path, &a, e);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, -errno, "socket");
	if (bind(fd, &a.any, sizeof(a.unix_)) < 0) {
		if (errno != EADDRINUSE)
			return err_errno(e, -errno, "bind %s", path);
		if (!is_leftover(path, &a))
			return err_set(e, ERR_CONFLICT, "%s is in use", path);
		if (unlink(path) < 0 || bind(fd, &a.any, sizeof(a.unix_)) < 0)
			return err_errno(e, -errno, "bind %s", path);
	}
	/* Nobody can connect between bind and listen, so that the mode holds from the start. */
	if (chmod(path, mode) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		r = -errno;
		(void)unlink(path);
		return err_errno(e, r, "listen on %s", path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int connect_unix(const char *path, int *ret_fd, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	union address a;
	int r = unix_address(path, &a, e);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, -errno, "socket");
	if (connect(fd, &a.any, sizeof(a.unix_)) < 0)
		return err_errno(e, -errno, "connect to %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int connect_unix_at(int directory, const char *name, int *ret_fd, struct err *e)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int n = snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", directory, name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return err_errno(e, -ENAMETOOLONG, "connect to %s", name);
	return connect_unix(path, ret_fd, e);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a program asks the network for when it wants something unique. */
#include <net/if.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/values/preload/preload.h"

struct hardware_address {
	int fd;
	struct ifreq *request;
};

static ssize_t own_address(void *context, void *out, size_t size)
{
	struct hardware_address *h = context;

	if (size < sizeof(h->request->ifr_hwaddr))
		return -EINVAL;
	if (REAL(ioctl)(h->fd, SIOCGIFHWADDR, h->request) < 0)
		return -errno;
	memcpy(out, &h->request->ifr_hwaddr, sizeof(h->request->ifr_hwaddr));
	return sizeof(h->request->ifr_hwaddr);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *argument;

	va_start(args, request);
	argument = va_arg(args, void *);
	va_end(args);
	if (unlikely(request == SIOCGIFHWADDR) && argument) {
		struct hardware_address h = {fd, argument};
		struct sockaddr address;
		int saved = errno;
		ssize_t n = values_cell(KIND_HWADDR, 0, own_address, &h, &address, sizeof(address));

		if (n == sizeof(address)) {
			memcpy(&h.request->ifr_hwaddr, &address, sizeof(address));
			errno = saved;
			return 0;
		}
		errno = saved;
	}
	return REAL(ioctl)(fd, request, argument);
}

/* The UUID daemon hands out what it likes to whom it likes; libuuid can do without it. */
EXPORT int connect(int fd, const struct sockaddr *address, socklen_t n)
{
	static const char daemon_path[] = "/uuidd/request";
	const struct sockaddr_un *local = (const struct sockaddr_un *)address;

	if (n > offsetof(struct sockaddr_un, sun_path) && address->sa_family == AF_UNIX &&
		local->sun_path[0] == '/' && values_virtual_pid(1) == 1 &&
		atomic_load(&values_process.phase) == PHASE_MEMBER) {
		char path[sizeof(local->sun_path) + 1] = {0};

		memcpy(path, local->sun_path,
			MIN(n, sizeof(*local)) - offsetof(struct sockaddr_un, sun_path));
		if (strstr(path, daemon_path))
			return preload_result(-ECONNREFUSED);
	}
	return REAL(connect)(fd, address, n);
}

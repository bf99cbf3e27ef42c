/* SPDX-License-Identifier: Apache-2.0 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>

#define READ_BLOCK 4096

int file_read_at(int directory, const char *name, struct buf *out)
{
	CLEANUP_CLOSE int fd =
		openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char block[READ_BLOCK];

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, block, sizeof(block));
		int r;

		if (n == 0)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		r = buf_append(out, block, (size_t)n);
		if (r < 0)
			return r;
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random devices opened as files, and two files that would tell copies apart.
 *
 * The descriptor is the device's own, so that poll(), fstat() and inheritance are what they
 * always are; only reading goes to the group.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>

#include "lib/values/preload/preload.h"

/* Per descriptor: handle + 1 of a random device, 0 otherwise. Several may share a handle. */
static _Atomic uint8_t handles[PRELOAD_FDS];
static _Atomic uint16_t uses[DEVICES_MAX];
static_assert(DEVICES_MAX < UINT8_MAX, "a handle fits its byte");
/* Per descriptor: clock id + 1 of a timer. */
static _Atomic uint8_t timer_clocks[PRELOAD_FDS];

static int handle_of(int fd)
{
	return (unsigned int)fd < PRELOAD_FDS ? atomic_load(&handles[fd]) - 1 : -1;
}

static void attach(int fd, int handle)
{
	atomic_fetch_add(&uses[handle], 1);
	atomic_store(&handles[fd], (uint8_t)(handle + 1));
}

/* What the descriptor was before means nothing any more. */
static void detach(int fd)
{
	int handle;

	if ((unsigned int)fd >= PRELOAD_FDS)
		return;
	atomic_store(&timer_clocks[fd], 0);
	handle = atomic_exchange(&handles[fd], 0) - 1;
	if (handle >= 0 && atomic_fetch_sub(&uses[handle], 1) == 1)
		values_device_close(handle);
}

static bool is_random_device(const char *path)
{
	return path && !strncmp(path, "/dev/", 5) &&
	       (!strcmp(path + 5, "urandom") || !strcmp(path + 5, "random") ||
		       !strcmp(path + 5, "hwrng"));
}

/*
 * libuuid keeps the clock sequence of time-based UUIDs in a file of the machine. Without it, it
 * takes a random sequence, which the group shares.
 */
static bool is_hidden(const char *path)
{
	return path && path[0] == '/' && path[1] == 'v' &&
	       !strcmp(path, "/var/lib/libuuid/clock.txt") && values_virtual_pid(1) >= 0 &&
	       atomic_load(&values_process.phase) == PHASE_MEMBER;
}

static int opened(const char *path, int fd)
{
	int handle;

	if (fd < 0 || fd >= PRELOAD_FDS)
		return fd;
	detach(fd);
	if (!is_random_device(path))
		return fd;
	handle = values_device_open();
	if (handle >= 0)
		attach(fd, handle);
	return fd;
}

static FILE *open_stream(const char *mode);

void preload_adopt_descriptors(void)
{
	/* A shell's redirections and a few more; each look costs a tenth of a microsecond. */
	for (int fd = 0; fd < 32; fd++) {
		struct stat st = {0};
		int handle;

		if (raw_syscall(SYS_fstat, fd, (long)&st, 0, 0) < 0 || !S_ISCHR(st.st_mode))
			continue;
		if (st.st_rdev != makedev(1, 8) && st.st_rdev != makedev(1, 9) &&
			st.st_rdev != makedev(10, 183))
			continue;
		handle = values_device_open();
		if (handle >= 0)
			attach(fd, handle);
		/* What a shell redirected is read through the stream that libc has made for it. */
		if (fd == STDIN_FILENO) {
			FILE *f = open_stream("r");

			stdin = f ? f : stdin;
		}
	}
}

void preload_note_timerfd(int fd, int clock_id)
{
	if (fd < 0 || fd >= PRELOAD_FDS)
		return;
	detach(fd);
	atomic_store(&timer_clocks[fd], (uint8_t)(clock_id + 1));
}

int preload_timerfd_clock(int fd)
{
	int noted = (unsigned int)fd < PRELOAD_FDS ? atomic_load(&timer_clocks[fd]) : 0;

	return noted > 0 ? noted - 1 : CLOCK_MONOTONIC;
}

/* The mode is there only when something may be created. */
#define MODE_ARGUMENT(flags)                           \
	({                                             \
		mode_t mode_ = 0;                      \
                                                       \
		if ((flags) & (O_CREAT | O_TMPFILE)) { \
			va_list args_;                 \
                                                       \
			va_start(args_, flags);        \
			mode_ = va_arg(args_, mode_t); \
			va_end(args_);                 \
		}                                      \
		mode_;                                 \
	})

#define HIDE(path)                                      \
	do {                                            \
		if (unlikely(is_hidden(path)))          \
			return preload_result(-ENOENT); \
	} while (0)

#define OPEN(name)                                                  \
	EXPORT int name(const char *path, int flags, ...)           \
	{                                                           \
		mode_t mode = MODE_ARGUMENT(flags);                 \
                                                                    \
		HIDE(path);                                         \
		return opened(path, REAL(name)(path, flags, mode)); \
	}
#define OPENAT(name)                                                           \
	EXPORT int name(int directory, const char *path, int flags, ...)       \
	{                                                                      \
		mode_t mode = MODE_ARGUMENT(flags);                            \
                                                                               \
		HIDE(path);                                                    \
		return opened(path, REAL(name)(directory, path, flags, mode)); \
	}
#define OPEN_2(name)                                          \
	int name(const char *path, int flags);                \
	EXPORT int name(const char *path, int flags)          \
	{                                                     \
		HIDE(path);                                   \
		return opened(path, REAL(name)(path, flags)); \
	}
#define OPENAT_2(name)                                                   \
	int name(int directory, const char *path, int flags);            \
	EXPORT int name(int directory, const char *path, int flags)      \
	{                                                                \
		HIDE(path);                                              \
		return opened(path, REAL(name)(directory, path, flags)); \
	}

#undef open
#undef open64
#undef openat
#undef openat64
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
/* What fortified programs call. */
OPEN_2(__open_2)
OPEN_2(__open64_2)
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)

EXPORT int close(int fd)
{
	detach(fd);
	return REAL(close)(fd);
}

static void detach_range(unsigned int first, unsigned int last)
{
	for (unsigned int fd = first; fd <= last && fd < PRELOAD_FDS; fd++)
		detach((int)fd);
}

EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
	int r = REAL(close_range)(first, last, flags);

	if (r == 0 && !(flags & (int)CLOSE_RANGE_CLOEXEC))
		detach_range(first, last);
	return r;
}

EXPORT void closefrom(int first)
{
	REAL(closefrom)(first);
	detach_range((unsigned int)MAX(first, 0), PRELOAD_FDS);
}

static int duplicated(int from, int to)
{
	int handle = handle_of(from);

	if (to < 0 || to >= PRELOAD_FDS || to == from)
		return to;
	detach(to);
	if (handle >= 0)
		attach(to, handle);
	if ((unsigned int)from < PRELOAD_FDS)
		atomic_store(&timer_clocks[to], atomic_load(&timer_clocks[from]));
	return to;
}

EXPORT int dup(int fd)
{
	return duplicated(fd, REAL(dup)(fd));
}

EXPORT int dup2(int fd, int to)
{
	return duplicated(fd, REAL(dup2)(fd, to));
}

EXPORT int dup3(int fd, int to, int flags)
{
	return duplicated(fd, REAL(dup3)(fd, to, flags));
}

#define FCNTL(name)                                                                              \
	EXPORT int name(int fd, int command, ...)                                                \
	{                                                                                        \
		va_list args;                                                                    \
		long argument;                                                                   \
		int r;                                                                           \
                                                                                                 \
		va_start(args, command);                                                         \
		argument = va_arg(args, long);                                                   \
		va_end(args);                                                                    \
		r = REAL(name)(fd, command, argument);                                           \
		return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? duplicated(fd, r) : r; \
	}
#undef fcntl
#undef fcntl64
FCNTL(fcntl)
FCNTL(fcntl64)

/* n bytes of the device, or -1 when the group has nothing to say about the descriptor. */
static ssize_t read_device(int fd, void *buffer, size_t n)
{
	int handle = handle_of(fd);

	if (likely(handle < 0) || values_device_read(handle, buffer, n) < 0)
		return -1;
	return (ssize_t)n;
}

EXPORT ssize_t read(int fd, void *buffer, size_t n)
{
	ssize_t got = read_device(fd, buffer, n);

	return got >= 0 ? got : REAL(read)(fd, buffer, n);
}

ssize_t __read_chk(int fd, void *buffer, size_t n, size_t size);
EXPORT ssize_t __read_chk(int fd, void *buffer, size_t n, size_t size)
{
	ssize_t got = n <= size ? read_device(fd, buffer, n) : -1;

	return got >= 0 ? got : REAL(__read_chk)(fd, buffer, n, size);
}

#define PREAD(name)                                                        \
	EXPORT ssize_t name(int fd, void *buffer, size_t n, off_t offset)  \
	{                                                                  \
		ssize_t got = read_device(fd, buffer, n);                  \
                                                                           \
		return got >= 0 ? got : REAL(name)(fd, buffer, n, offset); \
	}
#undef pread
#undef pread64
PREAD(pread)
PREAD(pread64)

EXPORT ssize_t readv(int fd, const struct iovec *parts, int count)
{
	ssize_t total = 0;

	if (likely(handle_of(fd) < 0))
		return REAL(readv)(fd, parts, count);
	for (int i = 0; i < count; i++) {
		ssize_t got = read_device(fd, parts[i].iov_base, parts[i].iov_len);

		if (got < 0)
			return total > 0 ? total : REAL(readv)(fd, parts, count);
		total += got;
	}
	return total;
}

/* The kernel would copy its own bytes; callers fall back to read() on EINVAL. */
#define SENDFILE(name)                                                 \
	EXPORT ssize_t name(int to, int from, off_t *offset, size_t n) \
	{                                                              \
		if (handle_of(from) >= 0)                              \
			return preload_result(-EINVAL);                \
		return REAL(name)(to, from, offset, n);                \
	}
#undef sendfile
#undef sendfile64
SENDFILE(sendfile)
SENDFILE(sendfile64)

EXPORT ssize_t splice(
	int from, off64_t *from_offset, int to, off64_t *to_offset, size_t n, unsigned int flags)
{
	if (handle_of(from) >= 0)
		return preload_result(-EINVAL);
	return REAL(splice)(from, from_offset, to, to_offset, n, flags);
}

/* Streams: stdio reads with libc's own call, past ours. */
static ssize_t cookie_read(void *cookie, char *buffer, size_t n)
{
	int handle = (int)(intptr_t)cookie;

	return values_device_read(handle, buffer, n) == 0 ? (ssize_t)n : -1;
}

static int cookie_close(void *cookie)
{
	values_device_close((int)(intptr_t)cookie);
	return 0;
}

static FILE *open_stream(const char *mode)
{
	static const cookie_io_functions_t functions = {
		.read = cookie_read,
		.close = cookie_close,
	};
	int handle = values_device_open();
	FILE *f;

	if (handle < 0)
		return NULL;
	f = fopencookie(
		(void *)(intptr_t)handle, mode, functions); // NOLINT(performance-no-int-to-ptr)
	if (!f)
		values_device_close(handle);
	return f;
}

#define FOPEN(name)                                                                            \
	EXPORT FILE *name(const char *restrict path, const char *restrict mode)                \
	{                                                                                      \
		FILE *f = is_random_device(path) && mode[0] == 'r' ? open_stream(mode) : NULL; \
                                                                                               \
		return f ? f : REAL(name)(path, mode);                                         \
	}
#undef fopen
#undef fopen64
FOPEN(fopen)
FOPEN(fopen64)

EXPORT FILE *fdopen(int fd, const char *mode)
{
	FILE *f = handle_of(fd) >= 0 && mode[0] == 'r' ? open_stream(mode) : NULL;

	if (!f)
		return REAL(fdopen)(fd, mode);
	/* The stream owns the descriptor from now on; it has no further use for it. */
	(void)close(fd);
	return f;
}

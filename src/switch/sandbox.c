/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A system call that is not on the list fails with EPERM instead of ending the process: an
 * overlooked rare one then costs an operation, not all connections of a tenant, and whoever runs
 * code of his own in here gains nothing by it.
 */
#include "switch/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>

#define CALL_TABLE(X)                                                                              \
	/* memory and the process itself; mmap and mprotect are below */                           \
	X(brk)                                                                                     \
	X(munmap)                                                                                  \
	X(mremap)                                                                                  \
	X(madvise)                                                                                 \
	X(futex)                                                                                   \
	X(sched_yield)                                                                             \
	X(getpid)                                                                                  \
	X(gettid) X(getuid) X(geteuid) X(getgid) X(getegid) X(tgkill) X(exit) X(exit_group)        \
		X(restart_syscall) X(rt_sigaction) X(rt_sigprocmask) X(rt_sigreturn) X(rseq)       \
			X(set_robust_list) X(sigaltstack) X(getrandom) X(prlimit64) X(uname)       \
				X(sysinfo) /* time */                                              \
		X(clock_gettime) X(clock_getres) X(gettimeofday) X(time) X(clock_nanosleep)        \
			X(nanosleep) X(timerfd_create) X(timerfd_settime)                          \
				X(timerfd_gettime) /* waiting */                                   \
		X(epoll_create1) X(epoll_ctl) X(epoll_wait) X(epoll_pwait) X(epoll_pwait2) X(poll) \
			X(ppoll) X(select) X(pselect6) X(eventfd2) X(signalfd4)                    \
				X(pipe2) /* descriptors */                                         \
		X(read) X(write) X(readv) X(writev) X(pread64) X(close) X(fcntl) X(ioctl) X(dup)   \
			X(dup3) X(lseek) X(fsync)                                                  \
				X(fdatasync) /* files of the switch's own folder, resolv.conf,     \
						time zones for logs */                             \
		X(open) X(openat) X(stat) X(lstat) X(fstat) X(newfstatat) X(statx) X(access)       \
			X(faccessat) X(faccessat2) X(unlink) X(unlinkat) X(rename) X(renameat)     \
				X(renameat2) X(chmod) X(fchmod) X(fchmodat) X(umask) X(getcwd)     \
					X(readlink) X(readlinkat) /* sockets */                    \
		X(socket) X(socketpair) X(bind) X(listen) X(accept) X(accept4) X(connect)          \
			X(getsockname) X(getpeername) X(getsockopt) X(setsockopt) X(shutdown)      \
				X(sendto) X(recvfrom) X(sendmsg) X(recvmsg) X(sendmmsg)            \
					X(recvmmsg)

static const int calls[] = {
#define X(name) SCMP_SYS(name),
	CALL_TABLE(X)
#undef X
};

int sandbox_begin(struct err *e)
{
	struct rlimit files;

	(void)umask(077);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, -errno, "no_new_privs");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_errno(e, -errno, "dumpable");
	/* Every connection through the way out is a descriptor. */
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return err_errno(e, -errno, "limit of descriptors");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		return err_errno(e, -errno, "limit of descriptors");
	return 0;
}

int sandbox_user(const char *user, struct err *e)
{
	const struct passwd *entry;

	if (!user)
		return 0;
	errno = 0;
	entry = getpwnam(user);
	if (!entry)
		return err_set(e, ERR_NOT_FOUND, "there is no user \"%.64s\"", user);
	if (setgroups(0, NULL) < 0 || setresgid(entry->pw_gid, entry->pw_gid, entry->pw_gid) < 0 ||
		setresuid(entry->pw_uid, entry->pw_uid, entry->pw_uid) < 0)
		return err_errno(e, -errno, "becoming user %.64s", user);
	/* Changing the user made it dumpable again. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_errno(e, -errno, "dumpable");
	return 0;
}

static int drop_capabilities(struct err *e)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_errno(e, -errno, "ambient capabilities");
	/* glibc has no function for it, and libcap would be one more library for one call. */
	if (syscall(SYS_capset, &header, none) < 0)
		return err_errno(e, -errno, "capabilities");
	return 0;
}

static int add_calls(scmp_filter_ctx filter)
{
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
		if (r < 0)
			return r;
	}
	/* No memory that can be executed is made any more. */
	r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r < 0)
		return r;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

int sandbox_end(struct err *e)
{
	scmp_filter_ctx filter;
	int r = drop_capabilities(e);

	if (r < 0)
		return r;
	filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!filter)
		return err_errno(e, -ENOMEM, "system call filter");
	r = add_calls(filter);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r < 0 ? err_errno(e, r, "system call filter") : 0;
}

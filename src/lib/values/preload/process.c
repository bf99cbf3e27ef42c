/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process ids. All copies see the ids that the first of them had; what goes to the kernel is
 * translated back. An id that is not the member's own is passed on as it is.
 *
 * Not translated: ids inside siginfo_t, SCM_CREDENTIALS and SO_PEERCRED, and paths below /proc.
 */
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/values/preload/preload.h"

EXPORT pid_t getpid(void)
{
	return values_virtual_pid((pid_t)raw_syscall(SYS_getpid, 0, 0, 0, 0));
}

static uint64_t own_parent(void *context)
{
	return (uint64_t)values_virtual_pid(*(const pid_t *)context);
}

/*
 * A value and no mere translation: the first program's parent is nobody's copy, and when a parent
 * ends is chance. Programs seed generators with it.
 */
EXPORT pid_t getppid(void)
{
	pid_t real = (pid_t)raw_syscall(SYS_getppid, 0, 0, 0, 0);
	uint64_t shared;

	if (values_word(KIND_PPID, own_parent, &real, &shared) < 0)
		return real;
	values_note_pid(real, (pid_t)shared);
	return (pid_t)shared;
}

/* The first thread's id is the process's; other threads' are not shared. */
EXPORT pid_t gettid(void)
{
	return values_virtual_pid((pid_t)raw_syscall(SYS_gettid, 0, 0, 0, 0));
}

/* The handlers of start.c run inside and leave the child's lineage in preload_child. */
EXPORT pid_t fork(void)
{
	pid_t pid = REAL(fork)();

	return pid > 0 ? values_fork_parent(preload_child, pid) : pid;
}

/*
 * A vfork() child runs on its parent's stack, in its parent's thread: which of the two asks for a
 * value could not be told. POSIX allowed vfork() to be fork().
 */
EXPORT pid_t vfork(void)
{
	return fork();
}

EXPORT pid_t _Fork(void)
{
	uint64_t child = values_fork_prepare();
	pid_t pid = REAL(_Fork)();

	if (pid == 0)
		values_fork_child(child);
	return pid > 0 ? values_fork_parent(child, pid) : pid;
}

EXPORT pid_t forkpty(
	int *master, char *name, const struct termios *term, const struct winsize *size)
{
	pid_t pid = REAL(forkpty)(master, name, term, size);

	return pid > 0 ? values_fork_parent(preload_child, pid) : pid;
}

/* As kill(2) and waitpid(2) take them: positive, or minus a process group. */
static pid_t to_real(pid_t pid)
{
	return pid < -1 ? -values_real_pid(-pid) : values_real_pid(pid);
}

EXPORT pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
	return values_virtual_pid(REAL(wait4)(to_real(pid), status, options, usage));
}

EXPORT pid_t waitpid(pid_t pid, int *status, int options)
{
	return values_virtual_pid(REAL(waitpid)(to_real(pid), status, options));
}

EXPORT pid_t wait(int *status)
{
	return values_virtual_pid(REAL(wait)(status));
}

EXPORT pid_t wait3(int *status, int options, struct rusage *usage)
{
	return values_virtual_pid(REAL(wait3)(status, options, usage));
}

EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	int r;

	if (type == P_PID || type == P_PGID)
		id = (id_t)values_real_pid((pid_t)id);
	r = REAL(waitid)(type, id, info, options);
	if (r == 0 && info && info->si_pid > 0)
		info->si_pid = values_virtual_pid(info->si_pid);
	return r;
}

EXPORT int kill(pid_t pid, int signal)
{
	return REAL(kill)(to_real(pid), signal);
}

EXPORT int tgkill(pid_t group, pid_t thread, int signal)
{
	return REAL(tgkill)(values_real_pid(group), values_real_pid(thread), signal);
}

EXPORT int setpgid(pid_t pid, pid_t group)
{
	return REAL(setpgid)(values_real_pid(pid), values_real_pid(group));
}

EXPORT int tcsetpgrp(int fd, pid_t group)
{
	return REAL(tcsetpgrp)(fd, values_real_pid(group));
}

/* Functions that take nothing or something else and return an id. */
EXPORT pid_t getpgrp(void)
{
	return values_virtual_pid(REAL(getpgrp)());
}

EXPORT pid_t setsid(void)
{
	return values_virtual_pid(REAL(setsid)());
}

EXPORT pid_t tcgetpgrp(int fd)
{
	return values_virtual_pid(REAL(tcgetpgrp)(fd));
}

EXPORT pid_t tcgetsid(int fd)
{
	return values_virtual_pid(REAL(tcgetsid)(fd));
}

EXPORT pid_t getpgid(pid_t pid)
{
	return values_virtual_pid(REAL(getpgid)(values_real_pid(pid)));
}

EXPORT pid_t getsid(pid_t pid)
{
	return values_virtual_pid(REAL(getsid)(values_real_pid(pid)));
}

/* Functions whose first parameter is an id. */
#define TAKES_PID(type, name, parameters, ...)                        \
	EXPORT type name parameters                                   \
	{                                                             \
		return REAL(name)(values_real_pid(pid), __VA_ARGS__); \
	}

int pidfd_open(pid_t pid, unsigned int flags);

TAKES_PID(int, killpg, (pid_t pid, int signal), signal)
TAKES_PID(int, sigqueue, (pid_t pid, int signal, const union sigval value), signal, value)
TAKES_PID(int, pidfd_open, (pid_t pid, unsigned int flags), flags)
TAKES_PID(int, sched_getaffinity, (pid_t pid, size_t n, cpu_set_t *set), n, set)
TAKES_PID(int, sched_setaffinity, (pid_t pid, size_t n, const cpu_set_t *set), n, set)
TAKES_PID(int, sched_getparam, (pid_t pid, struct sched_param *p), p)
TAKES_PID(int, sched_setparam, (pid_t pid, const struct sched_param *p), p)
TAKES_PID(int, sched_setscheduler, (pid_t pid, int policy, const struct sched_param *p), policy, p)
TAKES_PID(int, sched_rr_get_interval, (pid_t pid, struct timespec *ts), ts)

EXPORT int sched_getscheduler(pid_t pid)
{
	return REAL(sched_getscheduler)(values_real_pid(pid));
}

#undef prlimit
#undef prlimit64
#define PRLIMIT(name, type)                                                                     \
	EXPORT int name(pid_t pid, enum __rlimit_resource resource, const type *new, type *old) \
	{                                                                                       \
		return REAL(name)(values_real_pid(pid), resource, new, old);                    \
	}
PRLIMIT(prlimit, struct rlimit)
PRLIMIT(prlimit64, struct rlimit64)

static id_t priority_target(__priority_which_t which, id_t who)
{
	return which == PRIO_USER ? who : (id_t)values_real_pid((pid_t)who);
}

EXPORT int getpriority(__priority_which_t which, id_t who)
{
	return REAL(getpriority)(which, priority_target(which, who));
}

EXPORT int setpriority(__priority_which_t which, id_t who, int value)
{
	return REAL(setpriority)(which, priority_target(which, who), value);
}

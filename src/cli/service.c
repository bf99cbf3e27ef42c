/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/str.h"
#include "io/listen.h"

#define STAT_MAX       1024
#define START_FIELD    20 /* of /proc/PID/stat, behind the program's name */
#define KILL_LIMIT_MS  10000
#define EXIT_NOT_FOUND 127

int boot_id(char out[BOOT_ID_SIZE])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	size_t n;

	if (!f)
		return -errno;
	n = fread(out, 1, BOOT_ID_SIZE - 1, f);
	(void)fclose(f);
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return n > 0 ? 0 : -EIO;
}

/* When it was started, and whether it is dead already and only waits to be waited for. */
static int read_stat(pid_t pid, uint64_t *ret_started, bool *ret_zombie)
{
	char path[64], text[STAT_MAX];
	const char *at;
	FILE *f;
	size_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	/* The name may hold anything, also brackets and spaces: the last one ends it. */
	at = strrchr(text, ')');
	if (!at || at[1] != ' ')
		return -EIO;
	at += 2;
	*ret_zombie = *at == 'Z' || *at == 'X';
	for (unsigned int field = 1; field < START_FIELD; field++) {
		at = strchr(at, ' ');
		if (!at)
			return -EIO;
		at++;
	}
	(void)snprintf(path, sizeof(path), "%.*s", (int)strcspn(at, " "), at);
	return parse_u64(path, UINT64_MAX, ret_started);
}

/* In the child: never returns. */
static void become(const char *const argv[], int out, int log)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setsid();
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
		dup2(log, STDERR_FILENO) >= 0)
		(void)execv(argv[0], (char *const *)argv);
	_exit(EXIT_NOT_FOUND);
}

int service_start(
	const char *const argv[], const char *log, int *ret_out, struct service *ret, struct err *e)
{
	CLEANUP_CLOSE int file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	CLEANUP_CLOSE int reader = -1;
	CLEANUP_CLOSE int writer = -1;
	struct service p = {0};
	bool zombie;
	int ends[2], r;

	if (file < 0)
		return err_errno(e, -errno, "open %s", log);
	if (access(argv[0], X_OK) < 0)
		return err_errno(e, -errno, "%s", argv[0]);
	if (ret_out) {
		if (pipe2(ends, O_CLOEXEC) < 0)
			return err_errno(e, -errno, "make a pipe");
		reader = ends[0];
		writer = ends[1];
	}
	p.pid = fork();
	if (p.pid < 0)
		return err_errno(e, -errno, "start %s", argv[0]);
	if (p.pid == 0)
		become(argv, writer >= 0 ? writer : file, file);
	r = read_stat(p.pid, &p.started, &zombie);
	if (r < 0) {
		(void)kill(p.pid, SIGKILL);
		(void)waitpid(p.pid, NULL, 0);
		return err_errno(e, r, "know %s again", argv[0]);
	}
	if (ret_out)
		*ret_out = TAKE_FD(reader);
	*ret = p;
	return 0;
}

bool service_alive(const struct service *p)
{
	uint64_t started = 0;
	bool zombie = true;

	return p->pid > 0 && read_stat(p->pid, &started, &zombie) == 0 && !zombie &&
	       started == p->started;
}

static int open_process(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Ends the process that the descriptor stands for. */
static void end(int pidfd, uint64_t limit_ns)
{
	struct pollfd poll_for = {.fd = pidfd, .events = POLLIN};

	(void)syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
	if (poll(&poll_for, 1, (int)(limit_ns / NSEC_PER_MSEC)) > 0)
		return;
	(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	(void)poll(&poll_for, 1, KILL_LIMIT_MS);
}

void service_end(const struct service *p, uint64_t limit_ns)
{
	CLEANUP_CLOSE int pidfd = p->pid > 0 ? open_process(p->pid) : -1;

	/* The descriptor is taken first: what is alive then is what it stands for. */
	if (pidfd < 0 || !service_alive(p))
		return;
	end(pidfd, limit_ns);
	/* In case it is a child of this very command. */
	(void)waitpid(p->pid, NULL, WNOHANG);
}

void service_end_listener(const char *path, uint64_t limit_ns)
{
	CLEANUP_CLOSE int fd = -1;
	CLEANUP_CLOSE int pidfd = -1;
	struct ucred peer;
	socklen_t size = sizeof(peer);
	char byte;

	if (connect_unix(path, &fd, NULL) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid <= 0)
		return;
	pidfd = open_process(peer.pid);
	/*
	 * The connection stands only as long as its process: one that is still open tells that the
	 * number has not become another's before the descriptor was taken.
	 */
	if (pidfd >= 0 && recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0)
		end(pidfd, limit_ns);
}

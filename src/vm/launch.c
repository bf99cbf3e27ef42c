/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Privileges. sosie-vm opens what the guest needs with its own rights; QEMU is started with the
 * rights of spec->uid and gid (when there is one) and inherits the descriptors. Of the folder it
 * owns two files, disk.qcow2 and console.log; it can neither remove them nor make others. With
 * KVM it keeps one supplementary group: that of /dev/kvm, when this group may use it.
 *
 * Orphans. A QEMU whose supervisor has died would run on without anybody writing down what
 * becomes of it. So the kernel kills it with its supervisor (PR_SET_PDEATHSIG): for the guest it
 * is as if the power had failed, and the agent sees both ends at once.
 */
#include "vm/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "io/listen.h"
#include "io/loop.h"
#include "vm/qemu_args.h"

/* Everything that is needed until the fork, each -1 or a descriptor to be closed. */
struct material {
	struct qemu_fds child;
	int qmp, console; /* our ends */
	int error_read, error_write;
};

static void material_init(struct material *m)
{
	*m = (struct material){.child = {-1, -1, -1, -1, -1, {0}},
		.qmp = -1,
		.console = -1,
		.error_read = -1,
		.error_write = -1};
	for (size_t i = 0; i < VM_NICS_MAX; i++)
		m->child.nics[i] = -1;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void close_childs(struct material *m)
{
	close_one(&m->child.qmp);
	close_one(&m->child.console);
	close_one(&m->child.guest);
	close_one(&m->child.image);
	close_one(&m->child.shared);
	close_one(&m->error_write);
	for (size_t i = 0; i < VM_NICS_MAX; i++)
		close_one(&m->child.nics[i]);
}

static void material_free(struct material *m)
{
	close_childs(m);
	close_one(&m->qmp);
	close_one(&m->console);
	close_one(&m->error_read);
}

static int make_pair(int *ours, int *theirs, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, -errno, "make a socket pair");
	*ours = pair[0];
	*theirs = pair[1];
	return 0;
}

static int open_files(const struct vm_spec *s, struct material *m, struct err *e)
{
	CLEANUP_CLOSE int log = -1, disk = -1;
	struct stat st = {0};

	if (s->image[0]) {
		m->child.image = open(s->image, O_RDONLY | O_CLOEXEC);
		if (m->child.image < 0)
			return err_errno(e, -errno, "open the image %s", s->image);
	}
	if (s->shared_path[0]) {
		m->child.shared = open(s->shared_path, O_RDWR | O_CLOEXEC);
		if (m->child.shared < 0 || fstat(m->child.shared, &st) < 0)
			return err_errno(e, -errno, "open %s", s->shared_path);
		if ((uint64_t)st.st_size < s->shared_bytes)
			return err_set(e, ERR_INVALID, "%s is shorter than its %llu bytes",
				s->shared_path, (unsigned long long)s->shared_bytes);
	}
	disk = open("disk.qcow2", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (disk < 0)
		return err_errno(e, -errno, "open disk.qcow2");
	log = open("console.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (log < 0)
		return err_errno(e, -errno, "open console.log");
	if (!s->drops)
		return 0;
	/* QEMU opens the shared file once more, by its number, with its own rights. */
	if (m->child.shared >= 0 &&
		(fchown(m->child.shared, (uid_t)-1, s->gid) < 0 ||
			fchmod(m->child.shared, (st.st_mode & 0777) | 0060) < 0))
		return err_errno(e, -errno, "give %s to the guest's group", s->shared_path);
	if (fchown(disk, s->uid, s->gid) < 0 || fchown(log, s->uid, s->gid) < 0)
		return err_errno(e, -errno, "give the disk to the guest's user");
	return 0;
}

static int open_sockets(const struct vm_spec *s, struct material *m, struct err *e)
{
	int pipe_fds[2], r = make_pair(&m->qmp, &m->child.qmp, e);

	if (r == 0)
		r = make_pair(&m->console, &m->child.console, e);
	if (r == 0)
		r = listen_unix("guest.sock", 0600, &m->child.guest, e);
	for (size_t i = 0; r == 0 && i < s->nics; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "nic%zu.sock", i);
		r = listen_unix(name, 0600, &m->child.nics[i], e);
	}
	if (r < 0)
		return r;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "make a pipe");
	m->error_read = pipe_fds[0];
	m->error_write = pipe_fds[1];
	if (fcntl(m->error_read, F_SETFL, O_NONBLOCK) < 0)
		return err_errno(e, -errno, "make a pipe");
	return 0;
}

/* The group that may use /dev/kvm, unless that is root's. */
static size_t kvm_groups(const struct vm_spec *s, gid_t *group)
{
	struct stat st;

	if (!s->kvm || stat("/dev/kvm", &st) < 0 || (st.st_mode & 0060) != 0060 || st.st_gid == 0)
		return 0;
	*group = st.st_gid;
	return 1;
}

static int inherit(int fd)
{
	return fd < 0 ? 0 : fcntl(fd, F_SETFD, 0);
}

/* In the child: everything between fork and exec. Returns only when it failed. */
static const char *become_qemu(
	const struct vm_spec *s, const struct material *m, char **args, pid_t parent)
{
	const struct rlimit no_core = {0, 0};
	gid_t group = 0;
	size_t groups = kvm_groups(s, &group);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	loop_reset_signals();
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
		dup2(m->error_write, STDERR_FILENO) < 0)
		return "redirect the standard streams";
	if (inherit(m->child.qmp) < 0 || inherit(m->child.console) < 0 ||
		inherit(m->child.guest) < 0 || inherit(m->child.image) < 0 ||
		inherit(m->child.shared) < 0)
		return "pass descriptors on";
	for (size_t i = 0; i < s->nics; i++)
		if (inherit(m->child.nics[i]) < 0)
			return "pass descriptors on";
	(void)setsid();
	if (setrlimit(RLIMIT_CORE, &no_core) < 0)
		return "forbid core files";
	if (s->drops && (setgroups(groups, &group) < 0 || setresgid(s->gid, s->gid, s->gid) < 0 ||
				setresuid(s->uid, s->uid, s->uid) < 0))
		return "become the guest's user";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return "give up privileges";
	/* After the change of user, which resets it; and the parent may have gone before. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		return "be bound to the supervisor";
	(void)execvp(args[0], args);
	return "execute " QEMU_PROGRAM;
}

int launch_qemu(const struct vm_spec *s, struct launched *ret, struct err *e)
{
	CLEANUP(material_free) struct material m;
	CLEANUP(qemu_args_free_p) char **args = NULL;
	pid_t parent = getpid(), pid;
	int r;

	material_init(&m);
	r = open_files(s, &m, e);
	if (r == 0)
		r = open_sockets(s, &m, e);
	if (r < 0)
		return r;
	r = qemu_args(s, &m.child, &args);
	if (r < 0)
		return err_errno(e, r, "build QEMU's command line");
	pid = fork();
	if (pid < 0)
		return err_errno(e, -errno, "fork");
	if (pid == 0) {
		const char *what = become_qemu(s, &m, args, parent);

		(void)dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(errno));
		_exit(127);
	}
	ret->pid = pid;
	ret->qmp = TAKE_FD(m.qmp);
	ret->console = TAKE_FD(m.console);
	ret->standard_error = TAKE_FD(m.error_read);
	return 0;
}

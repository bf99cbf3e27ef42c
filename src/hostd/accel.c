/* SPDX-License-Identifier: Apache-2.0 */
/*
 * That /dev/kvm opens says little: nested or restricted hosts give a KVM that stops at the first
 * page table, or never delivers an interrupt. So a guest is run (probe_guest.S) that goes through
 * a kernel's early boot and says on its serial port how far it came.
 */
#include "hostd/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "hostd/resources.h"
#include "io/file.h"
#include "io/json.h"
#include "io/loop.h"

/* Firmware does not boot from a disk as small as the guest. */
#define DISK_BYTES (1U << 20)
/* QEMU's isa-debug-exit makes this of the byte. */
#define DONE_STATUS ((PROBE_DONE << 1) | 1)

#define PROBE_GUEST_BYTES 512
extern const char probe_guest[PROBE_GUEST_BYTES];

/* What the letters mean that the guest prints, in their order. */
static const struct {
	char letter;
	const char *stage;
} stages[] = {
	{'r', "real mode"},
	{'p', "protected mode"},
	{'l', "long mode with paging"},
	{'c', "CPUID"},
	{'m', "reading model specific registers"},
	{'x', "an exception"},
	{'a', "the interrupt controller"},
	{'t', "a timer interrupt"},
};

struct probe {
	int disk, output, errors;
};

static void probe_free(struct probe *p)
{
	if (p->disk >= 0)
		(void)close(p->disk);
	if (p->output >= 0)
		(void)close(p->output);
	if (p->errors >= 0)
		(void)close(p->errors);
}

static int probe_open(struct probe *p)
{
	p->disk = memfd_create("probe-disk", MFD_CLOEXEC);
	p->output = memfd_create("probe-output", MFD_CLOEXEC);
	p->errors = memfd_create("probe-errors", MFD_CLOEXEC);
	if (p->disk < 0 || p->output < 0 || p->errors < 0 || ftruncate(p->disk, DISK_BYTES) < 0)
		return -errno;
	if (pwrite(p->disk, probe_guest, PROBE_GUEST_BYTES, 0) != PROBE_GUEST_BYTES)
		return -EIO;
	return 0;
}

static bool drop_rights(const struct guest_user *user)
{
	struct stat st;
	gid_t group = 0;
	size_t groups = 0;

	if (!user->drops)
		return true;
	/* As sosie-vm does it for a guest. */
	if (stat("/dev/kvm", &st) == 0 && (st.st_mode & 0060) == 0060 && st.st_gid != 0) {
		group = st.st_gid;
		groups = 1;
	}
	return setgroups(groups, &group) == 0 && setresgid(user->gid, user->gid, user->gid) == 0 &&
	       setresuid(user->uid, user->uid, user->uid) == 0;
}

static void run(
	const char *accelerator, const struct probe *p, const struct guest_user *user, pid_t parent)
{
	static const char sandbox[] =
		"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
	int null = open("/dev/null", O_RDONLY);
	char add_fd[32], port[48];

	(void)snprintf(add_fd, sizeof(add_fd), "fd=%d,set=1", p->disk);
	(void)snprintf(port, sizeof(port), "isa-debug-exit,iobase=%d,iosize=1", PROBE_PORT);
	loop_reset_signals();
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(p->output, STDOUT_FILENO) < 0 ||
		dup2(p->errors, STDERR_FILENO) < 0 || fcntl(p->disk, F_SETFD, 0) < 0 ||
		!drop_rights(user) || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(126);
	(void)execlp("qemu-system-x86_64", "qemu-system-x86_64", "-machine", "q35", "-accel",
		accelerator, "-cpu", "max", "-smp", "1,maxcpus=2", "-m", "64M", "-sandbox", sandbox,
		"-nodefaults", "-no-user-config", "-display", "none", "-add-fd", add_fd,
		"-blockdev",
		"{\"driver\":\"file\",\"node-name\":\"f\",\"filename\":\"/dev/fdset/1\"}",
		"-blockdev", "{\"driver\":\"raw\",\"node-name\":\"disk\",\"file\":\"f\"}",
		"-device", "virtio-blk-pci,drive=disk,bootindex=0", "-serial", "stdio", "-device",
		port, (char *)NULL);
	(void)dprintf(STDERR_FILENO, "execute qemu-system-x86_64: %s", strerror(errno));
	_exit(127);
}

/* Waits for its end, and makes it when the time is over. 1: in time. */
static int await(pid_t pid, uint64_t limit_ns, int *status)
{
	CLEANUP_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int r = 0;

	if (pidfd >= 0)
		r = poll(&p, 1, (int)(limit_ns / NSEC_PER_MSEC));
	if (r <= 0)
		(void)kill(pid, SIGKILL);
	if (waitpid(pid, status, 0) < 0)
		return -errno;
	return r > 0;
}

/* The whole of a small file, as text on one line. */
static void read_text(int fd, char *out, size_t size)
{
	ssize_t n = pread(fd, out, size - 1, 0);

	out[MAX(n, 0)] = '\0';
	for (char *c = out; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	for (n = (ssize_t)strlen(out); n > 0 && out[n - 1] == ' '; n--)
		out[n - 1] = '\0';
}

static void judge(
	const struct probe *p, int status, bool in_time, uint64_t limit_ns, struct accel *verdict)
{
	char output[64], errors[256];
	const char *reached = "nothing";

	read_text(p->output, output, sizeof(output));
	read_text(p->errors, errors, sizeof(errors));
	for (size_t i = 0; i < ARRAY_SIZE(stages); i++)
		if (strchr(output, stages[i].letter))
			reached = stages[i].stage;
	verdict->kvm = in_time && WIFEXITED(status) && WEXITSTATUS(status) == DONE_STATUS;
	if (verdict->kvm)
		(void)snprintf(verdict->reason, sizeof(verdict->reason),
			"a test guest came through its early boot");
	else if (!in_time)
		(void)snprintf(verdict->reason, sizeof(verdict->reason),
			"a test guest hung: within %llu ms it came to %s",
			(unsigned long long)(limit_ns / NSEC_PER_MSEC), reached);
	else
		(void)snprintf(verdict->reason, sizeof(verdict->reason),
			"QEMU did not run a test guest (%s %d, it came to %s)%s%s",
			WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), reached,
			errors[0] ? ": " : "", errors);
}

int accel_try(const char *accelerator, const struct guest_user *user, uint64_t limit_ns,
	struct accel *ret, struct err *e)
{
	CLEANUP(probe_free) struct probe p = {-1, -1, -1};
	pid_t parent = getpid(), pid;
	int status = 0, r = probe_open(&p);

	if (r < 0)
		return err_errno(e, r, "make the test guest");
	pid = fork();
	if (pid < 0)
		return err_errno(e, -errno, "fork");
	if (pid == 0)
		run(accelerator, &p, user, parent);
	r = await(pid, limit_ns, &status);
	if (r < 0)
		return err_errno(e, r, "wait for the test guest");
	judge(&p, status, r > 0, limit_ns, ret);
	return 0;
}

int accel_probe(const struct guest_user *user, uint64_t limit_ns, struct accel *ret, struct err *e)
{
	if (access("/dev/kvm", F_OK) == 0)
		return accel_try("kvm", user, limit_ns, ret, e);
	*ret = (struct accel){.reason = "this host has no /dev/kvm"};
	return 0;
}

static bool read_cached(
	int state, const char *boot_id, const struct guest_user *user, struct accel *ret)
{
	CLEANUP_BUF struct buf text = BUF_INIT(2048);
	CLEANUP_JSON json_t *json = NULL;
	const char *boot, *accel, *reason;
	int64_t uid;

	if (file_read_at(state, "accel.json", &text) < 0 ||
		json_parse(buf_text(&text), text.size, NULL, &json, NULL) < 0 ||
		json_get_string(json, "boot_id", 64, &boot, NULL) < 0 ||
		json_get_string(json, "accel", 8, &accel, NULL) < 0 ||
		json_get_integer(json, "uid", 0, UINT32_MAX, &uid, NULL) < 0 ||
		json_get_string(json, "reason", sizeof(ret->reason), &reason, NULL) < 0 ||
		strcmp(boot, boot_id) != 0 || uid != (int64_t)user->uid)
		return false;
	ret->kvm = !strcmp(accel, "kvm");
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", reason);
	return true;
}

int accel_auto(int state, const struct guest_user *user, struct accel *ret, struct err *e)
{
	CLEANUP_JSON json_t *json = NULL;
	CLEANUP_FREE char *text = NULL;
	char boot_id[BOOT_ID_SIZE];
	struct accel found = {0};
	int r = read_boot_id(boot_id, e);

	if (r < 0)
		return r;
	if (read_cached(state, boot_id, user, ret))
		return 0;
	r = accel_probe(user, ACCEL_LIMIT_NS, &found, e);
	if (r < 0)
		return r;
	json = json_pack("{s:s, s:s, s:s, s:I}", "accel", found.kvm ? "kvm" : "tcg", "reason",
		found.reason, "boot_id", boot_id, "uid", (json_int_t)user->uid);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	if (!text)
		return err_errno(e, -ENOMEM, "keep the verdict on KVM");
	r = privileged_write(state, "accel.json", text, strlen(text), 0600, e);
	if (r < 0)
		return r;
	*ret = found;
	return 0;
}

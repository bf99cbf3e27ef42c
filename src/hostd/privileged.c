/* SPDX-License-Identifier: Apache-2.0 */
#include "hostd/privileged.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/str.h"
#include "io/loop.h"

/* The guest's user may pass through the folder, not list it. */
#define FOLDER_MODE 0711
/* Files of a folder; sosie-vm and QEMU make about a dozen. */
#define FOLDER_FILES_MAX 1024

static int user_by_name(const char *name, struct guest_user *ret)
{
	const struct passwd *found = getpwnam(name);

	if (!found)
		return -ENOENT;
	*ret = (struct guest_user){.drops = true, .uid = found->pw_uid, .gid = found->pw_gid};
	return 0;
}

int guest_user_parse(const char *text, struct guest_user *ret, struct err *e)
{
	const char *colon = text ? strchr(text, ':') : NULL;
	uint64_t uid, gid;
	char first[32];

	if (!text && geteuid() == 0 &&
		(user_by_name("sosie-vm", ret) == 0 || user_by_name("nobody", ret) == 0))
		return 0;
	if (!text || !strcmp(text, "none")) {
		*ret = (struct guest_user){0};
		return 0;
	}
	if (geteuid() != 0)
		return err_set(
			e, ERR_FORBIDDEN, "only root can run guests as another user than itself");
	if (colon && (size_t)(colon - text) < sizeof(first)) {
		(void)snprintf(first, sizeof(first), "%.*s", (int)(colon - text), text);
		if (parse_u64(first, UINT32_MAX - 1, &uid) == 0 && uid > 0 &&
			parse_u64(colon + 1, UINT32_MAX - 1, &gid) == 0 && gid > 0) {
			*ret = (struct guest_user){true, (uid_t)uid, (gid_t)gid};
			return 0;
		}
	} else if (user_by_name(text, ret) == 0 && ret->uid > 0 && ret->gid > 0) {
		return 0;
	}
	return err_set(e, ERR_USAGE, "no unprivileged user %s", text);
}

static int check_id(const char *id, struct err *e)
{
	if (name_valid(id))
		return 0;
	return err_set(e, ERR_INVALID, "the id of an instance is %s", name_rule);
}

int privileged_open_folder(int instances, const char *id, int *ret_folder, struct err *e)
{
	int fd, r = check_id(id, e);

	if (r < 0)
		return r;
	fd = openat(instances, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(e, -errno, "open the folder of %s", id);
	*ret_folder = fd;
	return 0;
}

int privileged_make_folder(int instances, const char *id, int *ret_folder, struct err *e)
{
	int r = check_id(id, e);

	if (r < 0)
		return r;
	if (mkdirat(instances, id, FOLDER_MODE) < 0 && errno != EEXIST)
		return err_errno(e, -errno, "make the folder of %s", id);
	r = privileged_open_folder(instances, id, ret_folder, e);
	if (r < 0)
		return r;
	/* Whatever the umask; and the folder's own name must outlive a crash as its files do. */
	if (fchmod(*ret_folder, FOLDER_MODE) < 0 || fsync(instances) < 0) {
		r = -errno;
		(void)close(*ret_folder);
		return err_errno(e, r, "make the folder of %s", id);
	}
	return 0;
}

int privileged_remove_folder(int instances, const char *id, struct err *e)
{
	int fd = -1, files = 0, r = privileged_open_folder(instances, id, &fd, e);
	const struct dirent *entry;
	DIR *folder;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	folder = fdopendir(fd);
	if (!folder) {
		(void)close(fd);
		return err_errno(e, -ENOMEM, "read the folder of %s", id);
	}
	while (r == 0 && files++ < FOLDER_FILES_MAX && (entry = readdir(folder))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(fd, entry->d_name, 0) < 0 && errno != ENOENT)
			r = err_errno(e, -errno, "remove %s of %s", entry->d_name, id);
	}
	(void)closedir(folder);
	if (r == 0 && unlinkat(instances, id, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = err_errno(e, -errno, "remove the folder of %s", id);
	return r;
}

int privileged_write(
	int folder, const char *name, const void *bytes, size_t n, unsigned int mode, struct err *e)
{
	CLEANUP_CLOSE int fd = -1;
	char temporary[NAME_MAX_LENGTH + 8];
	ssize_t done;
	int r = 0;

	(void)snprintf(temporary, sizeof(temporary), "%s.new", name);
	fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return err_errno(e, -errno, "write %s", name);
	done = write(fd, bytes, n);
	if (done != (ssize_t)n)
		r = done < 0 ? -errno : -ENOSPC;
	if (r == 0 && (fsync(fd) < 0 || renameat(folder, temporary, folder, name) < 0 ||
			      fsync(folder) < 0))
		r = -errno;
	if (r == 0)
		return 0;
	(void)unlinkat(folder, temporary, 0);
	return err_errno(e, r, "write %s", name);
}

/* In the child. Descriptor 3 is where the start is told. */
static void become_vm(const char *program, int folder, int ready, int log, int null)
{
	static char number[] = "3", here[] = ".";
	char *const args[] = {(char *)program, here, number, NULL};

	loop_reset_signals();
	(void)setsid();
	if (fchdir(folder) < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
		dup2(log, STDERR_FILENO) < 0)
		_exit(126);
	/* dup2() onto itself would leave close-on-exec set. */
	if (ready == 3 ? fcntl(3, F_SETFD, 0) < 0 : dup2(ready, 3) < 0)
		_exit(126);
	(void)execv(program, args);
	(void)dprintf(3, "{\"error\":{\"code\":\"internal\",\"message\":\"execute %s: %s\"}}\n",
		program, strerror(errno));
	_exit(127);
}

/* What becomes of the guest is learnt from its folder; this only reaps the process. */
static int on_end(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	(void)source;
	(void)info;
	(void)userdata;
	return 0;
}

int privileged_start_vm(
	sd_event *event, const char *program, int folder, int *ret_ready, struct err *e)
{
	CLEANUP_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CLEANUP_CLOSE int log = openat(folder, "vm.log",
		O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	CLEANUP_CLOSE int write_end = -1, read_end = -1;
	int fds[2], r;
	pid_t pid;

	if (null < 0 || log < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "prepare the start of sosie-vm");
	read_end = fds[0];
	write_end = fds[1];
	if (fcntl(read_end, F_SETFL, O_NONBLOCK) < 0)
		return err_errno(e, -errno, "prepare the start of sosie-vm");
	pid = fork();
	if (pid < 0)
		return err_errno(e, -errno, "fork");
	if (pid == 0)
		become_vm(program, folder, write_end, log, null);
	r = loop_child(event, pid, on_end, NULL, NULL);
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		return err_errno(e, r, "watch sosie-vm");
	}
	*ret_ready = TAKE_FD(read_end);
	return 0;
}

void privileged_remove_cgroup(const char *path)
{
	if (str_starts_with(path, "/") && strstr(path, "/sosie-") && !strstr(path, ".."))
		(void)rmdir(path);
}

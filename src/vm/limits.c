/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MOUNTINFO_LINE 4096

static int write_file(const char *folder, const char *name, const char *format, ...) PRINTF(3, 4);

static int write_file(const char *folder, const char *name, const char *format, ...)
{
	CLEANUP_CLOSE int fd = -1;
	char path[VM_PATH_MAX], text[64];
	va_list values;
	int n;

	if (path_join(path, sizeof(path), folder, name) < 0)
		return -ENAMETOOLONG;
	va_start(values, format);
	n = vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, text, (size_t)n) == n ? 0 : -errno;
}

/* One after the other, so that a missing controller does not take the others with it. */
static void set_each(struct limits *l, const char *parent, const struct vm_spec *s)
{
	uint64_t memory = (s->memory_mib + LIMITS_MEMORY_OVERHEAD_MIB) << 20;
	unsigned int threads = s->cores + LIMITS_THREADS_OVERHEAD;
	unsigned int cpu = (s->cores * 100 + LIMITS_CPU_OVERHEAD_PERCENT) * 1000;
	size_t used = 0;

	l->verdict[0] = '\0';
	for (size_t i = 0; i < 3; i++) {
		static const char *const names[] = {"memory", "cpu", "pids"};
		int r;

		(void)write_file(parent, "cgroup.subtree_control", "+%s", names[i]);
		if (i == 0)
			r = write_file(l->path, "memory.max", "%llu", (unsigned long long)memory);
		else if (i == 1)
			r = write_file(l->path, "cpu.max", "%u 100000", cpu);
		else
			r = write_file(l->path, "pids.max", "%u", threads);
		if (r == 0)
			used += (size_t)snprintf(l->verdict + used, sizeof(l->verdict) - used,
				"%s%s", used ? " " : "", names[i]);
	}
	if (used == 0)
		(void)snprintf(l->verdict, sizeof(l->verdict),
			"none: no controller is delegated to this control group");
}

void limits_set_at(
	struct limits *l, const char *root, const char *own, const struct vm_spec *s, pid_t qemu)
{
	char parent[VM_PATH_MAX];
	int n = snprintf(parent, sizeof(parent), "%s%s", root, strcmp(own, "/") != 0 ? own : "");
	int r = n < 0 || (size_t)n >= sizeof(parent) ? -ENAMETOOLONG : 0;

	*l = (struct limits){0};
	if (r == 0)
		n = snprintf(l->path, sizeof(l->path), "%s/sosie-%s", parent, s->id);
	if (r == 0 && (n < 0 || (size_t)n >= sizeof(l->path)))
		r = -ENAMETOOLONG;
	if (r == 0 && mkdir(l->path, 0755) < 0 && errno != EEXIST)
		r = -errno;
	if (r < 0) {
		(void)snprintf(l->verdict, sizeof(l->verdict),
			"none: no control group can be made: %s", strerror(-r));
		l->path[0] = '\0';
		return;
	}
	set_each(l, parent, s);
	r = write_file(l->path, "cgroup.procs", "%d", (int)qemu);
	if (r < 0) {
		limits_drop(l);
		(void)snprintf(l->verdict, sizeof(l->verdict),
			"none: QEMU cannot be put into a control group: %s", strerror(-r));
	}
}

/* Where the cgroup2 file system is mounted. */
static int find_root(char *root, size_t size)
{
	CLEANUP_FREE char *line = NULL;
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	size_t room = 0;
	int r = -ENOENT;

	if (!mounts)
		return -errno;
	/* ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE OPTIONS */
	while (r < 0 && getline(&line, &room, mounts) > 0) {
		char point[1024];

		if (strstr(line, " - cgroup2 ") &&
			sscanf(line, "%*s %*s %*s %*s %1023s", point) == 1 &&
			strlen(point) < size) {
			(void)snprintf(root, size, "%s", point);
			r = 0;
		}
	}
	(void)fclose(mounts);
	return r;
}

/* Our own group in that hierarchy. */
static int find_own(char *own, size_t size)
{
	CLEANUP_FREE char *line = NULL;
	FILE *groups = fopen("/proc/self/cgroup", "re");
	size_t room = 0;
	int r = -ENOENT;

	if (!groups)
		return -errno;
	while (r < 0 && getline(&line, &room, groups) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (str_starts_with(line, "0::/") && strlen(line + 3) < size) {
			(void)snprintf(own, size, "%s", line + 3);
			r = 0;
		}
	}
	(void)fclose(groups);
	return r;
}

void limits_set(struct limits *l, const struct vm_spec *s, pid_t qemu)
{
	char root[1024], own[1024];

	if (find_root(root, sizeof(root)) < 0 || find_own(own, sizeof(own)) < 0) {
		*l = (struct limits){.verdict = "none: there is no cgroup version 2 hierarchy"};
		return;
	}
	limits_set_at(l, root, own, s, qemu);
}

void limits_drop(struct limits *l)
{
	if (l->path[0])
		(void)rmdir(l->path);
	l->path[0] = '\0';
}

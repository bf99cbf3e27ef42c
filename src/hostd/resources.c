/* SPDX-License-Identifier: Apache-2.0 */
#include "hostd/resources.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/str.h"

/* The value behind "name:" in a file of such lines. */
static int read_field(const char *path, const char *name, char *out, size_t size)
{
	CLEANUP_FREE char *line = NULL;
	FILE *file = fopen(path, "re");
	size_t room = 0, n = strlen(name);
	int r = -ENOENT;

	if (!file)
		return -errno;
	while (r < 0 && getline(&line, &room, file) > 0) {
		const char *value = strchr(line, ':');

		if (strncmp(line, name, n) != 0 || !value)
			continue;
		value += 1 + strspn(value + 1, " \t");
		(void)snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
		r = 0;
	}
	(void)fclose(file);
	return r;
}

static int read_memory(uint64_t *ret)
{
	char text[64];
	uint64_t kib;
	int r = read_field("/proc/meminfo", "MemTotal", text, sizeof(text));

	if (r < 0)
		return r;
	text[strcspn(text, " ")] = '\0';
	r = parse_u64(text, UINT64_MAX >> 10, &kib);
	if (r < 0)
		return r;
	*ret = kib << 10;
	return 0;
}

static int read_cores(uint64_t *ret)
{
	cpu_set_t *set = NULL;
	int cpus = 64, r;

	/* The kernel's set may be larger than libc's. */
	for (;;) {
		size_t size = CPU_ALLOC_SIZE((size_t)cpus);

		set = CPU_ALLOC((size_t)cpus);
		if (!set)
			return -ENOMEM;
		r = sched_getaffinity(0, size, set) < 0 ? -errno : 0;
		if (r == 0)
			*ret = (uint64_t)CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (r != -EINVAL || cpus >= 1 << 20)
			return r;
		cpus *= 2;
	}
}

int resources_read(
	int directory, const struct resources *offered, struct resources *ret, struct err *e)
{
	struct resources found = {0};
	struct statvfs fs;
	int r = read_cores(&found.cores);

	if (r == 0)
		r = read_memory(&found.memory_bytes);
	if (r < 0)
		return err_errno(e, r, "read the host's resources");
	if (fstatvfs(directory, &fs) < 0)
		return err_errno(e, -errno, "read the size of the state folder's file system");
	found.disk_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (read_field("/proc/cpuinfo", "model name", found.cpu_model, sizeof(found.cpu_model)) < 0)
		(void)snprintf(found.cpu_model, sizeof(found.cpu_model), "unknown");
	if (offered->cores)
		found.cores = offered->cores;
	if (offered->memory_bytes)
		found.memory_bytes = offered->memory_bytes;
	if (offered->disk_bytes)
		found.disk_bytes = offered->disk_bytes;
	*ret = found;
	return 0;
}

json_t *resources_json(const struct resources *r)
{
	return json_pack("{s:I, s:I, s:I, s:s}", "cores", (json_int_t)r->cores, "memory_bytes",
		(json_int_t)r->memory_bytes, "disk_bytes", (json_int_t)r->disk_bytes, "cpu_model",
		r->cpu_model);
}

int read_boot_id(char out[BOOT_ID_SIZE], struct err *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	FILE *file = fopen(path, "re");
	size_t n;

	if (!file)
		return err_errno(e, -errno, "open %s", path);
	n = fread(out, 1, BOOT_ID_SIZE - 1, file);
	out[n] = '\0';
	(void)fclose(file);
	return n == BOOT_ID_SIZE - 1 ? 0 : err_set(e, ERR_CORRUPT, "%s is too short", path);
}

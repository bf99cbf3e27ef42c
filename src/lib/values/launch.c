/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/values/launch.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "lib/values/client.h"

#define PRELOAD_LIBRARY "libsosie-preload.so"

/* Beside us as built (../lib), or where it is installed. */
static int find_preload(char *out, struct err *e)
{
	static const char *const places[] = {"../lib/" PRELOAD_LIBRARY,
		"../lib/sosie/" PRELOAD_LIBRARY, "../lib/x86_64-linux-gnu/sosie/" PRELOAD_LIBRARY};
	char self[PATH_MAX], candidate[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return err_errno(e, -errno, "find this program");
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (path_join(candidate, sizeof(candidate), self, places[i]) == 0 &&
			realpath(candidate, out))
			return 0;
	return err_set(
		e, ERR_INTERNAL, "%s is not where it was installed or built", PRELOAD_LIBRARY);
}

/* The file that execvp() would run. */
int launch_find(const char *name, char *out, struct err *e)
{
	const char *path = getenv("PATH");
	bool denied = false;

	if (strchr(name, '/')) {
		(void)snprintf(out, PATH_MAX, "%s", name);
		if (access(out, X_OK) == 0)
			return 0;
		return err_errno(e, -errno, "%s", name);
	}
	for (path = path ? path : "/usr/bin:/bin"; *path;) {
		size_t n = strcspn(path, ":");
		struct stat st;

		(void)snprintf(out, PATH_MAX, "%.*s%s%s", (int)n, path, n > 0 ? "/" : "", name);
		if (access(out, X_OK) == 0 && stat(out, &st) == 0 && S_ISREG(st.st_mode))
			return 0;
		denied = denied || errno == EACCES;
		path += n;
		path += *path == ':';
	}
	if (denied)
		return err_set(e, ERR_FORBIDDEN, "%s cannot be executed", name);
	return err_set(e, ERR_NOT_FOUND, "%s is not found in PATH", name);
}

/*
 * A program without an interpreter never loads our library and would take part in name only.
 * Scripts and what is no ELF file pass: their interpreter is looked at by nobody but the kernel.
 */
int launch_check(const char *path, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	struct stat st;

	if (fd < 0 || read(fd, &header, sizeof(header)) != sizeof(header) ||
		memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
		return 0;
	if (fstat(fd, &st) == 0 && st.st_mode & (S_ISUID | S_ISGID)) {
		(void)err_set(e, ERR_INVALID, "%s is a set-user-ID program", path);
		return err_hint(e, "such a program is never made a member; run it without sosie");
	}
	for (unsigned int i = 0; i < header.e_phnum; i++) {
		off_t at = (off_t)(header.e_phoff + (uint64_t)i * header.e_phentsize);

		if (pread(fd, &segment, sizeof(segment), at) != sizeof(segment))
			break;
		if (segment.p_type == PT_INTERP)
			return 0;
	}
	(void)err_set(e, ERR_INVALID, "%s is statically linked: its values cannot be shared", path);
	return err_hint(e, "use a dynamically linked build of the program");
}

static int set_environment(const char *value, struct err *e)
{
	const char *list = getenv(PRELOAD_VARIABLE);
	char library[PATH_MAX];
	CLEANUP_FREE char *merged = NULL;
	int r = find_preload(library, e);

	if (r < 0)
		return r;
	if (asprintf(&merged, "%s%s%s", library, list && *list ? ":" : "", list ? list : "") < 0 ||
		setenv(PRELOAD_VARIABLE, merged, 1) < 0 || setenv(RUN_VARIABLE, value, 1) < 0)
		return err_errno(e, -ENOMEM, "set the environment");
	return 0;
}

/*
 * Addresses must be alike in all copies, since programs print and hash them; and a program that
 * would gain rights must not gain them here, where what it draws is known to others.
 */
static int set_process(struct err *e)
{
	int now = personality(0xffffffff);

	if (now < 0 || personality((unsigned long)now | ADDR_NO_RANDOMIZE) < 0)
		return err_errno(e, -errno, "switch address randomisation off");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, -errno, "set no_new_privs");
	return 0;
}

int launch_prepare(const struct group *g, const struct member *m, struct err *e)
{
	CLEANUP_FREE char *value = NULL;
	int r = set_process(e);

	if (r == 0)
		r = group_run_value(g, m, &value, e);
	if (r == 0)
		r = set_environment(value, e);
	return r;
}

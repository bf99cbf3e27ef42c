/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting programs. The environment of the new program names its lineage, whatever environment
 * the old one passes; a set-user-ID program gets neither that nor this library.
 *
 * execve() and posix_spawn() may be called by a child that shares its parent's memory, so the
 * environment is put together on the stack.
 */
#include <alloca.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/values/preload/preload.h"

/* A longer LD_PRELOAD of the program's own is left alone, and with it ours is left out. */
#define PRELOAD_LIST_MAX 4096
/* More than the kernel takes. */
#define ENVIRONMENT_MAX (1 << 18)

struct environment {
	char run[sizeof(RUN_VARIABLE) + RUN_VALUE_MAX];
	char preload[sizeof(PRELOAD_VARIABLE) + PRELOAD_LIST_MAX + RUN_PATH_MAX];
	bool keep; /* pass the program's environment unchanged */
	bool member;
};

/* Whether running the file would change who the process is. Nothing is said about missing files. */
static bool is_set_id(const char *path)
{
	struct stat st = {0};

	return raw_syscall(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, 0) == 0 &&
	       S_ISREG(st.st_mode) && st.st_mode & (S_ISUID | S_ISGID);
}

/* The same for a name that is looked up in PATH. */
static bool is_set_id_in_path(const char *file)
{
	const char *path = getenv("PATH");
	char full[PATH_MAX];

	if (strchr(file, '/'))
		return is_set_id(file);
	for (path = path ? path : "/bin:/usr/bin"; *path;) {
		size_t n = strcspn(path, ":");
		int used = snprintf(full, sizeof(full), "%.*s/%s", (int)n, path, file);

		if (used > 0 && (size_t)used < sizeof(full) &&
			raw_syscall(SYS_faccessat, AT_FDCWD, (long)full, X_OK, 0) == 0)
			return is_set_id(full);
		path += n;
		path += *path == ':';
	}
	return false;
}

static bool is_variable(const char *entry, const char *name)
{
	size_t n = strlen(name);

	return !strncmp(entry, name, n) && entry[n] == '=';
}

/* Puts our library first into a list that may hold it already, or takes it out. */
static void edit_preload(char *out, size_t size, const char *list, bool with)
{
	size_t used =
		(size_t)snprintf(out, size, "%s=%s", PRELOAD_VARIABLE, with ? preload_path : "");

	while (*list) {
		size_t n = strcspn(list, ": ");

		if (n > 0 && !(n == strlen(preload_path) && !memcmp(list, preload_path, n)))
			used += (size_t)snprintf(out + used, size - used, "%s%.*s",
				out[used - 1] == '=' ? "" : ":", (int)n, list);
		list += n;
		list += *list != '\0';
	}
}

static size_t count(char *const list[])
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

/*
 * Decides what the program is to find. child: as for values_run_value(). set_id: leave it alone.
 */
static void prepare(struct environment *e, const char *program, uint64_t child, bool set_id,
	char *const given[])
{
	static const char name[] = RUN_VARIABLE "=";
	const char *list = "";

	for (size_t i = 0; given && given[i]; i++)
		if (is_variable(given[i], PRELOAD_VARIABLE))
			list = given[i] + sizeof(PRELOAD_VARIABLE);
	e->keep = preload_path[0] == '\0' || strlen(list) > PRELOAD_LIST_MAX ||
		  count(given) > ENVIRONMENT_MAX;
	if (e->keep)
		return;
	memcpy(e->run, name, sizeof(name));
	e->member = !set_id && values_run_value(program, child, e->run + sizeof(name) - 1) == 0;
	edit_preload(e->preload, sizeof(e->preload), list, e->member);
}

/* Room needed for assemble(). */
static size_t room(char *const given[])
{
	return (count(given) + 3) * sizeof(char *);
}

static char *const *assemble(struct environment *e, char *const given[], char **out)
{
	bool had_preload = false;
	size_t n = 0;

	if (e->keep)
		return given;
	for (size_t i = 0; given && given[i]; i++) {
		if (is_variable(given[i], RUN_VARIABLE))
			continue;
		if (is_variable(given[i], PRELOAD_VARIABLE)) {
			/* In its place, so that the environment looks the same to the program. */
			had_preload = true;
			if (e->preload[sizeof(PRELOAD_VARIABLE)] != '\0')
				out[n++] = e->preload;
			continue;
		}
		out[n++] = given[i];
	}
	if (e->member && !had_preload)
		out[n++] = e->preload;
	if (e->member)
		out[n++] = e->run;
	out[n] = NULL;
	return out;
}

/* An environment for `program` on the caller's stack. */
#define ENVIRONMENT(program, child, set_id, given)                 \
	({                                                         \
		struct environment *e_ = alloca(sizeof(*e_));      \
		char *const *given_ = (given);                     \
		char **list_;                                      \
                                                                   \
		prepare(e_, (program), (child), (set_id), given_); \
		list_ = e_->keep ? NULL : alloca(room(given_));    \
		assemble(e_, given_, list_);                       \
	})

EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
	return REAL(execve)(path, arguments, ENVIRONMENT(path, 0, is_set_id(path), environment));
}

EXPORT int execv(const char *path, char *const arguments[])
{
	return execve(path, arguments, environ);
}

EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
	return REAL(execvpe)(
		file, arguments, ENVIRONMENT(file, 0, is_set_id_in_path(file), environment));
}

EXPORT int execvp(const char *file, char *const arguments[])
{
	return execvpe(file, arguments, environ);
}

EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
	struct stat st = {0};
	bool set_id = raw_syscall(SYS_fstat, fd, (long)&st, 0, 0) == 0 &&
		      st.st_mode & (S_ISUID | S_ISGID);

	return REAL(fexecve)(fd, arguments,
		ENVIRONMENT(arguments[0] ? arguments[0] : "?", 0, set_id, environment));
}

/* Collects `first, ..., NULL` into a list on the stack; what follows stays in args. */
#define ARGUMENT_LIST(first, args)                         \
	({                                                 \
		va_list again_;                            \
		size_t n_ = 1;                             \
		char **list_;                              \
                                                           \
		va_copy(again_, args);                     \
		while (va_arg(again_, char *))             \
			n_++;                              \
		va_end(again_);                            \
		list_ = alloca((n_ + 1) * sizeof(char *)); \
		list_[0] = (char *)(uintptr_t)(first);     \
		for (size_t i_ = 1; i_ <= n_; i_++)        \
			list_[i_] = va_arg(args, char *);  \
		list_;                                     \
	})

EXPORT int execl(const char *path, const char *first, ...)
{
	char **list;
	va_list args;

	va_start(args, first);
	list = ARGUMENT_LIST(first, args);
	va_end(args);
	return execve(path, list, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
	char **list;
	va_list args;

	va_start(args, first);
	list = ARGUMENT_LIST(first, args);
	va_end(args);
	return execvpe(file, list, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
	char *const *environment;
	char **list;
	va_list args;

	va_start(args, first);
	list = ARGUMENT_LIST(first, args);
	environment = va_arg(args, char *const *);
	va_end(args);
	return execve(path, list, environment);
}

EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path,
	const posix_spawn_file_actions_t *restrict actions,
	const posix_spawnattr_t *restrict attributes, char *const arguments[restrict],
	char *const environment[restrict])
{
	uint64_t child = values_fork_prepare();
	pid_t made = 0;
	int r = REAL(posix_spawn)(&made, path, actions, attributes, arguments,
		ENVIRONMENT(path, child, is_set_id(path), environment));

	if (r == 0)
		made = values_fork_parent(child, made);
	if (r == 0 && pid)
		*pid = made;
	return r;
}

EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict file,
	const posix_spawn_file_actions_t *restrict actions,
	const posix_spawnattr_t *restrict attributes, char *const arguments[restrict],
	char *const environment[restrict])
{
	uint64_t child = values_fork_prepare();
	pid_t made = 0;
	int r = REAL(posix_spawnp)(&made, file, actions, attributes, arguments,
		ENVIRONMENT(file, child, is_set_id_in_path(file), environment));

	if (r == 0)
		made = values_fork_parent(child, made);
	if (r == 0 && pid)
		*pid = made;
	return r;
}

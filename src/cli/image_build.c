/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie image build: the recipes' own program makes a file, which is then imported.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/str.h"
#include "cli/wait.h"

#define BUILD_ARGUMENTS_MAX 64

/* Beside the sources that this program was built from, or where it is installed. */
static int find_builder(char out[PATH_MAX], struct err *e)
{
	static const char *const places[] = {"../../images/build", "../lib/sosie/images/build"};
	char self[PATH_MAX], candidate[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return err_errno(e, -errno, "find this program");
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (path_join(candidate, sizeof(candidate), self, places[i]) == 0 &&
			realpath(candidate, out) && access(out, X_OK) == 0)
			return 0;
	return err_set(e, ERR_UNAVAILABLE, "the image builder is not installed");
}

static int run_builder(char *const argv[], struct err *e)
{
	int status = 0;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		/* Its progress is for people; what this command prints is for programs too. */
		if (dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
			(void)execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return err_errno(e, -errno, "run the image builder");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(e,
			WIFEXITED(status) && WEXITSTATUS(status) == 2 ? ERR_USAGE : ERR_UNAVAILABLE,
			"the image was not built; the builder says why above");
	return 0;
}

int run_image_build(const struct invocation *inv, struct err *e)
{
	char builder[PATH_MAX], folder[] = "/var/tmp/sosie-image.XXXXXX", file[PATH_MAX];
	char *argv[BUILD_ARGUMENTS_MAX + 5];
	const char *name = option(inv, "name");
	int r = find_builder(builder, e), n = 0;

	if (r < 0)
		return r;
	if (inv->count > BUILD_ARGUMENTS_MAX)
		return err_set(e, ERR_TOO_LARGE, "too many arguments for the builder");
	if (!mkdtemp(folder))
		return err_errno(e, -errno, "make a folder for the image");
	(void)snprintf(file, sizeof(file), "%s/image.qcow2", folder);
	argv[n++] = builder;
	for (int i = 0; i < inv->count; i++)
		argv[n++] = inv->arguments[i];
	argv[n++] = (char *)"--output";
	argv[n++] = file;
	argv[n] = NULL;
	r = run_builder(argv, e);
	if (r == 0)
		r = import_image(inv, file, name ? name : inv->arguments[0], e);
	(void)unlink(file);
	(void)snprintf(file, sizeof(file), "%s/image.json", folder);
	(void)unlink(file);
	(void)snprintf(file, sizeof(file), "%s/image.qcow2.json", folder);
	(void)unlink(file);
	(void)rmdir(folder);
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie run: makes this process a member and becomes the program. Nothing of ours stays between
 * the program and its parent: signals, terminal and exit status are the program's own.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "lib/values/launch.h"
#include "lib/values/recorder.h"

int run_program(const struct invocation *inv, struct err *e)
{
	const char *name = option(inv, "group"), *run_text = option(inv, "run");
	const char *member = option(inv, "member");
	CLEANUP(group_close_p) struct group *g = NULL;
	char path[PATH_MAX];
	struct member *m;
	uint64_t run = 0;
	int r;

	if (!name) {
		(void)err_set(e, ERR_USAGE, "which group?");
		return err_hint(e, "sosie run -g GROUP -- PROGRAM");
	}
	if (run_text && parse_u64(run_text, UINT32_MAX, &run) < 0)
		return err_set(e, ERR_INVALID, "--run takes a number, not '%s'", run_text);
	if (member && !name_valid(member)) {
		(void)err_set(e, ERR_INVALID, "'%s' is no name for a member", member);
		return err_hint(e, "a name is %s", name_rule);
	}
	r = launch_find(inv->arguments[0], path, e);
	if (r < 0)
		return r;
	r = launch_check(path, e);
	if (r == 0)
		r = group_open_or_create(name, &g, e);
	if (r == 0)
		r = group_join(g, member, path, (uint32_t)run, MEMBER_HERE, &m, e);
	if (r == 0)
		r = launch_prepare(g, m, e);
	if (r == 0)
		r = recorder_start(g, e);
	if (r < 0) {
		/* 126 and 127 say something about the program, and this is not about it. */
		if (e->code == ERR_NOT_FOUND || e->code == ERR_FORBIDDEN)
			e->code = ERR_UNAVAILABLE;
		return r;
	}
	(void)execv(path, inv->arguments);
	return err_set(e, ERR_FORBIDDEN, "%s: %s", path, strerror(errno));
}

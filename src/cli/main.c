/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/api_table.h"

#define GROUP_NAMES "sosie group list --names"
#define JSON_OPTION                                 \
	{                                           \
		"json", 0, NULL, "print JSON", NULL \
	}
#define END                               \
	{                                 \
		NULL, 0, NULL, NULL, NULL \
	}

static const struct option_spec run_options[] = {
	{"group", 'g', "GROUP", "the group to be a member of; made when it does not exist",
		GROUP_NAMES},
	{"member", 'm', "MEMBER", "this copy's name (default: m1, m2 ...)", NULL},
	{"run", 'n', "N", "the how-manieth run of this program, from 0 (default 0)", NULL},
	END,
};

static const struct option_spec create_options[] = {
	{"size", 's', "BYTES", "how much the group may remember, 1M to 1024G (default 1G)", NULL},
	{"audit", 0, "batch|full", "consumption times to 10 ms (default), or each exactly",
		"echo batch full"},
	{"on-full", 0, "leave|kill",
		"a member with no room left goes on alone (default), or is ended",
		"echo leave kill"},
	{"whole", 0, NULL, "reserve all of its storage now, as sharing it with guests needs", NULL},
	JSON_OPTION,
	END,
};

static const struct option_spec list_options[] = {
	{"names", 0, NULL, "print names only", NULL},
	JSON_OPTION,
	END,
};

static const struct option_spec show_options[] = {
	JSON_OPTION,
	END,
};

static const struct option_spec log_options[] = {
	{"member", 'm', "MEMBER", "only what this member consumed", NULL},
	{"kind", 'k', "KIND", "only this kind, such as random or clock.realtime", NULL},
	JSON_OPTION,
	{"csv", 0, NULL, "print comma-separated values with a heading", NULL},
	END,
};

static const struct option_spec remove_options[] = {
	{"force", 'f', NULL, "also with running members, or when damaged", NULL},
	END,
};

static int run_help(const struct invocation *inv, struct err *e);
static int run_version(const struct invocation *inv, struct err *e);
static int run_completion(const struct invocation *inv, struct err *e);

const struct command commands[] = {
	{"run", "run a program as a member of a group", "-- PROGRAM [ARGUMENT ...]", 1, -1, true,
		run_options,
		"Every copy of the program that runs in the same group gets the same random "
		"numbers,\n"
		"clock readings and process ids, whichever copy asks first. No daemon is needed.\n"
		"\n"
		"The exit status is the program's; 125 when it could not be made a member, 126 "
		"when\n"
		"it cannot be executed, 127 when it is not found.",
		"  sosie run -g demo -- uuidgen     # twice: the same UUID\n"
		"  sosie run -g web -m a -- python3 server.py --port 8001",
		NULL, run_program},
	{"group create", "make a group with options of your own", "GROUP", 1, 1, false,
		create_options, NULL, "  sosie group create web --size 4G --audit full", NULL,
		run_group_create},
	{"group list", "list the groups", NULL, 0, 0, false, list_options, NULL,
		"  sosie group list --json", NULL, run_group_list},
	{"group show", "a group and its members", "GROUP", 1, 1, false, show_options, NULL,
		"  sosie group show web", GROUP_NAMES, run_group_show},
	{"group log", "which member consumed which value when", "GROUP", 1, 1, false, log_options,
		"Each line is one value, or a run of random bytes, under its identity: lane, kind "
		"and\n"
		"ordinal. The time is that of the batch; the column behind it says within how "
		"much\n"
		"before that time it happened (groups made with --audit full: exactly then).",
		"  sosie group log web --member a\n"
		"  sosie group log web --kind clock.realtime --csv > clocks.csv",
		GROUP_NAMES, run_group_log},
	{"group remove", "forget a group and all its values", "GROUP", 1, 1, false, remove_options,
		NULL, "  sosie group remove demo", GROUP_NAMES, run_group_remove},
	API_COMMANDS,
	{"completion", "print a completion script for bash", NULL, 0, 0, false, NULL, NULL,
		"  source <(sosie completion)", NULL, run_completion},
	{"version", "print the version", NULL, 0, 0, false, NULL, NULL, NULL, NULL, run_version},
	{"help", "explain a command", "[COMMAND]", 0, 2, false, NULL, NULL, "  sosie help run",
		NULL, run_help},
};
const size_t command_count = ARRAY_SIZE(commands);

static int run_help(const struct invocation *inv, struct err *e)
{
	bool found = false;

	if (inv->count == 0) {
		command_overview();
		return 0;
	}
	for (size_t i = 0; i < command_count; i++) {
		char words[64];

		(void)snprintf(words, sizeof(words), "%s%s%s", inv->arguments[0],
			inv->count > 1 ? " " : "", inv->count > 1 ? inv->arguments[1] : "");
		if (strncmp(commands[i].name, words, strlen(words)) != 0 ||
			(commands[i].name[strlen(words)] != '\0' &&
				commands[i].name[strlen(words)] != ' '))
			continue;
		if (found)
			(void)printf("\n--\n\n");
		command_help(&commands[i]);
		found = true;
	}
	if (!found)
		return err_set(e, ERR_USAGE, "there is no command '%s'", inv->arguments[0]);
	return 0;
}

static int run_version(const struct invocation *inv, struct err *e)
{
	(void)inv;
	(void)e;
	(void)puts("sosie " SOSIE_VERSION);
	return 0;
}

static int run_completion(const struct invocation *inv, struct err *e)
{
	(void)inv;
	(void)e;
	command_completion();
	return 0;
}

static void report(const struct err *e, bool as_json)
{
	if (as_json) {
		json_t *j = json_pack("{s:{s:s,s:s,s:s}}", "error", "code", err_name(e->code),
			"message", e->message, "hint", e->hint);

		if (j) {
			(void)json_dumpf(j, stderr, JSON_COMPACT);
			(void)fputc('\n', stderr);
			json_decref(j);
			return;
		}
	}
	(void)fprintf(stderr, "sosie: %s\n", e->message);
	if (e->hint[0])
		(void)fprintf(stderr, "hint: %s\n", e->hint);
}

int main(int argc, char **argv)
{
	struct err e = {.code = ERR_INTERNAL, .message = "failed without saying why"};
	struct invocation inv;
	int r;

	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		command_overview();
		return argc < 2 ? err_exit_status(ERR_USAGE) : 0;
	}
	if (!strcmp(argv[1], "--version"))
		return run_version(NULL, NULL);
	r = command_parse(argc - 1, argv + 1, &inv, &e);
	if (r > 0)
		return 0; /* helped */
	if (r == 0)
		r = inv.command->run(&inv, &e);
	if (r >= 0 && fflush(stdout) != 0)
		r = err_set(&e, ERR_INTERNAL, "writing the output failed");
	if (r >= 0)
		return r;
	report(&e, inv.json);
	/* As env(1) and its like do: apart from the statuses of the program that was to run. */
	if (inv.command && inv.command->run == run_program)
		return e.code == ERR_NOT_FOUND ? 127 : e.code == ERR_FORBIDDEN ? 126 : 125;
	if (inv.command && inv.command->run == run_exec)
		return 125;
	return err_exit_status(e.code);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands as a table, from which parsing, --help and shell completion are made.
 */
#ifndef SOSIE_CLI_COMMAND_H
#define SOSIE_CLI_COMMAND_H

#include <stdbool.h>

#include "base/err.h"

#define OPTIONS_MAX 16

struct option_spec {
	const char *name;     /* long form without the dashes */
	char letter;          /* short form, or 0 */
	const char *argument; /* what it takes, NULL: it is a switch */
	const char *help;
	const char *complete; /* shell command that lists what it takes, or NULL */
};

struct invocation;

struct command {
	const char *name; /* one or two words */
	const char *summary;
	const char *arguments; /* as shown behind the options; NULL: it takes none */
	int least, most;       /* number of arguments; most < 0: any */
	bool passes_on;        /* what follows the first argument belongs to another program */
	const struct option_spec *options; /* ends with a name of NULL */
	const char *details;               /* paragraphs for --help; NULL: none */
	const char *examples;              /* one a line */
	const char *complete;              /* lists the first argument, or NULL */
	/* 0 or more: the exit status; else the errno of *e. */
	int (*run)(const struct invocation *inv, struct err *e);
};

struct invocation {
	const struct command *command;
	const char *values[OPTIONS_MAX]; /* in the order of the options; NULL: not given */
	char **arguments;                /* ends with NULL */
	int count;
	bool json;
};

extern const struct command commands[];
extern const size_t command_count;

/* The option's value, "" for a switch that was given, NULL when it was not. */
const char *option(const struct invocation *inv, const char *name);

/*
 * Finds the command and parses its options. 0; 1 when --help was asked for and answered; or an
 * error with a hint.
 */
int command_parse(int argc, char **argv, struct invocation *inv, struct err *e);
/* Everything, or one command, explained on standard output. */
void command_help(const struct command *c);
void command_overview(void);
/* A completion script for bash on standard output. */
void command_completion(void);

/* One function per command, see the table in main.c. */
int run_program(const struct invocation *inv, struct err *e);
int run_group_create(const struct invocation *inv, struct err *e);
int run_group_list(const struct invocation *inv, struct err *e);
int run_group_show(const struct invocation *inv, struct err *e);
int run_group_log(const struct invocation *inv, struct err *e);
int run_group_remove(const struct invocation *inv, struct err *e);
int run_up(const struct invocation *inv, struct err *e);
int run_down(const struct invocation *inv, struct err *e);
int run_status(const struct invocation *inv, struct err *e);
int run_events(const struct invocation *inv, struct err *e);
int run_resource_list(const struct invocation *inv, struct err *e);
int run_resource_show(const struct invocation *inv, struct err *e);
int run_resource_delete(const struct invocation *inv, struct err *e);
int run_resource_act(const struct invocation *inv, struct err *e);
int run_instance_act(const struct invocation *inv, struct err *e);
int run_instance_console(const struct invocation *inv, struct err *e);
int run_exec(const struct invocation *inv, struct err *e);
int run_launch(const struct invocation *inv, struct err *e);
int run_image_import(const struct invocation *inv, struct err *e);
int run_image_build(const struct invocation *inv, struct err *e);
int run_volume_create(const struct invocation *inv, struct err *e);
int run_volume_attach(const struct invocation *inv, struct err *e);
int run_network_create(const struct invocation *inv, struct err *e);
int run_network_rules(const struct invocation *inv, struct err *e);
int run_network_allow(const struct invocation *inv, struct err *e);
int run_network_deny(const struct invocation *inv, struct err *e);
int run_network_publish(const struct invocation *inv, struct err *e);
int run_tenant_create(const struct invocation *inv, struct err *e);
int run_token_create(const struct invocation *inv, struct err *e);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

const char *option(const struct invocation *inv, const char *name)
{
	const struct option_spec *o = inv->command->options;

	for (size_t i = 0; o && o[i].name; i++)
		if (!strcmp(o[i].name, name))
			return inv->values[i];
	abort(); /* the command's table has no such option: a defect */
}

/* The command whose words begin the arguments; *ret_words how many they are. */
static const struct command *find(int argc, char **argv, int *ret_words)
{
	for (size_t i = 0; i < command_count; i++) {
		const char *name = commands[i].name;
		const char *space = strchr(name, ' ');
		size_t first = space ? (size_t)(space - name) : strlen(name);

		if (argc < 1 || strlen(argv[0]) != first || memcmp(argv[0], name, first) != 0)
			continue;
		if (space && (argc < 2 || strcmp(argv[1], space + 1) != 0))
			continue;
		*ret_words = space ? 2 : 1;
		return &commands[i];
	}
	return NULL;
}

static int unknown_command(int argc, char **argv, struct err *e)
{
	bool family = false;

	for (size_t i = 0; i < command_count; i++)
		if (str_starts_with(commands[i].name, argv[0]) &&
			commands[i].name[strlen(argv[0])] == ' ')
			family = true;
	if (family && argc > 1)
		(void)err_set(e, ERR_USAGE, "there is no command '%s %s'", argv[0], argv[1]);
	else if (family)
		(void)err_set(e, ERR_USAGE, "'%s' needs to be told what to do", argv[0]);
	else
		(void)err_set(e, ERR_USAGE, "there is no command '%s'", argv[0]);
	return err_hint(e, "'sosie help%s%s' lists them", family ? " " : "", family ? argv[0] : "");
}

static int bad_option(const struct command *c, struct err *e, const char *what, const char *text)
{
	(void)err_set(e, ERR_USAGE, "%s '%s'", what, text);
	return err_hint(e, "'sosie %s --help' explains the options", c->name);
}

static bool is_help(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h");
}

/* Index of the option that the word names, or -1. *ret_value: what follows '=' or the letter. */
static int match(const struct command *c, const char *word, const char **ret_value)
{
	*ret_value = NULL;
	for (int i = 0; c->options && c->options[i].name; i++) {
		const struct option_spec *o = &c->options[i];
		size_t n = strlen(o->name);

		if (word[1] != '-' && o->letter == word[1]) {
			*ret_value = word[2] ? word + 2 : NULL;
			return i;
		}
		if (word[1] == '-' && !strncmp(word + 2, o->name, n) &&
			(word[2 + n] == '\0' || word[2 + n] == '=')) {
			*ret_value = word[2 + n] == '=' ? word + 3 + n : NULL;
			return i;
		}
	}
	return -1;
}

static int parse_options(int argc, char **argv, struct invocation *inv, struct err *e)
{
	const struct command *c = inv->command;
	int kept = 0, i;

	for (i = 0; i < argc; i++) {
		const char *value;
		int at;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (argv[i][0] != '-' || argv[i][1] == '\0') {
			argv[kept++] = argv[i];
			if (!c->passes_on)
				continue;
			i++;
			break;
		}
		if (is_help(argv[i])) {
			command_help(c);
			return 1;
		}
		at = match(c, argv[i], &value);
		if (at < 0)
			return bad_option(c, e, "unknown option", argv[i]);
		if (!c->options[at].argument && value)
			return bad_option(c, e, "this option takes no value:", argv[i]);
		if (c->options[at].argument && !value) {
			if (i + 1 >= argc)
				return bad_option(c, e, "a value is missing behind", argv[i]);
			value = argv[++i];
		}
		inv->values[at] = value ? value : "";
	}
	for (; i < argc; i++)
		argv[kept++] = argv[i];
	argv[kept] = NULL;
	inv->arguments = argv;
	inv->count = kept;
	return 0;
}

int command_parse(int argc, char **argv, struct invocation *inv, struct err *e)
{
	int words, r;

	*inv = (struct invocation){0};
	inv->command = find(argc, argv, &words);
	if (!inv->command)
		return unknown_command(argc, argv, e);
	r = parse_options(argc - words, argv + words, inv, e);
	if (r != 0)
		return r;
	if (inv->count < inv->command->least)
		return bad_option(inv->command, e,
			"missing:", inv->command->arguments ? inv->command->arguments : "");
	if (inv->command->most >= 0 && inv->count > inv->command->most)
		return bad_option(inv->command, e,
			"one argument too many:", inv->arguments[inv->command->most]);
	for (size_t i = 0; inv->command->options && inv->command->options[i].name; i++)
		if (!strcmp(inv->command->options[i].name, "json"))
			inv->json = inv->values[i] != NULL;
	return 0;
}

void command_help(const struct command *c)
{
	(void)printf("%s\n\nusage: sosie %s%s%s%s\n", c->summary, c->name,
		c->options ? " [OPTIONS]" : "", c->arguments ? " " : "",
		c->arguments ? c->arguments : "");
	if (c->details)
		(void)printf("\n%s\n", c->details);
	if (c->options)
		(void)printf("\noptions:\n");
	for (const struct option_spec *o = c->options; o && o->name; o++) {
		char left[64];

		(void)snprintf(left, sizeof(left), "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
			o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
			o->argument ? " " : "", o->argument ? o->argument : "");
		(void)printf("  %-28s %s\n", left, o->help);
	}
	if (c->examples)
		(void)printf("\nexamples:\n%s\n", c->examples);
}

void command_overview(void)
{
	(void)printf("usage: sosie COMMAND [OPTIONS] ...\n\ncommands:\n");
	for (size_t i = 0; i < command_count; i++)
		(void)printf("  %-20s %s\n", commands[i].name, commands[i].summary);
	(void)printf("\n'sosie COMMAND --help' explains one.\n\nexit statuses:\n");
	for (unsigned int status = 0; status < 10; status++) {
		bool first = true;

		for (unsigned int i = 0; i < ERR_CODES; i++) {
			if (err_exit_status((enum err_code)i) != (int)status)
				continue;
			if (first)
				(void)printf("  %u  ", status);
			(void)printf("%s%s", first ? "" : "; ", err_meaning((enum err_code)i));
			first = false;
		}
		(void)printf("%s", first ? "" : "\n");
	}
}

void command_completion(void)
{
	(void)puts("# bash completion for sosie: source <(sosie completion)\n"
		   "_sosie() {\n"
		   "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
		   "\tlocal first=${COMP_WORDS[1]} second=${COMP_WORDS[2]} words=\n"
		   "\tif [ \"$COMP_CWORD\" = 1 ]; then");
	(void)printf("\t\twords='");
	for (size_t i = 0; i < command_count; i++) {
		size_t n = strcspn(commands[i].name, " ");

		/* A family of commands stands together: once is enough. */
		if (i == 0 || strncmp(commands[i].name, commands[i - 1].name, n) != 0)
			(void)printf("%.*s ", (int)n, commands[i].name);
	}
	(void)puts("'\n\tfi\n\tcase \"$first $second\" in");
	for (size_t i = 0; i < command_count; i++) {
		const struct command *c = &commands[i];
		const char *space = strchr(c->name, ' ');

		(void)printf("\t\"%s\"%s)\n\t\tcase $before in\n", c->name, space ? "" : "*");
		for (const struct option_spec *o = c->options; o && o->name; o++) {
			if (!o->argument)
				continue;
			(void)printf("\t\t--%s", o->name);
			if (o->letter)
				(void)printf(" | -%c", o->letter);
			(void)printf(
				") words=$(%s 2>/dev/null) ;;\n", o->complete ? o->complete : ":");
		}
		(void)printf("\t\t*) words='");
		for (const struct option_spec *o = c->options; o && o->name; o++)
			(void)printf("--%s ", o->name);
		(void)printf("--help'");
		if (c->complete)
			(void)printf("\" $(%s 2>/dev/null)\"", c->complete);
		(void)puts(" ;;\n\t\tesac ;;");
	}
	(void)puts("\tesac\n\tif [ \"$COMP_CWORD\" = 2 ]; then\n\t\tcase $first in");
	for (size_t i = 0; i < command_count; i++) {
		const char *space = strchr(commands[i].name, ' ');

		if (space)
			(void)printf("\t\t%.*s) words=\"$words %s\" ;;\n",
				(int)(space - commands[i].name), commands[i].name, space + 1);
	}
	(void)puts("\t\tesac\n\tfi\n"
		   "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
		   "\t[ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "
		   "\"$word\")\n"
		   "}\n"
		   "complete -F _sosie sosie");
}

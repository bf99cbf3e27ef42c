/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the commands that talk to the control plane.
 */
#ifndef SOSIE_CLI_WAIT_H
#define SOSIE_CLI_WAIT_H

#include "cli/api.h"
#include "cli/command.h"

enum until { UNTIL_RUNNING, UNTIL_STOPPED, UNTIL_GONE };

/*
 * Waits, unless --no-wait was given, until each of the instances (as the API shows them) has
 * become so; *instances then are as they are. ERR_TIMEOUT after --timeout, ERR_CONFLICT when one
 * fails, with its reason.
 */
int wait_for_instances(const struct api *api, const struct invocation *inv, json_t *instances,
	enum until until, struct err *e);

/* resource.c: COLLECTION/NAME[/ACTION][?tenant=…] */
int item_path(const struct invocation *inv, const char *collection, const char *name,
	const char *action, char out[API_PATH_MAX], struct err *e);
/* All items of a collection; inv (for --tenant) may be NULL. */
int api_list(const struct api *api, const struct invocation *inv, const char *collection,
	json_t **ret, struct err *e);
void print_fields(const json_t *object, int indent);
/* Adds port, host_port and protocol to the body from "8080:80/udp". */
int add_published(json_t *body, const char *text, struct err *e);
int import_image(const struct invocation *inv, const char *file, const char *name, struct err *e);

#endif

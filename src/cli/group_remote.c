/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/group_remote.h"

#include <stdio.h>
#include <string.h>

#include "cli/wait.h"

#define ORIGIN "control-plane"

static void complain(const struct err *e)
{
	(void)fprintf(stderr, "sosie: the control plane's groups are not shown: %s\n", e->message);
}

json_t *remote_groups(void)
{
	struct err e = {0};
	json_t *list = NULL;
	struct api api;
	json_t *group;
	size_t i;
	int r = api_known(&api, &e);

	if (r > 0)
		r = api_list(&api, NULL, "/v1/groups", &list, &e);
	if (r < 0)
		complain(&e);
	if (!list)
		return json_array();
	json_array_foreach(list, i, group)(void)
		json_object_set_new(group, "origin", json_string(ORIGIN));
	return list;
}

json_t *remote_group(const char *name)
{
	struct err e = {0};
	char path[API_PATH_MAX];
	json_t *group = NULL;
	struct api api;
	int r = api_known(&api, &e);

	if (r == 0)
		return NULL;
	if (r > 0)
		r = api_path(path, &e, "/v1/groups/%s", name);
	if (r == 0)
		r = api_call(&api, "GET", path, NULL, &group, &e);
	if (r < 0 && e.code != ERR_NOT_FOUND)
		complain(&e);
	if (group)
		(void)json_object_set_new(group, "origin", json_string(ORIGIN));
	return group;
}

int remote_group_remove(const char *name, struct err *e)
{
	char path[API_PATH_MAX];
	struct api api;
	int r = api_known(&api, e);

	if (r == 0)
		return err_set(e, ERR_NOT_FOUND, "there is no group '%s'", name);
	if (r > 0)
		r = api_path(path, e, "/v1/groups/%s", name);
	return r < 0 ? r : api_call(&api, "DELETE", path, NULL, NULL, e);
}

void print_remote_groups(const json_t *groups)
{
	const json_t *group;
	size_t i;

	(void)printf("%-24s %-10s %-20s %-16s %7s  %s\n", "GROUP OF INSTANCES", "STATE", "PRIMARY",
		"SOURCE", "MEMBERS", "WHY");
	json_array_foreach(groups, i, group)
	{
		char name[64], state[16], primary[64], source[64], why[256];

		json_text(group, "name", name, sizeof(name));
		json_text(group, "state", state, sizeof(state));
		json_text(group, "primary", primary, sizeof(primary));
		json_text(group, "source", source, sizeof(source));
		json_text(group, "reason", why, sizeof(why));
		(void)printf("%-24s %-10s %-20s %-16s %7zu  %s\n", name, state, primary, source,
			json_array_size(json_object_get(group, "members")),
			strcmp(why, "-") == 0 ? "" : why);
	}
}

void print_remote_group(const json_t *group)
{
	const json_t *members = json_object_get(group, "members"), *member;
	char name[64], state[16], why[256], epoch[24], primary[64], source[64];
	size_t i;

	json_text(group, "name", name, sizeof(name));
	json_text(group, "state", state, sizeof(state));
	json_text(group, "reason", why, sizeof(why));
	json_text(group, "epoch", epoch, sizeof(epoch));
	json_text(group, "primary", primary, sizeof(primary));
	json_text(group, "source", source, sizeof(source));
	(void)printf("group     %s, of instances: %s%s%s\n", name, state,
		strcmp(why, "-") == 0 ? "" : ", ", strcmp(why, "-") == 0 ? "" : why);
	(void)printf("primary   %s\nsource    %s, epoch %s\n\n", primary, source, epoch);
	(void)printf("%-20s %-12s %-16s %-15s %-8s %s\n", "MEMBER", "STATE", "HOST", "ADDRESS",
		"ROLE", "WHY");
	json_array_foreach(members, i, member)
	{
		char host[64], address[32];

		json_text(member, "name", name, sizeof(name));
		json_text(member, "state", state, sizeof(state));
		json_text(member, "host", host, sizeof(host));
		json_text(member, "nics.0.ip", address, sizeof(address));
		json_text(member, "reason", why, sizeof(why));
		(void)printf("%-20s %-12s %-16s %-15s %-8s %s\n", name, state, host, address,
			json_is_true(json_object_get(member, "primary")) ? "primary" : "",
			strcmp(why, "-") == 0 ? "" : why);
	}
}

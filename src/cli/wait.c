/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/wait.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/source.h"
#include "base/str.h"
#include "io/json.h"

#define WAIT_DEFAULT_NS (300 * (uint64_t)NSEC_PER_SEC)
#define LOOK_EVERY_NS   (200 * NSEC_PER_MSEC)

static uint64_t now_ns(void)
{
	return source_system.clock_ns(source_system.context, CLOCK_MONOTONIC);
}

/* 1 when it has become so. */
static int arrived(const json_t *instance, enum until until, struct err *e)
{
	const char *state = json_string_value(json_object_get(instance, "state"));
	const char *reason = json_string_value(json_object_get(instance, "reason"));
	const char *name = json_string_value(json_object_get(instance, "name"));

	if (!strcmp(state, "failed"))
		return err_set(e, ERR_CONFLICT, "%s has failed: %s", name,
			reason ? reason : "its host does not say why");
	if (until == UNTIL_STOPPED)
		return !strcmp(state, "stopped");
	if (until == UNTIL_GONE || strcmp(state, "running") != 0)
		return 0;
	return json_integer_value(json_object_get(instance, "reboots_done")) >=
	       json_integer_value(json_object_get(instance, "reboots"));
}

/* Reads the instance anew. 1 when it has become so, 2 when it is gone. */
static int look(const struct api *api, json_t *instances, size_t i, enum until until, struct err *e)
{
	const char *id = json_string_value(json_object_get(json_array_get(instances, i), "id"));
	char path[API_PATH_MAX];
	json_t *now = NULL;
	int r = api_path(path, e, "/v1/instances/%s", id);

	if (r == 0)
		r = api_call(api, "GET", path, NULL, &now, e);
	if (r < 0)
		return until == UNTIL_GONE && e->code == ERR_NOT_FOUND ? 2 : r;
	(void)json_array_set_new(instances, i, now);
	/* One that is to go may have failed before. */
	return until == UNTIL_GONE ? 0 : arrived(now, until, e);
}

static int wait_for_one(const struct api *api, json_t *instances, size_t i, enum until until,
	uint64_t deadline_ns, struct err *e)
{
	const struct timespec pause = {.tv_nsec = LOOK_EVERY_NS};
	char name[64], state[32];

	for (;;) {
		int r = look(api, instances, i, until, e);

		if (r != 0)
			return r;
		json_text(json_array_get(instances, i), "name", name, sizeof(name));
		json_text(json_array_get(instances, i), "state", state, sizeof(state));
		progress("%s: %s", name, state);
		if (now_ns() > deadline_ns) {
			(void)err_set(e, ERR_TIMEOUT, "%s is still %s", name, state);
			return err_hint(e, "it goes on: 'sosie instance show %s'", name);
		}
		(void)nanosleep(&pause, NULL);
	}
}

int wait_for_instances(const struct api *api, const struct invocation *inv, json_t *instances,
	enum until until, struct err *e)
{
	const char *timeout = option(inv, "timeout");
	uint64_t limit_ns = WAIT_DEFAULT_NS;
	int r = 0;

	if (timeout && parse_duration_ns(timeout, &limit_ns) < 0)
		return err_set(e, ERR_INVALID, "--timeout takes a duration such as 90s, not '%s'",
			timeout);
	if (option(inv, "no-wait"))
		return 0;
	limit_ns += now_ns();
	for (size_t i = 0; r >= 0 && i < json_array_size(instances); i++)
		r = wait_for_one(api, instances, i, until, limit_ns, e);
	progress("%s", "");
	return r < 0 ? r : 0;
}

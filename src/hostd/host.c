/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reconciling is one pass over all instances, from the loop, after anything has changed. Each
 * instance decides by itself (lifecycle.h); a pass that changes nothing ends it.
 *
 * Until a desired state has arrived after the agent's start, nothing is stopped or removed: what
 * runs goes on however long the control plane is away.
 */
#include "hostd/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "base/source.h"
#include "hostd/instance.h"
#include "io/json.h"

static int on_soon(sd_event_source *source, void *userdata)
{
	struct host *h = userdata;

	(void)source;
	for (struct instance *i = h->instances, *next; i; i = next) {
		next = i->next;
		if (h->told)
			instance_reconcile(i);
		if (!i->desired && i->state == LIFE_ABSENT && h->told && !i->adopting)
			instance_free(i);
	}
	if (h->changed)
		h->changed(h->userdata);
	return 0;
}

void host_changed(struct host *h)
{
	(void)sd_event_source_set_enabled(h->soon, SD_EVENT_ONESHOT);
}

void host_tell(struct host *h, const char *kind, const char *subject, json_t *data)
{
	int r = journal_add(
		h->journal, kind, subject, source_system.clock_ns(NULL, CLOCK_REALTIME), 0, data);

	if (r < 0)
		log_control(LOG_ERROR, "an event cannot be written", " kind=%s subject=%s why=%s",
			kind, subject, log_quote(strerror(-r)));
	else if (h->happened)
		h->happened(h->userdata);
}

static int adopt_all(struct host *h, struct err *e)
{
	int fd = fcntl(h->folder, F_DUPFD_CLOEXEC, 3);
	const struct dirent *entry;
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);

	if (!folder) {
		if (fd >= 0)
			(void)close(fd);
		return err_errno(e, -ENOMEM, "read the folder of instances");
	}
	while (h->count < HOST_INSTANCES_MAX && (entry = readdir(folder))) {
		struct instance *i;

		if (!name_valid(entry->d_name))
			continue;
		i = instance_new(h, entry->d_name);
		if (i)
			instance_adopt(i);
	}
	(void)closedir(folder);
	return 0;
}

int host_new(const struct host_config *config, struct host **ret, struct err *e)
{
	CLEANUP(host_free_p) struct host *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_errno(e, -ENOMEM, "start the agent");
	h->config = *config;
	(void)sd_event_ref(config->event);
	h->folder = -1;
	r = sd_event_add_defer(config->event, &h->soon, on_soon, h);
	if (r < 0)
		return err_errno(e, r, "start the agent");
	if (mkdirat(config->state, "instances", 0711) < 0 && errno != EEXIST)
		return err_errno(e, -errno, "make the folder of instances");
	h->folder = openat(config->state, "instances", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (h->folder < 0)
		return err_errno(e, -errno, "open the folder of instances");
	r = images_new(config->event, config->state, config->state_path, &h->images, e);
	if (r == 0)
		r = journal_open(config->state, &h->journal, e);
	if (r == 0)
		r = adopt_all(h, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(h);
	return 0;
}

void host_free(struct host *h)
{
	if (!h)
		return;
	while (h->instances)
		instance_free(h->instances);
	images_free(h->images);
	journal_free(h->journal);
	(void)sd_event_source_disable_unref(h->soon);
	if (h->folder >= 0)
		(void)close(h->folder);
	(void)sd_event_unref(h->config.event);
	free(h);
}

static struct instance *find(struct host *h, const char *id)
{
	struct instance *i = h->instances;

	while (i && strcmp(i->id, id) != 0)
		i = i->next;
	return i ? i : instance_new(h, id);
}

static void desire_one(struct host *h, const json_t *entry)
{
	const char *id = NULL, *state = NULL;
	struct instance *i;
	struct err e;

	if (json_get_string(entry, "id", NAME_MAX_LENGTH, &id, &e) < 0 ||
		json_get_string(entry, "state", 16, &state, &e) < 0 || !name_valid(id)) {
		log_control(LOG_ERROR, "a desired instance is not understood", " why=%s",
			log_quote(e.message));
		return;
	}
	i = find(h, id);
	if (i)
		instance_desire(i, entry);
	else
		log_control(LOG_ERROR, "no room for another instance", " id=%s", id);
}

int host_desire(struct host *h, const json_t *desired, struct err *e)
{
	const json_t *instances = NULL;
	int64_t revision = 0;
	int r = json_get_integer(desired, "revision", 0, INT64_MAX, &revision, e);

	if (r == 0)
		r = json_get_array(desired, "instances", HOST_INSTANCES_MAX, &instances, e);
	if (r < 0)
		return r;
	for (struct instance *i = h->instances; i; i = i->next) {
		i->desired = false;
		i->want = WANT_ABSENT;
	}
	for (size_t n = 0; n < json_array_size(instances); n++)
		desire_one(h, json_array_get(instances, n));
	h->revision = (uint64_t)revision;
	h->told = true;
	host_changed(h);
	return 0;
}

json_t *host_observed(const struct host *h)
{
	CLEANUP_JSON json_t *list = json_array();

	for (const struct instance *i = h->instances; i; i = i->next)
		if (json_array_append_new(list, instance_observed(i)) < 0)
			return NULL;
	return TAKE_PTR(list);
}

void host_refresh(struct host *h)
{
	for (struct instance *i = h->instances; i; i = i->next)
		instance_refresh(i);
}

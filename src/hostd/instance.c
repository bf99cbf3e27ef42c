/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is told about a guest comes from its record of events alone, whether sosie-vm reads it out
 * (instance_take_event() by way of the link) or the agent reads it itself once sosie-vm has ended
 * (instance_drain()). So an agent that was away learns the same, in the same order, as one that
 * was there.
 */
#include "hostd/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "base/log.h"
#include "base/source.h"
#include "hostd/helper.h"
#include "hostd/instance_internal.h"
#include "hostd/resources.h"
#include "io/json.h"
#include "io/loop.h"
#include "io/record.h"

struct instance *instance_new(struct host *h, const char *id)
{
	struct instance *i;

	if (h->count >= HOST_INSTANCES_MAX)
		return NULL;
	i = calloc(1, sizeof(*i));
	if (!i)
		return NULL;
	i->host = h;
	(void)snprintf(i->id, sizeof(i->id), "%s", id);
	i->folder = i->ready = -1;
	i->since_ns = source_system.clock_ns(NULL, CLOCK_REALTIME);
	i->next = h->instances;
	h->instances = i;
	h->count++;
	return i;
}

static void drop_ready(struct instance *i)
{
	loop_drop(&i->ready_io);
	if (i->ready >= 0)
		(void)close(i->ready);
	i->ready = -1;
	i->ready_size = 0;
}

void instance_free(struct instance *i)
{
	struct instance **at = &i->host->instances;

	while (*at != i)
		at = &(*at)->next;
	*at = i->next;
	i->host->count--;
	helper_free(i->helper);
	vmlink_free(i->link);
	drop_ready(i);
	loop_drop(&i->timer);
	if (i->folder >= 0)
		(void)close(i->folder);
	free(i);
}

void instance_move(struct instance *i, enum life_event event, const char *format, ...)
{
	enum life_state to = life_next(i->state, event);
	va_list args;

	assert(to != LIFE_STATES);
	va_start(args, format);
	(void)vsnprintf(i->reason, sizeof(i->reason), format, args);
	va_end(args);
	log_control(LOG_INFO, life_event_name(event), " instance=%s from=%s to=%s reason=%s", i->id,
		life_state_name(i->state), life_state_name(to), log_quote(i->reason));
	i->state = to;
	i->since_ns = source_system.clock_ns(NULL, CLOCK_REALTIME);
	assert(life_holds(i->state, i->prepared, i->link));
	host_changed(i->host);
}

void instance_fail(struct instance *i, const char *reason)
{
	i->latched = true;
	instance_move(i, LIFE_BROKE, "%s", reason);
	host_tell(i->host, "instance.failed", i->id, json_pack("{s:s}", "reason", i->reason));
}

static int on_cooled(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct instance *i = userdata;

	(void)source;
	(void)usec;
	i->cooling = false;
	if (i->adopting)
		instance_adopt(i);
	host_changed(i->host);
	return 0;
}

static void arm(struct instance *i, uint64_t delay_ns)
{
	int r = i->timer ? loop_rearm(i->timer, delay_ns)
			 : loop_after(i->host->config.event, delay_ns, on_cooled, i, &i->timer);

	i->cooling = r >= 0;
}

void instance_cool(struct instance *i)
{
	arm(i, INSTANCE_COOLING_NS);
}

static void copy(const json_t *data, const char *name, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(data, name));

	if (text)
		(void)snprintf(out, size, "%s", text);
}

/* What an entry of its record says about where it stands. */
static void interpret(struct instance *i, const json_t *entry)
{
	const char *kind = json_string_value(json_object_get(entry, "kind"));
	const json_t *data = json_object_get(entry, "data");

	if (!kind)
		return;
	if (!strcmp(kind, "starting")) {
		i->began = true;
		i->ended = false;
		copy(data, "boot_id", i->boot_id, sizeof(i->boot_id));
	} else if (!strcmp(kind, "started")) {
		copy(data, "cgroup", i->cgroup, sizeof(i->cgroup));
	} else if (!strcmp(kind, "ended")) {
		const char *cause = json_string_value(json_object_get(data, "cause"));

		i->ended = true;
		i->failure = json_is_true(json_object_get(data, "failure"));
		i->asked_end = cause && (!strcmp(cause, "stopped") || !strcmp(cause, "forced"));
		copy(data, "reason", i->end_reason, sizeof(i->end_reason));
	}
}

/* Puts an entry of its record into the agent's journal, once. */
static int take(struct instance *i, uint64_t sequence, const json_t *entry)
{
	const char *kind = json_string_value(json_object_get(entry, "kind"));
	json_t *data = json_object_get(entry, "data");
	char name[64];
	int r;

	if (sequence < journal_wanted(i->host->journal, i->id))
		return 0;
	(void)snprintf(name, sizeof(name), "instance.%s", kind ? kind : "unknown");
	r = journal_add(i->host->journal, name, i->id,
		(uint64_t)json_integer_value(json_object_get(entry, "time_ns")), sequence,
		json_incref(data));
	if (r == 0 && i->host->happened)
		i->host->happened(i->host->userdata);
	return r;
}

static int on_record(uint64_t sequence, const json_t *entry, void *userdata)
{
	struct instance *i = userdata;
	int r;

	interpret(i, entry);
	/* The others are looked at all the same. */
	r = i->undrained ? -EAGAIN : take(i, sequence, entry);
	i->undrained = r < 0;
	return 0;
}

int instance_drain(struct instance *i, struct err *e)
{
	CLEANUP_RECORD struct record *record = NULL;
	int r;

	if (faccessat(i->folder, "events", F_OK, 0) < 0 && errno == ENOENT)
		return 0;
	r = record_open(i->folder, "events", &record, e);
	if (r < 0)
		return r;
	i->undrained = false;
	r = record_each(record, 1, on_record, i);
	if (r < 0)
		return err_errno(e, r, "read the events");
	return i->undrained ? err_set(e, ERR_UNAVAILABLE, "its events cannot be written down") : 0;
}

static int on_event(struct vmlink *link, uint64_t sequence, const json_t *event, void *userdata)
{
	struct instance *i = userdata;
	int r = take(i, sequence, event);

	(void)link;
	if (r == 0)
		interpret(i, event);
	vmlink_ask(i->link);
	return r;
}

static void on_status(struct vmlink *link, const json_t *status, void *userdata)
{
	struct instance *i = userdata;
	int64_t reboots, pid = i->pid;

	(void)link;
	i->pid = json_integer_value(json_object_get(status, "pid"));
	i->console_bytes = json_integer_value(json_object_get(status, "console_bytes"));
	copy(status, "cgroup", i->cgroup, sizeof(i->cgroup));
	if (json_get_integer(status, "reboots", 0, INT64_MAX, &reboots, NULL) == 0)
		i->reboots_done = MAX(i->reboots_done, (uint64_t)reboots);
	if (i->pid != pid)
		host_changed(i->host);
}

static void on_refused(struct vmlink *link, const struct err *e, void *userdata)
{
	const struct instance *i = userdata;

	(void)link;
	log_control(LOG_WARNING, "sosie-vm refused a request", " instance=%s why=%s", i->id,
		log_quote(e->message));
}

/* sosie-vm has gone without writing down why. */
static void supervisor_lost(struct instance *i)
{
	privileged_remove_cgroup(i->cgroup);
	i->ended = i->failure = true;
	i->asked_end = false;
	(void)snprintf(i->end_reason, sizeof(i->end_reason),
		"its supervisor sosie-vm was killed, and QEMU with it");
	host_tell(i->host, "instance.supervisor-lost", i->id,
		json_pack("{s:s}", "reason", i->end_reason));
}

static void on_gone(struct vmlink *link, void *userdata)
{
	struct instance *i = userdata;
	struct err e;

	vmlink_free(link);
	i->link = NULL;
	if (instance_drain(i, &e) < 0)
		log_control(LOG_ERROR, "events are left for later", " instance=%s why=%s", i->id,
			log_quote(e.message));
	if (!i->ended)
		supervisor_lost(i);
	i->cgroup[0] = '\0';
	i->pid = 0;
	i->latched = !i->asked_end;
	instance_move(i, i->failure ? LIFE_BROKE : LIFE_ENDED, "%s", i->end_reason);
}

static int open_link(struct instance *i, struct err *e)
{
	static const struct vmlink_callbacks callbacks = {on_status, on_event, on_refused, on_gone};

	return vmlink_open(i->host->config.event, i->folder,
		journal_wanted(i->host->journal, i->id), &callbacks, i, &i->link, e);
}

/* Whether sosie-vm's line says that the guest runs; else why not. */
static bool started_well(const char *line, struct err *e)
{
	CLEANUP_JSON json_t *json = NULL;

	if (line[0] == '\0') {
		(void)err_set(e, ERR_INTERNAL, "sosie-vm ended without a word");
		return false;
	}
	if (json_parse(line, strlen(line), NULL, &json, e) < 0 || json_to_err(json, e) == 0)
		return false;
	return true;
}

static int on_ready(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct instance *i = userdata;
	struct err e = {0}, why;
	ssize_t n =
		read(fd, i->ready_text + i->ready_size, sizeof(i->ready_text) - 1 - i->ready_size);
	bool good;

	(void)source;
	(void)events;
	if (n < 0)
		return 0;
	i->ready_size += (size_t)n;
	i->ready_text[i->ready_size] = '\0';
	if (n > 0 && !strchr(i->ready_text, '\n'))
		return 0;
	good = started_well(i->ready_text, &e);
	/* One that could not start is waited for: until then it holds its record. */
	if (!good && n > 0)
		return 0;
	drop_ready(i);
	if (good && open_link(i, &e) == 0) {
		i->ended = false;
		instance_move(i, LIFE_STARTED, "running");
		return 0;
	}
	if (instance_drain(i, &why) < 0)
		log_control(LOG_ERROR, "events are left for later", " instance=%s why=%s", i->id,
			log_quote(why.message));
	if (good && i->ended && !i->failure) {
		i->latched = !i->asked_end;
		instance_move(i, LIFE_ENDED, "%s", i->end_reason);
	} else {
		instance_fail(i, i->ended ? i->end_reason : e.message);
	}
	return 0;
}

static void on_image(const struct image *image, const struct err *e, void *userdata)
{
	struct instance *i = userdata;
	const struct host_config *config = &i->host->config;
	struct err why = *e;
	int r = image ? 0 : -EIO;

	if (r == 0)
		r = instance_write_spec(i, image, &why);
	if (r == 0)
		r = privileged_start_vm(
			config->event, config->vm_program, i->folder, &i->ready, &why);
	if (r == 0) {
		r = sd_event_add_io(config->event, &i->ready_io, i->ready, EPOLLIN, on_ready, i);
		if (r < 0)
			(void)err_errno(&why, r, "wait for sosie-vm");
	}
	if (r < 0)
		instance_fail(i, why.message);
}

static void start(struct instance *i)
{
	struct image_name base;
	struct err e = {0};
	int r;

	i->starts_done = i->starts;
	i->reboots_done = i->reboots;
	i->latched = i->ended = i->failure = i->forced = false;
	instance_move(i, LIFE_START, "starting");
	if (i->plan.invalid[0]) {
		instance_fail(i, i->plan.invalid);
		return;
	}
	r = instance_drain(i, &e);
	if (r == 0)
		r = instance_read_base(i, &base, &e);
	if (r == 0) {
		i->ended = i->failure = false;
		r = images_want(i->host->images, &base, on_image, i);
		if (r < 0)
			(void)err_errno(&e, r, "look for its image");
	}
	if (r < 0)
		instance_fail(i, e.message);
}

static void stop(struct instance *i, bool force)
{
	/* When the link has ended, so will the machine. */
	(void)vmlink_stop(i->link, force);
	i->forced = force;
	if (i->state == LIFE_RUNNING)
		instance_move(
			i, LIFE_STOP, force ? "being stopped by force" : "asked to power off");
}

void instance_reconcile(struct instance *i)
{
	const struct life_view view = {.state = i->state,
		.want = i->want,
		.prepared = i->prepared,
		.latched = i->latched,
		.start_due = i->starts > i->starts_done,
		.reboot_due = i->reboots > i->reboots_done,
		.forced = i->forced,
		.cooling = i->cooling};

	if (i->adopting)
		return;
	switch (life_decide(&view)) {
	case ACT_PREPARE:
		instance_prepare(i);
		break;
	case ACT_START:
		start(i);
		break;
	case ACT_STOP:
		stop(i, false);
		break;
	case ACT_KILL:
		stop(i, true);
		break;
	case ACT_REBOOT:
		if (vmlink_reboot(i->link, i->reboots) == 0)
			i->reboots_done = i->reboots;
		break;
	case ACT_REMOVE:
		instance_remove(i);
		break;
	case ACT_NONE:
		break;
	}
}

/* The guest is not running: what has become of it? */
static void adopt_stopped(struct instance *i)
{
	char boot_id[BOOT_ID_SIZE] = "";
	bool restarted;

	(void)read_boot_id(boot_id, NULL);
	restarted = i->began && !i->ended && i->boot_id[0] && strcmp(i->boot_id, boot_id) != 0;
	if (i->began && !i->ended)
		supervisor_lost(i);
	if (restarted)
		(void)snprintf(i->end_reason, sizeof(i->end_reason), "the host was restarted");
	i->latched = i->began && !i->asked_end && !restarted;
	if (!i->prepared)
		instance_move(i, LIFE_FOUND_FAILED, "making it ready was interrupted");
	else if (i->began)
		instance_move(i, i->failure ? LIFE_FOUND_FAILED : LIFE_FOUND_STOPPED, "%s",
			i->end_reason);
	else
		instance_move(i, LIFE_FOUND_STOPPED, "made ready");
}

void instance_adopt(struct instance *i)
{
	struct err e = {0};
	int r;

	i->adopting = false;
	if (i->folder < 0 && privileged_open_folder(i->host->folder, i->id, &i->folder, &e) < 0) {
		log_control(LOG_ERROR, "a folder cannot be opened", " instance=%s why=%s", i->id,
			log_quote(e.message));
		return;
	}
	i->prepared = faccessat(i->folder, "disk.qcow2", F_OK, 0) == 0;
	instance_read_counters(i);
	if (i->prepared && open_link(i, &e) == 0) {
		i->began = true;
		instance_move(i, LIFE_FOUND_RUNNING, "running");
		host_tell(i->host, "instance.adopted", i->id, NULL);
		return;
	}
	r = instance_drain(i, &e);
	if (r == -EEXIST && i->tries++ < INSTANCE_ADOPT_TRIES) {
		/* A sosie-vm that is about to make its socket, or about to end. */
		i->adopting = true;
		arm(i, INSTANCE_ADOPT_NS);
		return;
	}
	if (r < 0)
		log_control(LOG_ERROR, "its events cannot be read", " instance=%s why=%s", i->id,
			log_quote(e.message));
	adopt_stopped(i);
}

void instance_refresh(struct instance *i)
{
	if (i->link)
		vmlink_ask(i->link);
}

json_t *instance_observed(const struct instance *i)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:I}", "id", i->id, "state",
		life_state_told(i->state), "starts", (json_int_t)i->starts_done, "reboots",
		(json_int_t)i->reboots_done, "pid", (json_int_t)i->pid, "reason", i->reason,
		"since_ns", (json_int_t)i->since_ns, "console_bytes", (json_int_t)i->console_bytes);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants:
 * 1. Whatever QEMU tells is written into the record and synced before anything is done about it or
 *    anybody else hears of it. When the disk is full, entries wait in memory, in their order, and
 *    are tried again: then they are acted upon, but told to nobody.
 * 2. A request that changes something is written down before it is carried out.
 * 3. The machine has ended when QEMU's process has been reaped *and* its QMP connection has been
 *    read to the end: only then have all events been seen. Its last entry is "ended".
 */
#include "vm/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "base/log.h"
#include "base/source.h"
#include "io/loop.h"
#include "io/qmp.h"
#include "vm/console.h"
#include "vm/end.h"
#include "vm/launch.h"
#include "vm/limits.h"

#define STDERR_TAIL  1536
#define TRIM_NS      (2 * NSEC_PER_SEC)
#define BOOT_ID_SIZE 37

static const char *const state_names[] = {
#define X(constant, name) [constant] = (name),
	MACHINE_STATE_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(state_names) == MACHINE_STATES, "one name per state");

/* Who may follow whom, a bit each. */
#define TO(state) (1U << (state))
static const unsigned int moves[] = {
	[MACHINE_STARTING] = TO(MACHINE_RUNNING) | TO(MACHINE_STOPPING) | TO(MACHINE_ENDED),
	[MACHINE_RUNNING] = TO(MACHINE_STOPPING) | TO(MACHINE_ENDED),
	[MACHINE_STOPPING] = TO(MACHINE_ENDED),
	[MACHINE_ENDED] = TO(MACHINE_WRITTEN),
	[MACHINE_WRITTEN] = 0,
};
static_assert(ARRAY_SIZE(moves) == MACHINE_STATES, "one row per state");

struct machine {
	sd_event *event;
	struct vm_spec spec;
	struct record *record;
	struct machine_callbacks callbacks;
	void *userdata;
	uint64_t started_ns; /* since 1970 */
	uint64_t resets, reboots, lost;

	struct launched qemu;
	struct limits limits;
	struct qmp *qmp; /* NULL when it has ended */
	struct console *console;
	struct vm_end_facts facts;
	size_t stderr_size;

	json_t *pending; /* array: entries not written yet */
	sd_event_source *child, *stderr_io, *grace, *retry, *trim;
	enum machine_state state;
	bool paused;    /* the guest's processors stand still */
	bool rebooting; /* grace runs for a reboot */
	bool reaped;
	bool failure; /* of the end */
	char shutdown[64];
	char stderr_tail[STDERR_TAIL + 1];
	char sentence[VM_END_SENTENCE_MAX];
};

/* What the states mean, executed. */
static void check(const struct machine *m)
{
	assert((m->state < MACHINE_ENDED) == !(m->reaped && !m->qmp));
	assert(m->state != MACHINE_RUNNING || m->facts.ran);
	assert(m->state != MACHINE_STOPPING || m->facts.stop_asked);
	assert(m->state != MACHINE_WRITTEN || json_array_size(m->pending) == 0);
	assert(!m->rebooting || m->state == MACHINE_RUNNING);
}

static void move(struct machine *m, enum machine_state to)
{
	assert(moves[m->state] & TO(to));
	m->state = to;
	if (to != MACHINE_RUNNING)
		m->rebooting = false;
	check(m);
}

static void arm_retry(struct machine *m);

/* Keeps the events file within its bounds. */
static void bound_record(struct machine *m)
{
	uint64_t first = record_first(m->record), next = record_next(m->record);

	if (record_bytes(m->record) > MACHINE_EVENTS_MAX &&
		record_forget(m->record, first + (next - first) / 2) < 0)
		log_control(LOG_WARNING, "the events file cannot be shortened", NULL);
}

/* Writes what is pending, as far as it goes. */
static void write_pending(struct machine *m)
{
	bool written = false;

	while (json_array_size(m->pending) > 0) {
		json_t *entry = json_array_get(m->pending, 0);
		int r = record_append(m->record, json_incref(entry), NULL);

		if (r == -E2BIG)
			m->lost++;
		else if (r < 0) {
			log_data(LOG_ERROR, "an event cannot be written, trying again", " why=%s",
				log_quote(strerror(-r)));
			arm_retry(m);
			break;
		}
		(void)json_array_remove(m->pending, 0);
		written = true;
	}
	bound_record(m);
	if (written)
		m->callbacks.written(m, m->userdata);
}

static void conclude(struct machine *m)
{
	if (m->state != MACHINE_ENDED || json_array_size(m->pending) > 0)
		return;
	move(m, MACHINE_WRITTEN);
	m->callbacks.ended(m, m->failure, m->sentence, m->userdata);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct machine *m = userdata;

	(void)source;
	(void)usec;
	write_pending(m);
	conclude(m);
	return 0;
}

static void arm_retry(struct machine *m)
{
	int r = m->retry ? loop_rearm(m->retry, MACHINE_RETRY_NS)
			 : loop_after(m->event, MACHINE_RETRY_NS, on_retry, m, &m->retry);

	/* Without a timer the next entry tries again. */
	if (r < 0)
		log_control(LOG_ERROR, "no timer", " why=%s", log_quote(strerror(-r)));
}

/* Writes an entry. data: taken, may be NULL. */
static void note(struct machine *m, const char *kind, json_t *data)
{
	json_t *entry = json_pack("{s:I, s:s, s:o*}", "time_ns",
		(json_int_t)source_system.clock_ns(NULL, CLOCK_REALTIME), "kind", kind, "data",
		data);
	bool last = m->state == MACHINE_ENDED;

	if (!entry || (json_array_size(m->pending) >= MACHINE_PENDING_MAX && !last)) {
		json_decref(entry);
		m->lost++;
		return;
	}
	if (json_array_append_new(m->pending, entry) < 0)
		m->lost++;
	write_pending(m);
}

static void end(struct machine *m)
{
	enum vm_end verdict;

	if (!m->reaped || m->qmp || m->state >= MACHINE_ENDED)
		return;
	loop_drop(&m->grace);
	console_drain(m->console);
	m->facts.stderr_tail = m->stderr_tail;
	verdict = vm_end_judge(&m->facts, m->sentence);
	m->failure = vm_end_is_failure(verdict);
	limits_drop(&m->limits);
	move(m, MACHINE_ENDED);
	note(m, "ended",
		json_pack("{s:s, s:b, s:s, s:i}", "cause", vm_end_name(verdict), "failure",
			m->failure, "reason", m->sentence, "status", m->facts.status));
	conclude(m);
}

static void read_stderr(struct machine *m)
{
	char block[512];
	ssize_t n;

	while ((n = read(m->qemu.standard_error, block, sizeof(block))) > 0) {
		size_t keep = MIN(m->stderr_size, STDERR_TAIL - (size_t)n);

		memmove(m->stderr_tail, m->stderr_tail + m->stderr_size - keep, keep);
		memcpy(m->stderr_tail + keep, block, (size_t)n);
		m->stderr_size = keep + (size_t)n;
		m->stderr_tail[m->stderr_size] = '\0';
	}
	if (n == 0)
		loop_drop(&m->stderr_io);
}

static int on_stderr(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	read_stderr(userdata);
	return 0;
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	struct machine *m = userdata;

	(void)source;
	read_stderr(m);
	m->reaped = true;
	/* As waitpid(2) would have told it. */
	m->facts.status = info->si_code == CLD_EXITED ? (info->si_status & 0xff) << 8
						      : info->si_status & 0x7f;
	end(m);
	return 0;
}

static void kill_qemu(struct machine *m)
{
	if (!m->reaped)
		(void)kill(m->qemu.pid, SIGKILL);
}

static void on_quit_reply(const struct qmp_reply *reply, void *userdata)
{
	struct machine *m = userdata;

	/* A QEMU that does not do so, or does not answer, hangs. */
	if (reply->err.code != ERR_NONE)
		kill_qemu(m);
}

/* arguments: taken. -ENOTCONN when QEMU is ending. */
static int tell_qemu(struct machine *m, const char *command, json_t *arguments, qmp_reply_fn reply)
{
	if (m->qmp)
		return qmp_execute(m->qmp, command, arguments, MACHINE_QMP_NS, reply, m);
	json_decref(arguments);
	return -ENOTCONN;
}

static int arm_grace(struct machine *m, uint64_t ns);

static void use_force(struct machine *m)
{
	m->facts.force_used = true;
	if (arm_grace(m, MACHINE_QMP_NS) < 0 || tell_qemu(m, "quit", NULL, on_quit_reply) < 0)
		kill_qemu(m);
}

static int on_grace(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct machine *m = userdata;

	(void)source;
	(void)usec;
	if (!m->qmp || m->facts.force_used) {
		kill_qemu(m);
	} else if (m->rebooting) {
		m->rebooting = false;
		note(m, "reboot-forced", NULL);
		(void)tell_qemu(m, "system_reset", NULL, NULL);
	} else if (m->state == MACHINE_STOPPING) {
		note(m, "stop-forced", NULL);
		use_force(m);
	}
	return 0;
}

static int arm_grace(struct machine *m, uint64_t ns)
{
	return m->grace ? loop_rearm(m->grace, ns)
			: loop_after(m->event, ns, on_grace, m, &m->grace);
}

int machine_stop(struct machine *m, bool force, struct err *e)
{
	int r;

	if (m->state >= MACHINE_ENDED || (m->facts.stop_asked && (!force || m->facts.force_used)))
		return 0;
	/* A guest that was not let go yet has nothing to lose, and no ear for its power button. */
	force = force || m->state == MACHINE_STARTING;
	note(m, "stop-requested", json_pack("{s:b}", "force", force));
	m->facts.stop_asked = true;
	if (m->state != MACHINE_STOPPING)
		move(m, MACHINE_STOPPING);
	if (force) {
		use_force(m);
		return 0;
	}
	r = arm_grace(m, m->spec.grace_ns);
	if (r >= 0)
		r = tell_qemu(m, "system_powerdown", NULL, NULL);
	return r < 0 && r != -ENOTCONN ? err_errno(e, r, "ask the guest to power off") : 0;
}

/* Ctrl-Alt-Del. */
static int press_keys(struct machine *m)
{
	return tell_qemu(m, "send-key",
		json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s}]}", "keys", "type", "qcode", "data",
			"ctrl", "type", "qcode", "data", "alt", "type", "qcode", "data", "delete"),
		NULL);
}

int machine_reboot(struct machine *m, bool force, uint64_t count, struct err *e)
{
	int r;

	if (m->state != MACHINE_RUNNING)
		return err_set(
			e, ERR_CONFLICT, "the guest is %s, not running", state_names[m->state]);
	if (count <= m->reboots)
		return 0;
	note(m, "reboot-requested",
		json_pack("{s:I, s:b}", "count", (json_int_t)count, "force", force));
	m->reboots = count;
	if (force) {
		r = tell_qemu(m, "system_reset", NULL, NULL);
	} else {
		m->rebooting = true;
		r = arm_grace(m, m->spec.grace_ns);
		if (r >= 0)
			r = press_keys(m);
	}
	return r < 0 ? err_errno(e, r, "reboot the guest") : 0;
}

/* The agent reads this anew whenever an entry is written. */
json_t *machine_status(const struct machine *m)
{
	struct console_counters console = console_counters(m->console);

	return json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:b, s:s, s:s, s:s, s:I, s:I, s:I}",
		"state", state_names[m->state], "pid", (int)m->qemu.pid, "started_ns",
		(json_int_t)m->started_ns, "starts", (json_int_t)m->spec.starts, "reboots",
		(json_int_t)m->reboots, "resets", (json_int_t)m->resets, "paused", m->paused,
		"accel", m->spec.kvm ? "kvm" : "tcg", "limits", m->limits.verdict, "cgroup",
		m->limits.path, "events_lost", (json_int_t)m->lost, "console_bytes",
		(json_int_t)console_log_trim("console.log"), "console_clients",
		(json_int_t)console.clients);
}

static void on_event(struct qmp *qmp, const struct qmp_event *event, void *userdata)
{
	struct machine *m = userdata;
	const char *reason = json_string_value(json_object_get(event->data, "reason"));

	(void)qmp;
	note(m, "qmp",
		json_pack("{s:s, s:I, s:O*}", "event", event->name, "qemu_time_ns",
			(json_int_t)event->timestamp_ns, "data", (json_t *)event->data));
	if (!strcmp(event->name, "SHUTDOWN") && reason) {
		(void)snprintf(m->shutdown, sizeof(m->shutdown), "%s", reason);
		m->facts.shutdown = m->shutdown;
	} else if (!strcmp(event->name, "RESET")) {
		m->resets++;
		m->rebooting = false;
	} else if (!strcmp(event->name, "STOP")) {
		m->paused = true;
	} else if (!strcmp(event->name, "RESUME")) {
		m->paused = false;
	}
}

static void on_continued(const struct qmp_reply *reply, void *userdata)
{
	struct machine *m = userdata;

	if (reply->err.code != ERR_NONE) {
		kill_qemu(m);
		return;
	}
	if (m->state != MACHINE_STARTING)
		return;
	m->facts.ran = true;
	move(m, MACHINE_RUNNING);
	note(m, "running", NULL);
	m->callbacks.running(m, m->userdata);
}

static void on_ready(struct qmp *qmp, bool oob, void *userdata)
{
	struct machine *m = userdata;

	(void)oob;
	note(m, "started",
		json_pack("{s:i, s:s, s:s, s:s}", "pid", (int)m->qemu.pid, "accel",
			m->spec.kvm ? "kvm" : "tcg", "limits", m->limits.verdict, "cgroup",
			m->limits.path));
	if (qmp_execute(qmp, "cont", NULL, MACHINE_QMP_NS, on_continued, m) < 0)
		kill_qemu(m);
}

static void on_closed(struct qmp *qmp, const struct err *e, void *userdata)
{
	struct machine *m = userdata;

	log_control(LOG_DEBUG, "QMP ended", " why=%s", log_quote(e->message));
	qmp_free(qmp);
	m->qmp = NULL;
	/* A QEMU without its supervisor's ear must not run on; but one that ends may do so. */
	if (e->code != ERR_UNAVAILABLE || arm_grace(m, MACHINE_QMP_NS) < 0)
		kill_qemu(m);
	end(m);
}

static int on_trim(void *userdata)
{
	(void)userdata;
	(void)console_log_trim("console.log");
	return 0;
}

static int watch(struct machine *m, struct err *e)
{
	const struct qmp_options options = {.greeting_ns = 3 * MACHINE_QMP_NS,
		.callbacks = {on_ready, on_event, on_closed},
		.userdata = m};
	int r = console_new(m->event, TAKE_FD(m->qemu.console), "console.sock", &m->console, e);

	if (r < 0)
		return r;
	r = loop_child(m->event, m->qemu.pid, on_child, m, &m->child);
	if (r >= 0)
		r = sd_event_add_io(
			m->event, &m->stderr_io, m->qemu.standard_error, EPOLLIN, on_stderr, m);
	if (r >= 0)
		r = loop_every(m->event, TRIM_NS, on_trim, m, &m->trim);
	if (r >= 0)
		r = qmp_open(m->event, m->qemu.qmp, &options, &m->qmp);
	if (r < 0)
		return err_errno(e, r, "watch QEMU");
	m->qemu.qmp = -1;
	return 0;
}

/* By which the agent knows later that the host has been restarted since; "" when not known. */
static void read_boot_id(char out[BOOT_ID_SIZE])
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	out[file ? fread(out, 1, BOOT_ID_SIZE - 1, file) : 0] = '\0';
	if (file)
		(void)fclose(file);
}

int machine_start(sd_event *event, const struct vm_spec *spec, struct record *record,
	const struct machine_callbacks *callbacks, void *userdata, struct machine **ret,
	struct err *e)
{
	CLEANUP(machine_free_p) struct machine *m = calloc(1, sizeof(*m));
	char boot_id[BOOT_ID_SIZE];
	struct err why;
	int r;

	if (!m)
		return err_errno(e, -ENOMEM, "start a machine");
	*m = (struct machine){.event = sd_event_ref(event),
		.spec = *spec,
		.record = record,
		.callbacks = *callbacks,
		.userdata = userdata,
		.started_ns = source_system.clock_ns(NULL, CLOCK_REALTIME),
		.reboots = spec->reboots,
		.paused = true,
		.qemu = {.pid = -1, .qmp = -1, .console = -1, .standard_error = -1},
		.pending = json_array()};
	if (!m->pending)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freed by its cleanup */
		return err_errno(e, -ENOMEM, "start a machine");
	read_boot_id(boot_id);
	note(m, "starting",
		json_pack("{s:I, s:s}", "starts", (json_int_t)spec->starts, "boot_id", boot_id));
	r = launch_qemu(spec, &m->qemu, &why);
	if (r == 0) {
		limits_set(&m->limits, spec, m->qemu.pid);
		r = watch(m, &why);
	}
	if (r < 0) {
		note(m, "ended",
			json_pack("{s:s, s:b, s:s}", "cause", vm_end_name(VM_END_NOT_STARTED),
				"failure", 1, "reason", why.message));
		if (e)
			*e = why;
		return r;
	}
	*ret = TAKE_PTR(m);
	return 0;
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	if (m->qemu.pid > 0)
		kill_qemu(m);
	qmp_free(m->qmp);
	console_free(m->console);
	loop_drop(&m->child);
	loop_drop(&m->stderr_io);
	loop_drop(&m->grace);
	loop_drop(&m->retry);
	loop_drop(&m->trim);
	if (m->qemu.qmp >= 0)
		(void)close(m->qemu.qmp);
	if (m->qemu.console >= 0)
		(void)close(m->qemu.console);
	if (m->qemu.standard_error >= 0)
		(void)close(m->qemu.standard_error);
	json_decref(m->pending);
	(void)sd_event_unref(m->event);
	free(m);
}

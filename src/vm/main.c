/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie-vm FOLDER: runs the machine that FOLDER/spec.json describes until it has ended, holding
 * its QMP connection for life. See machine.h.
 *
 * It outlives the host agent that started it, and is found again by FOLDER/vm.sock. Exit status: 0
 * when the machine has run and its end is written down, 1 when it could not be started.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "io/loop.h"
#include "vm/control.h"
#include "vm/machine.h"

struct supervisor {
	sd_event *event;
	struct vm_spec spec;
	struct record *record;
	struct machine *machine;
	struct control *control;
	int ready; /* descriptor on which the starter waits for a line, or -1 */
	bool told;
};

/*
 * Tells the starter how the start went, once. The descriptor stays open, so that its end is ours.
 * message: taken.
 */
static void tell_ready(struct supervisor *s, json_t *message)
{
	CLEANUP_JSON json_t *own = message;
	CLEANUP_FREE char *text = own ? json_dumps(own, JSON_COMPACT) : NULL;

	if (s->ready < 0 || s->told)
		return;
	s->told = true;
	if (text && dprintf(s->ready, "%s\n", text) < 0)
		log_control(LOG_DEBUG, "nobody waits for the start any more", NULL);
}

static void on_running(struct machine *m, void *userdata)
{
	struct supervisor *s = userdata;

	(void)m;
	log_control(LOG_INFO, "guest runs", " id=%s", s->spec.id);
	tell_ready(s, json_pack("{s:b}", "running", 1));
}

static void on_written(struct machine *m, void *userdata)
{
	struct supervisor *s = userdata;

	(void)m;
	if (s->control)
		control_written(s->control);
}

static void on_ended(struct machine *m, bool failure, const char *sentence, void *userdata)
{
	struct supervisor *s = userdata;
	struct err e;

	(void)m;
	log_control(failure ? LOG_WARNING : LOG_INFO, "guest ended", " id=%s why=%s", s->spec.id,
		log_quote(sentence));
	(void)err_set(&e, ERR_INTERNAL, "%s", sentence);
	tell_ready(s, json_from_err(&e));
	(void)sd_event_exit(s->event, 0);
}

/* The machine's power button, for whoever shuts the host down. */
static int on_terminate(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct supervisor *s = userdata;
	struct err e = {0};

	(void)source;
	(void)info;
	if (machine_stop(s->machine, false, &e) < 0)
		log_control(LOG_ERROR, "cannot stop", " why=%s", log_quote(e.message));
	return 0;
}

static int read_spec(struct vm_spec *ret, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT(VM_SPEC_BYTES_MAX);
	int r = file_read_at(AT_FDCWD, "spec.json", &text);

	if (r < 0)
		return err_errno(e, r, "read spec.json");
	return vm_spec_parse(buf_text(&text), text.size, ret, e);
}

static const char *const socket_names[] = {"vm.sock", "guest.sock", "console.sock"};

static void remove_sockets(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(socket_names); i++)
		(void)unlink(socket_names[i]);
	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "nic%zu.sock", i);
		(void)unlink(name);
	}
}

static void supervisor_free(struct supervisor *s)
{
	control_free(s->control);
	machine_free(s->machine);
	/* Under the record's lock, so that they are not those of a successor. */
	if (s->record)
		remove_sockets();
	record_free(s->record);
	(void)sd_event_unref(s->event);
	if (s->ready >= 0)
		(void)close(s->ready);
}

static int start(struct supervisor *s, const char *folder, struct err *e)
{
	static const struct machine_callbacks callbacks = {on_running, on_written, on_ended};
	CLEANUP_CLOSE int directory = -1;
	int r;

	if (chdir(folder) < 0)
		return err_errno(e, -errno, "enter %s", folder);
	r = read_spec(&s->spec, e);
	if (r < 0)
		return r;
	directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return err_errno(e, -errno, "open %s", folder);
	/* Its lock makes this the only supervisor of the folder. */
	r = record_open(directory, "events", &s->record, e);
	if (r < 0)
		return r;
	r = machine_start(s->event, &s->spec, s->record, &callbacks, s, &s->machine, e);
	if (r < 0)
		return r;
	r = control_new(s->event, "vm.sock", s->machine, s->record, &s->control, e);
	if (r < 0)
		return r;
	r = sd_event_set_signal_exit(s->event, false);
	if (r >= 0)
		r = sd_event_add_signal(
			s->event, NULL, SIGTERM | SD_EVENT_SIGNAL_PROCMASK, on_terminate, s);
	return r < 0 ? err_errno(e, r, "take signals") : 0;
}

static int run(const char *folder, int ready)
{
	CLEANUP(supervisor_free) struct supervisor s = {.ready = ready};
	struct err e = {0};
	int r = loop_new(&s.event);

	if (r < 0)
		(void)err_errno(&e, r, "make an event loop");
	else
		r = start(&s, folder, &e);
	if (r < 0) {
		log_control(LOG_ERROR, "the machine cannot be started", " folder=%s why=%s",
			log_quote(folder), log_quote(e.message));
		tell_ready(&s, json_from_err(&e));
		return EXIT_FAILURE;
	}
	return loop_run(s.event) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const char usage[] =
		"usage: sosie-vm FOLDER [READY-FD]\n"
		"\n"
		"Runs the machine described by FOLDER/spec.json until it ends. When READY-FD is\n"
		"given, one line of JSON is written there when the guest runs, or why it does "
		"not.\n"
		"sosie-hostd starts it; the formats are told in docs/agent-protocol.md.\n";
	uint64_t ready = 0;

	log_init("sosie-vm");
	if (argc == 2 && !strcmp(argv[1], "--help")) {
		(void)fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		(void)puts("sosie-vm " SOSIE_VERSION);
		return EXIT_SUCCESS;
	}
	if (argc < 2 || argc > 3 || argv[1][0] == '-' ||
		(argc == 3 && (parse_u64(argv[2], 1 << 16, &ready) < 0 || ready < 3 ||
				      fcntl((int)ready, F_SETFD, FD_CLOEXEC) < 0))) {
		(void)fputs(usage, stderr);
		return 2;
	}
	return run(argv[1], argc == 3 ? (int)ready : -1);
}

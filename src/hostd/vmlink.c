/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is at the other end is known from the socket (SO_PEERCRED), and its end from a pidfd, which
 * works for processes that are not our children. QEMU's end is watched too: a sosie-vm that was
 * killed takes QEMU with it, but the disk must not be touched before QEMU is really gone.
 */
#include "hostd/vmlink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "io/json.h"
#include "io/lines.h"
#include "io/listen.h"
#include "io/loop.h"

/* Until an event that could not be taken is offered again. */
#define RETRY_NS (NSEC_PER_SEC / 2)
/* Events of one answer. */
#define EVENTS_MAX 4096

enum request_id {
	ID_STATUS = 1,
	ID_EVENTS,
	ID_COMMAND,
};

struct vmlink {
	sd_event *event;
	struct lines *lines; /* NULL once the connection has ended */
	struct vmlink_callbacks callbacks;
	void *userdata;
	uint64_t from; /* the next event to be taken */
	pid_t vm, qemu;
	sd_event_source *vm_end, *qemu_end, *retry; /* the ends: NULL when it has ended */
	bool asked;
};

void vmlink_free(struct vmlink *l)
{
	if (!l)
		return;
	lines_free(l->lines);
	loop_drop(&l->vm_end);
	loop_drop(&l->qemu_end);
	loop_drop(&l->retry);
	(void)sd_event_unref(l->event);
	free(l);
}

static void ask_events(struct vmlink *l)
{
	if (l->lines)
		(void)lines_send(
			l->lines, json_pack("{s:s, s:i, s:I, s:b}", "op", "events", "id", ID_EVENTS,
					  "from", (json_int_t)l->from, "wait", 1));
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	ask_events(userdata);
	return 0;
}

static void take_events(struct vmlink *l, const json_t *message)
{
	const json_t *events;
	int r = json_get_array(message, "events", EVENTS_MAX, &events, NULL);

	for (size_t i = 0; r == 0 && i < json_array_size(events); i++) {
		const json_t *entry = json_array_get(events, i);
		int64_t sequence;

		r = json_get_integer(entry, "sequence", 1, INT64_MAX - 1, &sequence, NULL);
		if (r == 0 && (uint64_t)sequence >= l->from)
			r = l->callbacks.event(l, (uint64_t)sequence, entry, l->userdata);
		if (r == 0)
			l->from = (uint64_t)sequence + 1;
	}
	if (r == 0)
		ask_events(l);
	else if (l->retry)
		(void)loop_rearm(l->retry, RETRY_NS);
	else
		(void)loop_after(l->event, RETRY_NS, on_retry, l, &l->retry);
}

static void check_gone(struct vmlink *l)
{
	if (!l->vm_end && !l->qemu_end)
		l->callbacks.gone(l, l->userdata);
}

static int on_vm_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct vmlink *l = userdata;

	(void)source;
	(void)fd;
	(void)events;
	loop_drop(&l->vm_end);
	check_gone(l);
	return 0;
}

static int on_qemu_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct vmlink *l = userdata;

	(void)source;
	(void)fd;
	(void)events;
	loop_drop(&l->qemu_end);
	check_gone(l);
	return 0;
}

/* The parent of a process, or -1. */
static pid_t parent_of(pid_t pid)
{
	char path[32], text[512];
	CLEANUP_CLOSE int fd = -1;
	const char *after;
	char *end;
	ssize_t n;
	long parent;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	/* PID (NAME) STATE PARENT …, where the name may hold anything. */
	after = strrchr(text, ')');
	if (!after || strlen(after) < 4)
		return -1;
	parent = strtol(after + 4, &end, 10);
	return end > after + 4 ? (pid_t)parent : -1;
}

/* *source stays NULL when the process has ended already. */
static int watch_end(
	struct vmlink *l, pid_t pid, sd_event_io_handler_t callback, sd_event_source **source)
{
	CLEANUP_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return -errno;
	return loop_pidfd(l->event, pidfd, callback, l, source);
}

static void take_status(struct vmlink *l, const json_t *message)
{
	const json_t *status = json_object_get(message, "status");
	int64_t pid;

	l->asked = false;
	if (json_get_integer(status, "pid", 1, INT32_MAX, &pid, NULL) == 0 && !l->qemu) {
		l->qemu = (pid_t)pid;
		/* Its parent tells that the number has not been given to another one since. */
		if (watch_end(l, l->qemu, on_qemu_end, &l->qemu_end) == 0 &&
			parent_of(l->qemu) != l->vm)
			loop_drop(&l->qemu_end);
	}
	l->callbacks.status(l, status, l->userdata);
}

static void on_message(struct lines *lines, const json_t *message, void *userdata)
{
	struct vmlink *l = userdata;
	struct err e;
	int64_t id;

	(void)lines;
	if (json_to_err(message, &e) == 0) {
		l->callbacks.refused(l, &e, l->userdata);
		return;
	}
	if (json_get_integer(message, "id", ID_STATUS, ID_COMMAND, &id, NULL) < 0)
		return;
	if (id == ID_STATUS)
		take_status(l, message);
	else if (id == ID_EVENTS)
		take_events(l, message);
}

static void on_closed(struct lines *lines, const struct err *e, void *userdata)
{
	struct vmlink *l = userdata;

	(void)e;
	lines_free(lines);
	/* The process is about to end; that is what counts. */
	l->lines = NULL;
}

void vmlink_ask(struct vmlink *l)
{
	if (!l->lines || l->asked)
		return;
	l->asked =
		lines_send(l->lines, json_pack("{s:s, s:i}", "op", "status", "id", ID_STATUS)) == 0;
}

int vmlink_stop(struct vmlink *l, bool force)
{
	return l->lines ? lines_send(l->lines, json_pack("{s:s, s:i, s:b}", "op", "stop", "id",
						       ID_COMMAND, "force", force))
			: -EPIPE;
}

int vmlink_reboot(struct vmlink *l, uint64_t count)
{
	return l->lines ? lines_send(l->lines, json_pack("{s:s, s:i, s:I}", "op", "reboot", "id",
						       ID_COMMAND, "count", (json_int_t)count))
			: -EPIPE;
}

int vmlink_open(sd_event *event, int folder, uint64_t from,
	const struct vmlink_callbacks *callbacks, void *userdata, struct vmlink **ret,
	struct err *e)
{
	static const struct lines_callbacks lines_callbacks = {on_message, on_closed};
	CLEANUP(vmlink_free_p) struct vmlink *l = calloc(1, sizeof(*l));
	CLEANUP_CLOSE int fd = -1;
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int r;

	if (!l)
		return err_errno(e, -ENOMEM, "connect to sosie-vm");
	*l = (struct vmlink){.event = sd_event_ref(event),
		.callbacks = *callbacks,
		.userdata = userdata,
		.from = from};
	r = connect_unix_at(folder, "vm.sock", &fd, e);
	if (r < 0)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freed by its cleanup */
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return err_errno(e, -errno, "ask who serves vm.sock");
	l->vm = peer.pid;
	r = watch_end(l, l->vm, on_vm_end, &l->vm_end);
	if (r == 0)
		r = lines_open(event, fd, &lines_callbacks, l, &l->lines);
	if (r < 0)
		return err_errno(e, r, "watch sosie-vm");
	(void)TAKE_FD(fd);
	vmlink_ask(l);
	ask_events(l);
	*ret = TAKE_PTR(l);
	return 0;
}

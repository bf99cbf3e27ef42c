/* SPDX-License-Identifier: Apache-2.0 */
#include "hostd/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "io/loop.h"

/* What it writes to one of its descriptors. */
struct stream {
	int fd;
	sd_event_source *io;
	size_t size;
	char text[HELPER_OUTPUT_MAX + 1];
};

struct helper {
	pid_t pid;
	sd_event_source *child;
	struct stream output, errors;
	helper_done_fn done;
	void *userdata;
	char program[32];
};

static void stream_free(struct stream *s)
{
	loop_drop(&s->io);
	if (s->fd >= 0)
		(void)close(s->fd);
}

void helper_free(struct helper *h)
{
	if (!h)
		return;
	/* Its source, while there is one, has not reaped it yet: the pid is still its own. */
	if (h->pid > 0 && h->child)
		(void)kill(h->pid, SIGKILL);
	loop_drop(&h->child);
	stream_free(&h->output);
	stream_free(&h->errors);
	free(h);
}
DEFINE_CLEANUP(struct helper *, helper_free);

/* Reads on to the end, also what there is no room for. */
static void stream_read(struct stream *s)
{
	char block[512];
	ssize_t n;

	while ((n = read(s->fd, block, sizeof(block))) > 0) {
		size_t take = MIN((size_t)n, HELPER_OUTPUT_MAX - s->size);

		memcpy(s->text + s->size, block, take);
		s->size += take;
	}
	if (n == 0)
		loop_drop(&s->io);
	s->text[s->size] = '\0';
}

static int on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	stream_read(userdata);
	return 0;
}

static int on_end(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	CLEANUP(helper_free_p) struct helper *h = userdata;
	struct err e = {0};

	(void)source;
	stream_read(&h->output);
	stream_read(&h->errors);
	loop_drop(&h->child);
	if (info->si_code != CLD_EXITED) {
		(void)err_set(&e, ERR_INTERNAL, "%s was killed by signal %d", h->program,
			info->si_status);
	} else if (info->si_status != 0) {
		while (h->errors.size > 0 && h->errors.text[h->errors.size - 1] == '\n')
			h->errors.text[--h->errors.size] = '\0';
		(void)err_set(&e, ERR_INTERNAL, "%s failed: %s", h->program, h->errors.text);
	}
	h->done(&e, h->output.text, h->userdata);
	return 0;
}

static void run(const char *const *argv, int directory, int out, int err, pid_t parent)
{
	loop_reset_signals();
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent ||
		dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0 ||
		(directory >= 0 && fchdir(directory) < 0))
		_exit(126);
	(void)execvp(argv[0], (char *const *)argv);
	(void)dprintf(STDERR_FILENO, "%s", strerror(errno));
	_exit(127);
}

static int stream_open(sd_event *event, struct stream *s, int *ret_write)
{
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	s->fd = fds[0];
	*ret_write = fds[1];
	if (fcntl(s->fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	r = sd_event_add_io(event, &s->io, s->fd, EPOLLIN, on_stream, s);
	return MIN(r, 0);
}

int helper_start(sd_event *event, const char *const *argv, int directory, helper_done_fn done,
	void *userdata, struct helper **ret)
{
	CLEANUP(helper_free_p) struct helper *h = calloc(1, sizeof(*h));
	CLEANUP_CLOSE int out = -1, err = -1;
	pid_t parent = getpid();
	int r;

	if (!h)
		return -ENOMEM;
	h->output.fd = h->errors.fd = -1;
	h->done = done;
	h->userdata = userdata;
	(void)snprintf(h->program, sizeof(h->program), "%s", argv[0]);
	r = stream_open(event, &h->output, &out);
	if (r == 0)
		r = stream_open(event, &h->errors, &err);
	if (r < 0)
		return r;
	h->pid = fork();
	if (h->pid < 0)
		return -errno;
	if (h->pid == 0)
		run(argv, directory, out, err, parent);
	r = loop_child(event, h->pid, on_end, h, &h->child);
	if (r < 0) {
		(void)kill(h->pid, SIGKILL);
		return r;
	}
	if (ret)
		*ret = h;
	(void)TAKE_PTR(h);
	return 0;
}

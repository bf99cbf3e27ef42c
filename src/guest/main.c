/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie-guest: the agent in a virtual machine. Runs programs for the host, as members of the
 * machine's group when asked to, and relays their input and output.
 *
 * One poll() loop. Everything the host sends is looked at through the bounded reader. Output is
 * read from a program only while the host takes it, so that nothing is held here without bound.
 *
 * The group's segment is the memory of an ivshmem device; a member maps it itself, and from then
 * on asks and answers without this agent.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/reader.h"
#include "base/source.h"
#include "guest/protocol.h"
#include "lib/values/launch.h"

#define PORTS_FOLDER "/sys/class/virtio-ports"
#define PCI_FOLDER   "/sys/bus/pci/devices"
/* How much waits to be taken by the host before programs' output is left unread. */
#define BACKLOG_MAX (4 * GUEST_FRAME_MAX)
#define INPUT_MAX   (1U << 20)
/* The backlog, and what one turn can add to it: a chunk from each of two streams of each session.
 */
#define OUT_MAX    (BACKLOG_MAX + 3 * GUEST_SESSIONS * 2 * READ_CHUNK)
#define READ_CHUNK 16384
/* A frame that takes longer has lost its end with the host that sent it. */
#define FRAME_TIME_NS (2 * NSEC_PER_SEC)

struct session {
	bool used;
	uint32_t number;
	pid_t pid;
	int in, out, err;
	bool end_input; /* once `input` is written */
	bool exited;    /* status is to be told after the last output */
	int status;
	struct buf input;
	struct member *member;
};

struct guest {
	int port, signals;
	uint64_t partial_since; /* CLOCK_MONOTONIC ns: a frame has begun and not ended; or 0 */
	struct group *group;    /* NULL: no shared memory */
	struct session sessions[GUEST_SESSIONS];
	struct buf in, out;
};

static void send_frame(
	struct guest *g, uint8_t type, uint32_t session, const void *payload, size_t n)
{
	uint8_t head[GUEST_FRAME_HEAD];

	put_u32(head, (uint32_t)(n + GUEST_FRAME_HEAD - 4));
	head[4] = type;
	put_u32(head + 5, session);
	/* Never full: see OUT_MAX. */
	(void)buf_append(&g->out, head, sizeof(head));
	(void)buf_append(&g->out, payload, n);
}

static void send_text(struct guest *g, uint8_t type, uint32_t session, const char *text)
{
	send_frame(g, type, session, text, strlen(text));
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void end_session(struct session *s)
{
	close_fd(&s->in);
	close_fd(&s->out);
	close_fd(&s->err);
	buf_free(&s->input);
	/* The recorder on the host cannot see that the program is gone. */
	if (s->member)
		atomic_store(&s->member->state, MEMBER_LEFT);
	*s = (struct session){.in = -1, .out = -1, .err = -1};
}

static struct session *find_session(struct guest *g, uint32_t number)
{
	for (size_t i = 0; i < GUEST_SESSIONS; i++)
		if (g->sessions[i].used && g->sessions[i].number == number)
			return &g->sessions[i];
	return NULL;
}

static int read_line(
	const char *folder, const char *entry, const char *file, char *out, size_t size)
{
	char path[512];
	CLEANUP_CLOSE int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/%s/%s", folder, entry, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, out, size - 1);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return 0;
}

/* The entry of the folder whose file says the text; and for a second file, unless NULL. */
static bool find_entry(const char *folder, const char *file, const char *text, const char *file2,
	const char *text2, char *out, size_t size)
{
	DIR *d = opendir(folder);
	const struct dirent *entry;
	bool found = false;
	char line[64];

	while (d && !found && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' ||
			read_line(folder, entry->d_name, file, line, sizeof(line)) < 0 ||
			strcmp(line, text) != 0)
			continue;
		if (file2 && (read_line(folder, entry->d_name, file2, line, sizeof(line)) < 0 ||
				     strcmp(line, text2) != 0))
			continue;
		(void)snprintf(out, size, "%.*s", (int)size - 1, entry->d_name);
		found = true;
	}
	if (d)
		(void)closedir(d);
	return found;
}

static int open_port(struct err *e)
{
	char name[64], path[96];
	int fd;

	if (!find_entry(PORTS_FOLDER, "name", GUEST_PORT, NULL, NULL, name, sizeof(name))) {
		(void)err_set(e, ERR_NOT_FOUND, "this machine has no port %s", GUEST_PORT);
		return err_hint(e, "sosie-guest runs in virtual machines that Sosie has started");
	}
	(void)snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? err_errno(e, -errno, "open %s", path) : fd;
}

/* The memory shared with the host, where there is some and it holds a segment. */
static void open_group(struct guest *g)
{
	char device[64], path[128];
	struct err e = {0};

	/* Inter-VM shared memory: Red Hat's vendor number, device 0x1110. */
	if (!find_entry(PCI_FOLDER, "vendor", "0x1af4", "device", "0x1110", device, sizeof(device)))
		return;
	(void)snprintf(path, sizeof(path), PCI_FOLDER "/%s/resource2", device);
	if (group_open_at(path, &g->group, &e) < 0)
		log_control(LOG_WARNING, "no group in the shared memory", " error=%s",
			log_quote(e.message));
	else
		log_control(LOG_INFO, "group", " name=%s", g->group->name);
}

static void say_hello(struct guest *g)
{
	uint8_t payload[5 + sizeof(((struct utsname *)0)->release)];
	struct utsname u = {0};

	if (!g->group)
		open_group(g);
	(void)uname(&u);
	put_u32(payload, GUEST_VERSION);
	payload[4] = g->group != NULL;
	memcpy(payload + 5, u.release, strlen(u.release));
	send_frame(g, GUEST_HELLO, 0, payload, 5 + strlen(u.release));
}

/* In the child. Errors go to standard error, which the host sees, with the statuses of a shell. */
static void become(struct guest *g, struct session *s, char **arguments, const int ends[3])
{
	char path[PATH_MAX];
	struct err e = {0};
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)setsid();
	if (dup2(ends[0], 0) < 0 || dup2(ends[1], 1) < 0 || dup2(ends[2], 2) < 0)
		_exit(125);
	if (launch_find(arguments[0], path, &e) < 0) {
		(void)dprintf(2, "sosie-guest: %s\n", e.message);
		_exit(e.code == ERR_NOT_FOUND ? 127 : 126);
	}
	if (s->member) {
		s->member->pid = (uint32_t)getpid();
		if (launch_check(path, &e) < 0 || launch_prepare(g->group, s->member, &e) < 0) {
			(void)dprintf(2, "sosie-guest: %s\n", e.message);
			_exit(125);
		}
	}
	(void)execv(path, arguments);
	(void)dprintf(2, "sosie-guest: %s: %s\n", path, strerror(errno));
	_exit(126);
}

static int start(struct guest *g, struct session *s, char **arguments, struct err *e)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
	uint8_t pid[4];
	int r = 0;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		r = err_errno(e, -errno, "make pipes");
	if (r == 0) {
		s->pid = fork();
		if (s->pid == 0)
			become(g, s, arguments, (int[3]){in[0], out[1], err[1]});
		if (s->pid < 0)
			r = err_errno(e, -errno, "start a process");
	}
	close_fd(&in[0]);
	close_fd(&out[1]);
	close_fd(&err[1]);
	s->in = in[1];
	s->out = out[0];
	s->err = err[0];
	if (r < 0)
		return r;
	(void)fcntl(s->in, F_SETFL, O_NONBLOCK);
	put_u32(pid, (uint32_t)s->pid);
	send_frame(g, GUEST_STARTED, s->number, pid, sizeof(pid));
	return 0;
}

/* Takes EXEC's payload apart. arguments: GUEST_ARGUMENTS + 1 pointers into `text`. */
static int parse_exec(struct reader *r, uint8_t *flags, uint32_t *run, char *name, char **arguments,
	char *text, struct err *e)
{
	uint8_t length;
	const uint8_t *bytes;
	size_t count = 0, used = 0;

	*flags = reader_u8(r);
	*run = reader_u32(r);
	length = reader_u8(r);
	bytes = reader_bytes(r, length);
	if (r->failed || length > NAME_MAX_LENGTH)
		return err_set(e, ERR_INVALID, "malformed request");
	memcpy(name, bytes, length);
	name[length] = '\0';
	if (length > 0 && !name_valid(name))
		return err_set(e, ERR_INVALID, "that is no name for a member");
	memcpy(text, r->at, r->left);
	while (used < r->left && count < GUEST_ARGUMENTS) {
		size_t n = strnlen(text + used, r->left - used);

		if (n == r->left - used)
			return err_set(e, ERR_INVALID, "malformed request");
		arguments[count++] = text + used;
		used += n + 1;
	}
	if (count == 0 || used < r->left)
		return err_set(e, ERR_INVALID, "needs 1 to %d arguments", GUEST_ARGUMENTS);
	arguments[count] = NULL;
	return 0;
}

static int take_exec(struct guest *g, uint32_t number, struct reader *r, struct err *e)
{
	static char text[GUEST_FRAME_MAX];
	char *arguments[GUEST_ARGUMENTS + 1], name[NAME_MAX_LENGTH + 1];
	struct session *s = NULL;
	uint8_t flags;
	uint32_t run;
	int result = parse_exec(r, &flags, &run, name, arguments, text, e);

	if (result < 0)
		return result;
	if (find_session(g, number))
		return err_set(e, ERR_CONFLICT, "session %u is in use", number);
	for (size_t i = 0; i < GUEST_SESSIONS && !s; i++)
		if (!g->sessions[i].used)
			s = &g->sessions[i];
	if (!s)
		return err_set(e, ERR_LIMIT, "%d programs are running already", GUEST_SESSIONS);
	if (flags & GUEST_MEMBER && !g->group) {
		(void)err_set(e, ERR_UNAVAILABLE, "this machine shares no memory with a group");
		return err_hint(e, "launch it with --group");
	}
	*s = (struct session){.used = true,
		.number = number,
		.in = -1,
		.out = -1,
		.err = -1,
		.input = BUF_INIT(INPUT_MAX)};
	if (flags & GUEST_MEMBER)
		result = group_join(g->group, name[0] ? name : NULL, arguments[0], run,
			MEMBER_IN_GUEST, &s->member, e);
	if (result == 0)
		result = start(g, s, arguments, e);
	if (result < 0)
		end_session(s);
	return result;
}

static void take_input(struct session *s, const struct reader *r)
{
	if (r->left == 0)
		s->end_input = true;
	else
		(void)buf_append(&s->input, r->at, r->left);
	/* More than it can hold was sent to a program that does not read. */
	if (buf_error(&s->input))
		(void)kill(s->pid, SIGPIPE);
}

static void start_over(struct guest *g)
{
	for (size_t i = 0; i < GUEST_SESSIONS; i++) {
		struct session *s = &g->sessions[i];

		if (!s->used)
			continue;
		if (!s->exited)
			(void)kill(-s->pid, SIGHUP);
		end_session(s);
	}
	say_hello(g);
}

static void take_frame(struct guest *g, const uint8_t *bytes, size_t n)
{
	struct reader r = reader_init(bytes, n);
	uint8_t type = reader_u8(&r);
	uint32_t number = reader_u32(&r);
	struct session *s = find_session(g, number);
	struct err e = {0};

	switch (type) {
	case GUEST_HELLO:
		start_over(g);
		break;
	case GUEST_EXEC:
		if (take_exec(g, number, &r, &e) < 0)
			send_text(g, GUEST_FAILED, number, e.message);
		break;
	case GUEST_INPUT:
		if (s)
			take_input(s, &r);
		break;
	case GUEST_SIGNAL:
		/* Its process group; or itself, while it is not yet the leader of one. */
		if (s && !s->exited && r.left == 1 && kill(-s->pid, *r.at) < 0)
			(void)kill(s->pid, *r.at);
		break;
	default:
		log_data(LOG_WARNING, "unknown message", " type=%u", type);
	}
}

/* Takes a whole frame from the input. false when there is none. */
static bool take_next(struct guest *g)
{
	struct reader r = reader_init(g->in.data, g->in.size);
	uint32_t length = reader_u32(&r);
	const uint8_t *frame;

	if (r.failed)
		return false;
	/* Out of step: begin anew. The host repeats its HELLO until it is answered. */
	if (length < GUEST_FRAME_HEAD - 4 || length > GUEST_FRAME_MAX) {
		buf_reset(&g->in);
		return false;
	}
	frame = reader_bytes(&r, length);
	if (!frame)
		return false;
	take_frame(g, frame, length);
	buf_consume(&g->in, g->in.size - r.left);
	g->partial_since = 0;
	return true;
}

static void read_port(struct guest *g)
{
	uint64_t now = source_system.clock_ns(NULL, CLOCK_MONOTONIC);
	char chunk[READ_CHUNK];
	ssize_t n = read(g->port, chunk, sizeof(chunk));

	if (n <= 0)
		return;
	if (g->partial_since && now - g->partial_since > FRAME_TIME_NS) {
		g->partial_since = 0;
		buf_reset(&g->in);
		return;
	}
	if (buf_append(&g->in, chunk, (size_t)n) < 0)
		buf_reset(&g->in);
	while (take_next(g))
		continue;
	if (g->in.size == 0)
		g->partial_since = 0;
	else if (!g->partial_since)
		g->partial_since = now;
}

static void write_port(struct guest *g)
{
	ssize_t n = write(g->port, g->out.data, g->out.size);

	if (n > 0)
		buf_consume(&g->out, (size_t)n);
}

static void read_output(struct guest *g, const struct session *s, int *fd, uint8_t which)
{
	uint8_t chunk[1 + READ_CHUNK];
	ssize_t n = read(*fd, chunk + 1, sizeof(chunk) - 1);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close_fd(fd);
		return;
	}
	chunk[0] = which;
	send_frame(g, GUEST_OUTPUT, s->number, chunk, (size_t)n + 1);
}

static void write_input(struct session *s)
{
	ssize_t n = s->input.size > 0 ? write(s->in, s->input.data, s->input.size) : 0;

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		close_fd(&s->in);
		return;
	}
	if (n > 0)
		buf_consume(&s->input, (size_t)n);
	if (s->input.size == 0 && s->end_input)
		close_fd(&s->in);
}

static void reap(struct guest *g)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	(void)!read(g->signals, &info, sizeof(info));
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < GUEST_SESSIONS; i++)
			if (g->sessions[i].used && g->sessions[i].pid == pid) {
				g->sessions[i].exited = true;
				g->sessions[i].status = status;
			}
}

/* Tells of a program's end once its output has been read to the end. */
static void tell_ends(struct guest *g)
{
	for (size_t i = 0; i < GUEST_SESSIONS; i++) {
		struct session *s = &g->sessions[i];
		uint8_t payload[2];

		if (!s->used || !s->exited || s->out >= 0 || s->err >= 0)
			continue;
		payload[0] = WIFSIGNALED(s->status);
		payload[1] = (uint8_t)(payload[0] ? WTERMSIG(s->status) : WEXITSTATUS(s->status));
		send_frame(g, GUEST_EXITED, s->number, payload, sizeof(payload));
		end_session(s);
	}
}

#define POLLS_MAX (2 + 3 * GUEST_SESSIONS)

/* What a poll entry stands for. */
struct watched {
	struct session *session;
	int which; /* 0: input, 1: output, 2: errors */
};

static nfds_t watch(struct guest *g, struct pollfd polls[POLLS_MAX], struct watched what[POLLS_MAX])
{
	bool room = g->out.size < BACKLOG_MAX;
	nfds_t n = 2;

	polls[0] = (struct pollfd){
		g->port, (short)((room ? POLLIN : 0) | (g->out.size > 0 ? POLLOUT : 0)), 0};
	polls[1] = (struct pollfd){g->signals, POLLIN, 0};
	for (size_t i = 0; i < GUEST_SESSIONS; i++) {
		struct session *s = &g->sessions[i];

		if (!s->used)
			continue;
		if (s->in >= 0 && (s->input.size > 0 || s->end_input)) {
			what[n] = (struct watched){s, 0};
			polls[n++] = (struct pollfd){s->in, POLLOUT, 0};
		}
		if (s->out >= 0 && room) {
			what[n] = (struct watched){s, 1};
			polls[n++] = (struct pollfd){s->out, POLLIN, 0};
		}
		if (s->err >= 0 && room) {
			what[n] = (struct watched){s, 2};
			polls[n++] = (struct pollfd){s->err, POLLIN, 0};
		}
	}
	return n;
}

static void turn(struct guest *g)
{
	struct pollfd polls[POLLS_MAX];
	struct watched what[POLLS_MAX];
	nfds_t n = watch(g, polls, what);
	/* Without a host the port is always ready and hung up: no spinning on it. */
	const struct timespec nobody = {.tv_nsec = 50 * NSEC_PER_MSEC};

	if (poll(polls, n, -1) < 0)
		return;
	for (nfds_t i = 2; i < n; i++) {
		struct session *s = what[i].session;

		if (!polls[i].revents || !s->used)
			continue;
		if (what[i].which == 0)
			write_input(s);
		else
			read_output(g, s, what[i].which == 1 ? &s->out : &s->err,
				(uint8_t)what[i].which);
	}
	if (polls[1].revents & POLLIN)
		reap(g);
	tell_ends(g);
	if (polls[0].revents & POLLOUT)
		write_port(g);
	if (polls[0].revents & POLLIN)
		read_port(g);
	else if (polls[0].revents & POLLHUP)
		(void)nanosleep(&nobody, NULL);
}

int main(int argc, char **argv)
{
	static struct guest g;
	struct err e = {0};
	sigset_t child;

	if (argc > 1) {
		(void)printf("usage: %s\n\nThe agent in a virtual machine: runs programs for the "
			     "host.\n",
			argv[0]);
		return strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	log_init("sosie-guest");
	g.in = BUF_INIT(2 * GUEST_FRAME_MAX);
	g.out = BUF_INIT(OUT_MAX);
	for (size_t i = 0; i < GUEST_SESSIONS; i++)
		g.sessions[i].in = g.sessions[i].out = g.sessions[i].err = -1;
	(void)sigemptyset(&child);
	(void)sigaddset(&child, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &child, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	g.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	g.port = open_port(&e);
	if (g.port < 0) {
		(void)fprintf(stderr, "sosie-guest: %s\nhint: %s\n", e.message, e.hint);
		return err_exit_status(e.code);
	}
	open_group(&g);
	log_control(LOG_INFO, "running", NULL);
	for (;;)
		turn(&g);
}
